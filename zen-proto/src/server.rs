//! The code that all servers share, so that a server crate contains only its way of waiting.
//!
//! `main` parses the options, opens the listener, and serves: it accepts each client and does what the client's
//! [`Connection`] returns as the next step. This is a whole server with one client at a time, and with an answer
//! function of its own:
//!
//! ```no_run
//! use std::io;
//! use std::net::{Shutdown, TcpStream};
//! use std::process::ExitCode;
//! use std::time::Instant;
//!
//! use zen_proto::server::{self, Connection, Options, READ_SIZE, Server, Waiting, is_tick, read, reset, write};
//! use zen_proto::{Answer, UNKNOWN, Want};
//!
//! fn main() -> ExitCode {
//!     server::main(|options: Options| {
//!         // Blocking calls, and one client at a time.
//!         let server = Server::listen(&options, Waiting::InCalls, Some(1))?;
//!         while let Some((stream, mut connection)) = server.accept() {
//!             let result = converse(&stream, &mut connection);
//!             connection.close(result); // logs and counts why
//!         }
//!         Ok(())
//!     })
//! }
//!
//! fn converse(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
//!     let mut buffer = [0; READ_SIZE];
//!     loop {
//!         let now = Instant::now();
//!         match connection.next(now) {
//!             Want::Read => match read(stream, &mut buffer, connection.is_expired(now)) {
//!                 Ok(0) => connection.received_eof(),
//!                 Ok(n) => {
//!                     let (mut input, now) = (&buffer[..n], Instant::now());
//!                     while let Some(question) = connection.next_question(&mut input, now) {
//!                         let answer = server::catch(|| length(question)); // a panic costs this client only
//!                         connection.answer(answer);
//!                     }
//!                 }
//!                 // A tick: nothing has arrived. This checks the deadline; `next` checks the stop flag.
//!                 Err(error) if is_tick(&error) => connection.read_blocked(now),
//!                 Err(error) => return Err(error),
//!             },
//!             Want::Write => match write(stream, connection.outgoing(), connection.is_expired(now)) {
//!                 Ok(n) => connection.sent(n, Instant::now()),
//!                 Err(error) if is_tick(&error) => connection.write_blocked(now),
//!                 Err(error) => return Err(error),
//!             },
//!             Want::EndSending => {
//!                 stream.shutdown(Shutdown::Write)?;
//!                 connection.ended_sending(now);
//!             }
//!             Want::Close => return Ok(()),
//!             Want::Reset => {
//!                 reset(stream); // closing sends RST now
//!                 return Ok(());
//!             }
//!         }
//!     }
//! }
//!
//! /// Computes an answer. A server with a database would query it here.
//! fn length(question: &[u8]) -> Answer {
//!     Answer::new(format!("{} bytes.", question.len())).unwrap_or_else(|_| UNKNOWN.clone())
//! }
//! ```
//!
//! The example `dictionary` is such a server. It takes answers from a map, and logs the time of each. `--delay` and
//! `--burn` apply only to the built-in answers of [`Server::answer`]. A server with flags of its own implements
//! [`Arguments`].

mod accept;
mod addresses;
mod answerer;
mod catch;
mod children;
mod connection;
mod constants;
mod counters;
mod descriptors;
mod excess;
mod inherited_fds;
mod line_buffer;
mod listener;
mod log_output;
mod log_rate_limit;
mod logging;
mod metrics;
mod options;
mod permits;
mod proc_stats;
mod reports;
mod service_manager;
mod shared;
mod signal_thread;
mod signals;
mod simulated_work;
mod socket_io;
mod startup;
mod stdout;
mod stop;
mod supervisor;
mod wait_ready;
mod watchdog;
mod worker;

pub use accept::Accepted;
pub use catch::catch;
pub use children::{Children, Reaper};
pub use connection::Connection;
pub use constants::{BACK_OFF, READ_SIZE, TICK};
pub use listener::Waiting;
pub use options::{Arguments, Inetd, Options, parse_duration};
pub use shared::Server;
pub use socket_io::{is_tick, read, reset, try_read, try_write, write};
pub use startup::main;
pub use stop::Stop;
pub use watchdog::{heartbeat, next_heartbeat, shared_heartbeat};
