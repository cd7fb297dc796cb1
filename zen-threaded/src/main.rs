//! Each thread serves one client at a time. There are four modes: a few workers that call accept() on one listener, a
//! new thread for each connection, a new process for each connection, or a pool of workers with a queue.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-threaded
//! $ cargo run -p zen-threaded -- --mode per-connection
//! $ cargo run -p zen-threaded -- --mode per-process
//! $ cargo run -p zen-threaded -- --mode pool --workers 4 --queue 16
//! $ cargo run -p zen-threaded -- --processes 4 --workers 1
//! ```
//!
//! `--help` lists the flags. `--workers N` sets the number of workers, `--max-connections N` bounds the threads of
//! `--mode per-connection` and the processes of `--mode per-process`, and `--delay 700ms` makes each answer slow.
//! `--processes N` serves from N processes that share one listener.
//!
//! # How it works
//!
//! 1. `main` parses the command line, listens, and serves.
//! 2. With `--mode workers` a few threads sleep in `accept()` on one listener. The kernel wakes one of them for each
//!    client, in the order in which they fell asleep. When all are busy, the next client waits in the backlog.
//! 3. With `--mode per-connection` one thread sleeps in `accept()` and starts a thread for each client. A client over
//!    `--max-connections` is rejected.
//! 4. With `--mode per-process` one thread sleeps in `accept()` and starts this program again for each client, with the
//!    client's socket as stdin. Another thread reaps the processes that have ended.
//! 5. With `--mode pool` one thread sleeps in `accept()` and puts each client into a queue. A few workers take clients
//!    from it. A client that finds the queue full is rejected.
//! 6. A thread with a client sleeps in `recv()` or `send()`, for at most a tick of 250 ms. Then it checks the client's
//!    deadline and whether the server drains.
//! 7. Each thread computes the answers to its own client. With `--delay` it sleeps first; clients of other threads do
//!    not wait for it.
//!
//! # Limits
//!
//! - A client occupies a worker until the connection is closed, even while it is silent. While all four workers are
//!   occupied, a fifth client is connected by the kernel and receives nothing. With `--mode pool` it waits in the
//!   queue. With a thread or a process for each connection it is served immediately.
//! - A thread for each connection needs a stack. A process takes time to start, and has memory of its own. With
//!   `--mode workers`, `--max-connections` changes nothing.
//! - When no descriptor is left, `accept()` is tried again after 100 ms; existing clients continue.
//! - On SIGTERM the server accepts the clients in the backlog, answers every whole question that it has received, and
//!   exits.
//! - A timeout may fire up to one tick of 250 ms late.
//! - Every tick wakes every thread that waits for a client: a thousand idle ones cost a few percent of a processor.

#![forbid(unsafe_code)]

mod converse;
mod options;
mod per_connection;
mod per_process;
mod pool;
mod workers;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use options::{Arguments, Mode};

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::InCalls, arguments.capacity())?;
        match arguments.mode {
            Mode::Workers => workers::serve(server, arguments.workers()),
            Mode::PerConnection => {
                per_connection::serve(server);
                Ok(())
            }
            Mode::PerProcess => per_process::serve(server, &arguments.common),
            Mode::Pool => pool::serve(server, arguments.workers()),
        }
    })
}
