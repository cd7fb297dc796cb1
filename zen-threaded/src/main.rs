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
//! - A silent client costs a worker until its time is over, and a slow answer until it is given; while all four are
//!   busy, a fifth client is connected, by the kernel, and hears nothing. With a thread for each it is served like them.
//! - A thread for each connection costs a stack. One client over `--max-connections` is turned away; with workers that
//!   changes nothing.
//! - When no descriptor is left, `accept()` is tried again after 100 ms; who is here is served on.
//! - On SIGTERM those who wait are taken in, what all have asked is answered, and the server leaves.
//! - Time-outs are flags; their defaults are in `zen-proto/src/server/options.rs`.
//! - Every tick wakes every idle thread: a thousand of them cost a few percent of a processor.

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
