//! Each client is served by a task. A task's code reads like that of a blocking server, but one thread runs all tasks.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-async
//! $ cargo run -p zen-async -- --runtime async-std
//! $ cargo run -p zen-async -- --delay 700ms --await
//! ```
//!
//! `--help` lists the flags. `--threads N` runs the tasks on N threads, and `--delay 700ms` makes each answer slow.
//! Without further flags the task's thread sleeps for that time. With `--await` the task awaits a timer. With
//! `--offload` a thread of the blocking pool sleeps.
//!
//! # How it works
//!
//! 1. `main` parses the command line, listens, and serves.
//! 2. One task accepts and spawns a task for each client. A client over `--max-connections` is rejected.
//! 3. A client's task does what the conversation wants. Where a thread would sleep in `recv()` or `send()`, the task is
//!    suspended at an `.await`. The executor then runs another task on the same thread.
//! 4. The reactor is the part of the runtime that waits for clients (with epoll, on Linux), and wakes a task when its
//!    client is ready. The `sweeper` wakes a task whose deadline has passed; it checks once a tick, every 250 ms.
//! 5. `answer` computes an answer in the task, in the task after an awaited delay, or in the blocking pool.
//! 6. `on_smol` and `on_async_std` have the same structure, one file for each runtime; async-std needs two more
//!    functions.
//!
//! # Limits
//!
//! - All clients are served at the same time. But while a task computes an answer, its thread runs no other task.
//! - A client over `--max-connections` is rejected.
//! - When no descriptor is left, `accept()` is tried again after 100 ms; existing clients continue.
//! - On SIGTERM the server accepts the clients in the backlog, answers every whole question that it has received, and
//!   exits.
//! - A timeout may fire up to one tick of 250 ms late.
//! - async-std is discontinued (RUSTSEC-2025-0052).

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
