//! Threads serve one client each: a few workers that share accept, a new thread for every connection, or a pool with a
//! queue.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-threaded
//! $ cargo run -p zen-threaded -- --mode per-connection
//! $ cargo run -p zen-threaded -- --mode pool --workers 4 --queue 16
//! $ cargo run -p zen-threaded -- --processes 4 --workers 1
//! ```
//!
//! `--help` lists the flags. `--workers N` sets the number of workers, `--max-connections N` bounds the threads of
//! `--mode per-connection`, and `--delay 700ms` makes each answer slow.
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. With `--mode workers` a few threads sleep in `accept()` on one listener. The kernel wakes one of them for each
//!    client, in the order in which they fell asleep. The client after the last worker waits in the backlog.
//! 3. With `--mode per-connection` one thread sleeps in `accept()` and starts a thread for each client. A client over
//!    `--max-connections` is rejected.
//! 4. With `--mode pool` one thread sleeps in `accept()` and puts each client into a queue, from which a few workers
//!    take them. A client that finds the queue full is rejected.
//! 5. Each thread sleeps in `recv()` and `send()` for its own client, a tick of 250 ms at most.
//! 6. Each thread works out the answers to its own client. With `--delay` it sleeps there as long as the answer takes;
//!    clients of other threads do not wait for it.
//!
//! # Limits
//!
//! - A silent client occupies a worker until it is disconnected, and a slow answer until it is sent. While all four
//!   are busy, a fifth client is connected by the kernel and receives nothing. With a thread for each connection it is
//!   served at once.
//! - A thread for each connection costs a stack. With `--mode workers`, `--max-connections` changes nothing.
//! - When no descriptor is left, `accept()` is tried again after 100 ms; existing clients continue.
//! - On SIGTERM the server accepts the queued clients, answers every whole question that it has received, and exits.
//! - Timeouts are exact to a tick of 250 ms.
//! - Every tick wakes every idle thread: a thousand of them cost a few percent of a processor.

#![forbid(unsafe_code)]

mod converse;
mod options;
mod per_connection;
mod pool;
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
            Mode::Pool => pool::serve(server, arguments.workers()),
        }
    })
}
