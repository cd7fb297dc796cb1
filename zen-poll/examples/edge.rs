//! An edge-triggered loop: the kernel reports that a client *became* ready, once, and the loop must remember it.
//!
//! Level mode reports readiness as long as it lasts, so a loop may read a little and wait again. In edge mode the
//! kernel does not report again what is left. So the loop reads until the call would block. That costs each answer one
//! more recv(), which finds nothing, and saves the epoll_ctl() when a client stops reading its answers.
//!
//! **The bound.** A client that sends as fast as the loop reads never blocks, and would occupy the loop. After
//! [`CALLS_PER_TURN`] calls the other clients have their turn. The kernel has nothing more to report about that
//! client. So the loop puts its key on a list of its own, and the next wait does not sleep.
//!
//! `half_drained.rs` is this loop with the classic fault.
//!
//! ```console
//! $ cargo run -p zen-poll --example edge
//! $ cargo run -p zen-client -- check
//! ```

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::mem::take;
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};
use zen_proto::Want;
use zen_proto::server::{
    self, Accepted, Connection, Options, READ_SIZE, Server, TICK, Waiting, reset, try_read, try_write,
};

#[path = "../src/registration.rs"]
#[expect(dead_code, reason = "in edge mode no interest is ever changed")]
mod registration;
use registration::Registration;

/// A client, with the readiness that the kernel has reported and will not report again.
struct Client {
    stream: Registration<TcpStream>,
    connection: Connection,
    is_readable: bool,
    is_writable: bool,
}

fn main() -> ExitCode {
    server::main(|options: Options| serve(Server::listen(&options, Waiting::ForReadiness { pollers: 1 }, None)?))
}

/// Serves until no more clients are accepted and the last is closed.
///
/// 1. Sleep until a client becomes ready. Do not sleep if the turn of a client was stopped at the bound.
/// 2. Accept until accept() would block.
/// 3. Remember what became ready. Give a turn to these clients, and to those whose last turn was stopped.
fn serve(server: &'static Server) -> anyhow::Result<()> {
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let mut listener = server.listener().map(|it| Registration::new(poller, it, Event::readable(0))).transpose()?;
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let (mut events, mut buffer, mut last_key) = (Events::new(), [0; READ_SIZE], 0);
    let (mut is_accepting, mut next_sweep, mut unfinished) = (true, Instant::now() + TICK, Vec::new());
    while is_accepting || !clients.is_empty() {
        events.clear();
        poller.wait(&mut events, Some(if unfinished.is_empty() { TICK } else { Duration::ZERO }))?;
        let mut turns = take(&mut unfinished);
        for event in events.iter() {
            if let Some(client) = clients.get_mut(&event.key) {
                client.is_readable |= event.readable;
                client.is_writable |= event.writable;
                turns.push(event.key);
            }
        }
        if next_sweep <= Instant::now() || server.stop.is_requested() {
            next_sweep = Instant::now() + TICK;
            turns = clients.keys().copied().collect(); // has a deadline passed?
        }
        while is_accepting {
            match server.try_accept() {
                Accepted::Client(stream, connection) => {
                    last_key += 1;
                    match register(poller, stream, last_key) {
                        Ok(stream) => {
                            let client = Client { stream, connection, is_readable: true, is_writable: true };
                            clients.insert(last_key, client);
                            turns.push(last_key);
                        }
                        Err(error) => connection.close(Err(error)),
                    }
                }
                Accepted::Next => {}
                Accepted::WouldBlock => break,
                Accepted::Later(pause) => thread::sleep(pause), // all clients wait here
                Accepted::Closed => (is_accepting, listener) = (false, None),
            }
        }
        for key in turns {
            let Some(client) = clients.get_mut(&key) else { continue };
            let result = match client.take_turn(server, &mut buffer) {
                Ok(Turn::Blocked) => continue,
                Ok(Turn::Unfinished) => {
                    unfinished.push(key);
                    continue;
                }
                Ok(Turn::Over) => Ok(()),
                Err(error) => Err(error),
            };
            let Some(Client { stream, connection, .. }) = clients.remove(&key) else { continue };
            connection.close(result);
            drop(stream);
        }
    }
    drop(listener);
    Ok(())
}

/// Registers a client for its whole life, because in edge mode no interest is ever changed.
fn register(poller: &'static Poller, stream: TcpStream, key: usize) -> io::Result<Registration<TcpStream>> {
    let stream = Registration::new(poller, stream, Event::none(key))?;
    poller.modify_with_mode(stream.source(), Event::all(key), PollMode::Edge)?;
    Ok(stream)
}

/// How a turn ended.
enum Turn {
    /// A call would block. The kernel reports when it would not.
    Blocked,
    /// The bound was reached. The kernel will report nothing.
    Unfinished,
    /// The conversation is over.
    Over,
}

impl Client {
    /// Does what the conversation wants until a call would block, or the bound is reached.
    fn take_turn(&mut self, server: &Server, buffer: &mut [u8]) -> io::Result<Turn> {
        let Self { stream, connection, is_readable, is_writable } = self;
        let stream = stream.source();
        for _ in 0..CALLS_PER_TURN {
            let now = Instant::now();
            let wants = connection.next(now);
            let is_expired = connection.is_expired(now); // then a call that would block ends the conversation
            match wants {
                Want::Read if *is_readable || is_expired => match try_read(stream, buffer) {
                    Ok(0) => connection.received_eof(),
                    Ok(n) => {
                        *is_readable = true; // also when only an expired deadline led to the call
                        let mut input = &buffer[..n];
                        while let Some(question) = connection.next_question(&mut input, now) {
                            let answer = server.answer(question); // a slow answer is worked out here; all wait
                            connection.answer(answer);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        *is_readable = false; // only now will the kernel report more
                        connection.read_blocked(now);
                    }
                    Err(error) => return Err(error),
                },
                Want::Write if *is_writable || is_expired => match try_write(stream, connection.outgoing()) {
                    Ok(n) => {
                        *is_writable = true; // the kernel reports no edge for room that was never lacking
                        connection.sent(n, now);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        *is_writable = false;
                        connection.write_blocked(now);
                    }
                    Err(error) => return Err(error),
                },
                Want::Read | Want::Write => return Ok(Turn::Blocked),
                Want::EndSending => {
                    stream.shutdown(Shutdown::Write)?;
                    connection.ended_sending(now);
                }
                Want::Close => return Ok(Turn::Over),
                Want::Reset => {
                    reset(stream);
                    return Ok(Turn::Over);
                }
            }
        }
        Ok(Turn::Unfinished)
    }
}

/// The most calls in a row for one client, so that others have their turn: five questions and their answers.
const CALLS_PER_TURN: usize = 10;
