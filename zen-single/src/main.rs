//! One thread serves one client at a time; all others wait in the kernel's backlog.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-single
//! $ cargo run -p zen-client
//! ```
//!
//! `--help` lists the flags. `--delay 700ms` makes each answer slow, `--idle-timeout 5s` disconnects silent clients
//! sooner, and `-v` logs each client.
//!
//! # How it works
//!
//! 1. `main` parses the command line, listens, and serves.
//! 2. `accept()` sleeps until a client connects.
//! 3. `recv()` and `send()` sleep until that client sends or reads. Meanwhile no other client is served. The kernel
//!    completes the handshakes of further clients and keeps them in the backlog.
//! 4. `accept()`, `recv()` and `send()` return after a tick of 250 ms at the latest, so that deadlines and signals are
//!    noticed.
//! 5. The same thread computes the answers. With `--delay` it sleeps first, with `--burn` it computes for that time. In
//!    both cases all other clients wait for this answer.
//!
//! # Limits
//!
//! - One client at a time: a silent one keeps all others waiting until it is disconnected, and so does a slow answer.
//! - A second client is connected by the kernel, and receives nothing until the first is closed. `--max-connections`
//!   does not change that.
//! - When no descriptor is left, `accept()` is tried again after 100 ms.
//! - On SIGTERM the server accepts the clients in the backlog, answers every whole question that it has received, and
//!   exits.
//! - A timeout may fire up to one tick of 250 ms late.

#![forbid(unsafe_code)]

mod options;
mod serve;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use options::Arguments;

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        // The capacity is one client. The others wait in the backlog, so none is ever rejected.
        let server = Server::listen(&arguments.common, Waiting::InCalls, Some(1))?;
        serve::serve(server);
        Ok(())
    })
}
