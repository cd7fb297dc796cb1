//! The chassis: what every server shares, so that a server crate holds its way of waiting and nothing else.
//!
//! A `main` is three moves: parse, listen, serve.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use zen_proto::server::{self, Options, Server, Waiting};
//!
//! #[derive(clap::Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     common: Options,
//! }
//!
//! impl server::Arguments for Arguments {
//!     fn common(&self) -> &Options {
//!         &self.common
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     server::main(|arguments: Arguments| {
//!         let server = Server::listen(&arguments.common, Waiting::InCalls, Some(1))?;
//!         while let Some((stream, client)) = server.accept() {
//!             // … the way of waiting …
//! #           drop((stream, client));
//!         }
//!         Ok(())
//!     })
//! }
//! ```

mod accept;
mod calls;
mod client;
mod descriptors;
mod figures;
mod listener;
mod logging;
mod manager;
mod metrics;
mod options;
mod run;
mod sage;
mod stdout;
mod stop;
mod supervisor;
mod take_over;
mod usage;
mod valve;
mod watchdog;
mod worker;

pub use accept::{Accepted, BACK_OFF};
pub use calls::{TICK, is_tick, receive, receive_now, send, send_now};
pub use client::{Client, reset};
pub use options::{Arguments, Inetd, Options, parse_duration};
pub use run::{Server, Waiting, main};
pub use sage::Sage;
pub use socket2::Socket as Listener;
pub use stop::Stop;
pub use watchdog::{beat, beat_together, next_beat};

/// What one read takes at most, in bytes. Its answers are at most 24 times as long.
pub const CHUNK: usize = 4096;
