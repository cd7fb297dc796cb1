//! An edge-triggered loop: the kernel reports only once that a client *became* ready, and the loop must remember it.
//!
//! In level mode the kernel reports a client in every wait while it is ready, so a loop may read a little and wait
//! again. In edge mode the kernel does not report a second time that bytes are left. So the loop reads until the call
//! would block. For each answer this costs one more recv(), which finds no bytes. Edge mode saves the epoll_ctl() calls
//! for a client that stops reading its answers.
//!
//! **The limit for each turn.** If a client sends as fast as the loop reads, recv() never blocks, and the loop would
//! serve this client only. So after [`CALLS_PER_TURN`] calls the other clients have their turn. The first client is
//! still ready, but the kernel need not report it again. So the loop remembers its key in `unfinished`, and does not
//! sleep in the next wait.
//!
//! `half_drained.rs` is such a loop with the classic fault.
//!
//! ```console
//! $ cargo run -p zen-poll --example edge
//! $ cargo run -p zen-client -- check
//! ```

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::mem::take;
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};
use zen_proto::Want;
use zen_proto::server::{
    self, Accepted, Connection, Options, READ_SIZE, Server, TICK, Waiting, reset, try_read, try_write,
};

#[path = "../src/registration.rs"]
#[expect(dead_code, reason = "`modify` sets level mode, and this example needs edge mode")]
mod registration;
use registration::Registration;

/// A client, and the readiness that the kernel has reported and will not report again.
struct Client {
    stream: Registration<TcpStream>,
    connection: Connection,
    is_readable: bool,
    is_writable: bool,
}

fn main() -> ExitCode {
    server::main(|options: Options| serve(Server::listen(&options, Waiting::ForReadiness { pollers: 1 }, None)?))
}

/// Serves until the server accepts no more clients and the last connection is closed.
///
/// 1. Sleep until a client becomes ready. Do not sleep if a client's last turn ended at the limit.
/// 2. Remember which clients became ready.
/// 3. Accept until accept() would block.
/// 4. Give a turn to the clients that became ready or are new, and to those whose last turn ended at the limit.
fn serve(server: &'static Server) -> anyhow::Result<()> {
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut listener = None; // the listener, while the poller has it
    let (mut events, mut buffer, mut last_key) = (Events::new(), [0; READ_SIZE], 0);
    let (mut is_accepting, mut next_sweep, mut timeout) = (true, Instant::now() + TICK, Duration::ZERO);
    let mut unfinished = BTreeSet::new(); // a set, so that an event adds no second turn
    while is_accepting || !clients.is_empty() {
        events.clear();
        poller.wait(&mut events, Some(if unfinished.is_empty() { timeout } else { Duration::ZERO }))?;
        timeout = TICK;
        let mut turns = take(&mut unfinished);
        for event in events.iter() {
            if let Some(client) = clients.get_mut(&event.key) {
                client.is_readable |= event.readable;
                client.is_writable |= event.writable;
                turns.insert(event.key);
            }
        }
        if next_sweep <= Instant::now() || server.stop.is_requested() {
            next_sweep = Instant::now() + TICK;
            turns = clients.keys().copied().collect(); // every client gets a turn, which notices a passed deadline
        }
        while is_accepting {
            match server.try_accept() {
                Accepted::Client(stream, connection) => {
                    last_key += 1;
                    match register(poller, stream, last_key) {
                        Ok(stream) => {
                            let client = Client { stream, connection, is_readable: true, is_writable: true };
                            clients.insert(last_key, client);
                            turns.insert(last_key);
                        }
                        Err(error) => connection.close(Err(error)),
                    }
                }
                Accepted::Next => {}
                Accepted::WouldBlock => {
                    // If this fails, the loop still looks for clients once a tick.
                    let watch = |it| Registration::new(poller, it, Event::readable(0)).ok();
                    listener = listener.or_else(|| server.listener().and_then(watch));
                    break;
                }
                Accepted::Later(pause) => {
                    (listener, timeout) = (None, pause); // if it were watched, it would end every wait immediately
                    break;
                }
                Accepted::Closed => (is_accepting, listener) = (false, None),
            }
        }
        for key in turns {
            let Some(client) = clients.get_mut(&key) else { continue };
            let result = match client.take_turn(server, &mut buffer) {
                Ok(Turn::Blocked) => continue,
                Ok(Turn::Unfinished) => {
                    unfinished.insert(key);
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
    Ok(())
}

/// Registers a client for reading and writing. In edge mode this need not be changed later.
fn register(poller: &'static Poller, stream: TcpStream, key: usize) -> io::Result<Registration<TcpStream>> {
    let stream = Registration::new(poller, stream, Event::none(key))?;
    poller.modify_with_mode(stream.source(), Event::all(key), PollMode::Edge)?;
    Ok(stream)
}

/// How a turn ended.
enum Turn {
    /// A call would block. The kernel will report when the client is ready again.
    Blocked,
    /// The limit was reached. The client may still be ready, and the kernel need not report it again.
    Unfinished,
    /// The conversation is over.
    Over,
}

impl Client {
    /// Does what the conversation wants until a call would block, or the limit is reached.
    fn take_turn(&mut self, server: &Server, buffer: &mut [u8]) -> io::Result<Turn> {
        let Self { stream, connection, is_readable, is_writable } = self;
        let stream = stream.source();
        for _ in 0..CALLS_PER_TURN {
            let now = Instant::now();
            let wants = connection.next(now);
            let is_expired = connection.is_expired(now); // if so, the conversation ends when a call would block
            match wants {
                Want::Read if *is_readable || is_expired => match try_read(stream, buffer) {
                    Ok(0) => connection.received_eof(),
                    Ok(n) => {
                        *is_readable = true; // there may be more, even if the read was made because of the deadline
                        let mut input = &buffer[..n];
                        while let Some(question) = connection.next_question(&mut input, now) {
                            let answer = server.answer(question); // all clients wait for a slow answer
                            connection.answer(answer);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        *is_readable = false; // from now on the kernel reports new bytes
                        connection.read_blocked(now);
                    }
                    Err(error) => return Err(error),
                },
                Want::Write if *is_writable || is_expired => match try_write(stream, connection.outgoing()) {
                    Ok(n) => {
                        *is_writable = true; // there was room, so the kernel will not report that there is room now
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

/// The largest number of calls in one client's turn: five recv() and five send() of a client that asks and reads.
const CALLS_PER_TURN: usize = 10;
