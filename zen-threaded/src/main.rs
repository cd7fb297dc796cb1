//! Threads serve one client each: a few workers that share accept, or a new thread for every connection.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-threaded
//! $ cargo run -p zen-threaded -- --mode per-connection
//! ```
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. With `--mode workers` a few threads sleep in `accept()` on one listener; the kernel wakes one of them for
//!    each client, in the order in which they fell asleep. The client after the last worker waits in the backlog.
//! 3. With `--mode per-connection` one thread sleeps in `accept()` and starts a thread for each client; one
//!    over `--max-connections` is turned away.
//! 4. Each thread sleeps in `recv()` and `send()` for its own client, a tick of 250 ms at most.
//!
//! # Predict
//!
//! The README asks three questions and names the command that settles each.
//!
//! # Limits
//!
//! A silent client costs a worker until its time is over; a thread per connection costs a stack for each.
//! Every tick wakes every idle thread: a thousand of them cost a few percent of a processor.

#![forbid(unsafe_code)]

mod converse;
mod options;
mod per_connection;
mod workers;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use options::{Arguments, Mode};

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::InCalls, arguments.at_once())?;
        match arguments.mode {
            Mode::Workers => workers::serve(server, arguments.workers()),
            Mode::PerConnection => {
                per_connection::serve(server);
                Ok(())
            }
        }
    })
}
