//! One thread serves all clients: it waits until any client is ready, and never for a particular one.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-poll
//! $ cargo run -p zen-poll -- --style chat --loops 2
//! ```
//!
//! `--help` lists the flags. `--style` chooses how received bytes are handled: as in asyncio, or as in asynchat.
//! `--loops N` starts several loops. `--delay 700ms` makes each answer slow.
//!
//! # How it works
//!
//! 1. `main` parses the command line, listens, and serves.
//! 2. `event_loop` sleeps in `Poller::wait` (epoll, on Linux) until descriptors are ready. For each ready client it
//!    calls `recv()` and `send()` at most once each. Neither call blocks.
//! 3. `callback` implements the trait `Protocol` in the style of asyncio: the loop passes the received bytes to
//!    `data_received`. `chat` implements it in the style of asynchat: it collects the pieces of a question until the
//!    last one.
//! 4. The loop also computes the answers. With `--delay` its thread sleeps there, and all its clients wait.
//! 5. With `--loops N` the first loop accepts, and hands each new client to the loop with the fewest
//!    clients.
//!
//! # Limits
//!
//! - A fifth client is served like the first four. But while a loop computes an answer, it serves no other client.
//! - A client over `--max-connections` is rejected.
//! - When no descriptor is left, the loop ignores the listener for 100 ms; existing clients continue.
//! - On SIGTERM the server accepts the clients in the backlog, answers every whole question that it has received, and
//!   exits.
//! - A timeout may fire up to one tick of 250 ms late.

mod acceptor;
mod callback;
mod chat;
mod event_loop;
mod options;
mod registration;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use callback::Callback;
use chat::Chat;
use options::{Arguments, Style};

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::ForReadiness { pollers: arguments.loops.get() }, None)?;
        match arguments.style {
            Style::Callback => event_loop::serve::<Callback>(server, arguments.loops.get()),
            Style::Chat => event_loop::serve::<Chat>(server, arguments.loops.get()),
        }
    })
}
