//! One thread serves all clients: it waits until any client is ready, and never for a particular one.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-poll
//! $ cargo run -p zen-poll -- --style chat --loops 2
//! ```
//!
//! `--help` lists the flags. `--style` chooses how the loop tells the protocol what has happened, `--loops N` starts
//! several loops, and `--delay 700ms` makes each answer slow.
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. `event_loop` sleeps in `Poller::wait` (epoll, on Linux) until descriptors are ready. It gives each ready
//!    client one `recv()` and one `send()`, neither of which can sleep.
//! 3. `callback` is a `Protocol` as in asyncio: the loop calls it when something has happened. `chat` is another,
//!    as in asynchat: it receives the pieces and the ends of questions.
//! 4. The loop works out the answers as well. With `--delay` its thread sleeps there, and all its clients wait.
//! 5. With `--loops N` the first loop accepts, and hands each new client to the loop with the fewest.
//!
//! # Limits
//!
//! - A fifth client is served like the first four. But while a loop works out an answer, it serves no other client.
//! - A client over `--max-connections` is rejected.
//! - When no descriptor is left, the listener is not polled for 100 ms; existing clients continue.
//! - On SIGTERM the server accepts the queued clients, answers every whole question that it has received, and exits.
//! - Timeouts are exact to a tick of 250 ms.

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
