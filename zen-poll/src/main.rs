//! One thread serves everyone: it waits until some client is ready, and never for a particular one.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-poll
//! $ cargo run -p zen-poll -- --style chat --loops 2
//! ```
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. `event_loop` sleeps in `Poller::wait` (epoll, on Linux) until descriptors are ready, and gives each ready
//!    client one recv() and one send(), neither of which can sleep.
//! 3. `callback` is a `Protocol` as in asyncio: the loop calls it when something has happened. `chat` is another,
//!    as in asynchat: it is told of pieces and ends of questions.
//! 4. With `--loops N` the first loop accepts, and hands each new client to the loop that has the fewest.
//!
//! # Predict
//!
//! The README asks four questions and names the command that settles each.
//!
//! # Limits
//!
//! - A fifth client is served like the four. But while one answer is thought about, a loop serves nobody else.
//! - One client over `--max-connections` is turned away.
//! - When no descriptor is left, the listener is left alone for 100 ms; who is here is served on.
//! - On SIGTERM those who wait are taken in, what all have asked is answered, and the server leaves.
//! - Time-outs are flags; their defaults are in `zen-proto/src/server/options.rs`. They are exact to a tick of 250 ms.

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
