//! One thread serves one client at a time; everyone else waits in the kernel's backlog.
//!
//! # Run
//!
//! ```console
//! $ cargo run -p zen-single
//! $ cargo run -p zen-client
//! ```
//!
//! # How it works
//!
//! 1. `main` parses, listens, serves.
//! 2. `accept()` sleeps until a client comes.
//! 3. `recv()` and `send()` sleep until that client speaks or reads. Meanwhile nobody else is served:
//!    the kernel completes their handshakes and keeps them in the backlog.
//! 4. No call sleeps longer than a tick of 250 ms, so that deadlines and signals are noticed.
//!
//! # Predict
//!
//! The README asks three questions and names the command that settles each.
//!
//! # Limits
//!
//! - One client at a time, and a silent one keeps all others waiting until its time is over. So does a slow answer.
//! - A fifth client is connected, by the kernel, and hears nothing until the four before it have gone;
//!   `--max-connections` does not change that.
//! - When no descriptor is left, `accept()` is tried again after 100 ms.
//! - On SIGTERM those who wait are taken in, what all have asked is answered, and the server leaves.
//! - Time-outs are flags; their defaults are in `zen-proto/src/server/options.rs`.

#![forbid(unsafe_code)]

mod options;
mod serve;

use std::process::ExitCode;

use zen_proto::server::{self, Server, Waiting};

use options::Arguments;

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        let server = Server::listen(&arguments.common, Waiting::InCalls, Some(1))?;
        serve::serve(server);
        Ok(())
    })
}
