//! A coroutine serves each client: the code of a blocking server, on one thread that never blocks.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-async
//! $ cargo run -p zen-async -- --runtime async-std
//! ```
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. The coroutine that accepts starts one for each client; one over `--max-connections` is turned away.
//! 3. A client's coroutine reads like a thread: it does what the conversation wants. Where a thread would
//!    sleep in recv() or send(), it is suspended at an `.await`, and its thread runs another one.
//! 4. The runtime's reactor (epoll, on Linux) wakes it when its client is ready; the `sweeper` does when its
//!    time is up, once a tick of 250 ms.
//! 5. `on_smol` and `on_async_std` are the same but for the runtime: `diff` them.
//!
//! # Predict
//!
//! The README asks four questions and names the command that settles each.
//!
//! # Limits
//!
//! - A fifth client is served like the four. But a slow answer keeps its thread from all other coroutines, unless
//!   `--offload` takes it elsewhere.
//! - One client over `--max-connections` is turned away.
//! - When no descriptor is left, `accept()` is tried again after 100 ms; who is here is served on.
//! - On SIGTERM those who wait are taken in, what all have asked is answered, and the server leaves.
//! - Time-outs are flags; their defaults are in `zen-proto/src/server/options.rs`. They are exact to a tick of 250 ms.
//! - async-std is not developed any more.

#![forbid(unsafe_code)]

mod on_async_std;
mod on_smol;
mod options;
mod sweeper;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use options::{Arguments, Runtime};

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::ForReadiness { pollers: 1 }, None)?;
        match arguments.runtime {
            Runtime::Smol => on_smol::serve(server, arguments.threads.get(), arguments.answering()),
            Runtime::AsyncStd => on_async_std::serve(server, arguments.threads.get(), arguments.answering()),
        }
    })
}
