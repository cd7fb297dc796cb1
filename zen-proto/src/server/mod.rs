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
mod answerer;
mod connection;
mod descriptors;
mod figures;
mod listener;
mod log_output;
mod logging;
mod manager;
mod metrics;
mod options;
mod permits;
mod run;
mod socket_io;
mod stdout;
mod stop;
mod supervisor;
mod take_over;
mod usage;
mod valve;
mod watchdog;
mod worker;

pub use accept::{Accepted, BACK_OFF};
pub use answerer::catch;
pub use connection::{Connection, reset};
pub use options::{Arguments, Inetd, Options, parse_duration};
pub use run::{Server, Waiting, main};
pub use socket_io::{READ_SIZE, TICK, is_tick, read, try_read, try_write, write};
pub use socket2::Socket as Listener;
pub use stop::Stop;
pub use watchdog::{beat, beat_together, next_beat};
