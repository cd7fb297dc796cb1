//! Completion instead of readiness, with io_uring: the loop requests operations, and the kernel completes them.
//!
//! A readiness loop asks which sockets would not block, and then calls recv() and send(). This loop makes no such
//! call. It requests bytes, and sleeps until they lie in a buffer. Requests go to the kernel together, in the one
//! system call in which the thread also sleeps.
//!
//! What changes with that:
//!
//! - Memory that is lent to the kernel must not move or be freed before the kernel is done. `ring.rs` owns it.
//! - A client has at most one request under way: to receive while the conversation wants to read, to send while it
//!   wants to write. So nothing is received while an answer is pending (rule 2), although the kernel could.
//! - A client is removed only when its request is done, because until then the kernel holds its socket open.
//!
//! ```console
//! $ cargo run -p zen-poll --example completion
//! $ cargo run -p zen-client -- check
//! ```

mod ring;

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};
use slab::Slab;
use zen_proto::Want;
use zen_proto::server::{self, Accepted, BACK_OFF, Connection, Options, Server, TICK, Waiting, reset};

use ring::{Done, Ring};

struct Loop {
    server: &'static Server,
    ring: &'static mut Ring,
    clients: Slab<Client>,
    /// Whether the request to accept is under way.
    is_asked: bool,
    /// When to look at the listener and at all deadlines.
    next_sweep: Instant,
}

struct Client {
    stream: TcpStream,
    connection: Connection,
    request: Option<Request>,
    /// The result with which the client ended. `Some` while it still waits for its request.
    over: Option<io::Result<()>>,
}

/// The request that is under way for a client.
#[derive(Clone, Copy, PartialEq)]
enum Request {
    Receive,
    Send,
}

fn main() -> ExitCode {
    server::main(|options: Options| {
        let refused = |error| anyhow!("the kernel refuses io_uring ({error}): use a readiness loop, such as zen-poll");
        let ring = Ring::new().map_err(refused)?;
        let server = Server::listen(&options, Waiting::ForReadiness { pollers: 1 }, None)?;
        Loop { server, ring, clients: Slab::new(), is_asked: false, next_sweep: Instant::now() }.run()
    })
}

impl Loop {
    /// Serves until no more clients are accepted and the last is closed.
    ///
    /// 1. Hand the requests to the kernel, and sleep until one is done or a sweep is due.
    /// 2. Handle everything that is done. Each client makes its next request.
    /// 3. Sweep if it is due: accept or reject the clients that the ring leaves, and end those past their deadline.
    fn run(mut self) -> Result<()> {
        let mut is_accepting = true;
        while is_accepting || !self.clients.is_empty() {
            let began = Instant::now();
            self.ring.enter(self.next_sweep.saturating_duration_since(began))?;
            let now = Instant::now();
            while let Some(done) = self.ring.next_done() {
                match done {
                    Done::Accepted(result, goes_on) => self.accepted(result, goes_on)?,
                    Done::Received(key, result) => {
                        let client = &mut self.clients[key];
                        client.request = None;
                        match result {
                            Ok(None) => client.connection.received_eof(),
                            Ok(Some(buffer)) => {
                                let mut input = self.ring.bytes(&buffer);
                                while let Some(question) = client.connection.next_question(&mut input, now) {
                                    let answer = self.server.answer(question); // a slow answer: all wait here
                                    client.connection.answer(answer);
                                }
                                self.ring.give_back(buffer);
                            }
                            Err(error) if is_transient(&error) => {}
                            Err(error) => client.end(Err(error)),
                        }
                        self.drive(key, now)?;
                    }
                    Done::Sent(key, result) => {
                        let client = &mut self.clients[key];
                        client.request = None;
                        match result {
                            Ok(n) => client.connection.sent(n, now),
                            Err(error) if is_transient(&error) => {}
                            Err(error) => client.end(Err(error)),
                        }
                        self.drive(key, now)?;
                    }
                    Done::Cancelled => {}
                }
            }
            if self.next_sweep <= now || self.server.stop.is_requested() {
                is_accepting = is_accepting && self.look_at_listener()?;
                self.sweep(began)?;
            }
        }
        Ok(())
    }

    /// Takes a client that the kernel has accepted.
    fn accepted(&mut self, result: io::Result<OwnedFd>, goes_on: bool) -> Result<()> {
        self.is_asked = goes_on;
        let Ok(stream) = result else { return Ok(()) }; // the next look at the listener finds and logs the reason
        match self.server.admit(stream.into()) {
            Accepted::Client(stream, connection) => self.add(stream, connection),
            // A client over the limit is rejected at the next look at the listener.
            _ => {
                self.next_sweep = self.next_sweep.min(Instant::now() + BACK_OFF / 20);
                Ok(())
            }
        }
    }

    /// Accepts the clients that the ring has not accepted, and asks it for more.
    ///
    /// Returns false when no more clients are accepted.
    fn look_at_listener(&mut self) -> Result<bool> {
        self.next_sweep = Instant::now() + TICK;
        if self.server.stop.is_requested() && self.is_asked {
            self.ring.cancel_accept()?; // the backlog is emptied here, until it is known to be empty
            self.is_asked = false;
        }
        loop {
            match self.server.try_accept() {
                Accepted::Client(stream, connection) => match stream.set_nonblocking(false) {
                    Ok(()) => self.add(stream, connection)?, // or its requests would end at once, with nothing done
                    Err(error) => connection.close(Err(error)),
                },
                Accepted::Next => {}
                Accepted::WouldBlock => break,
                Accepted::Later(pause) => {
                    self.next_sweep = Instant::now() + pause;
                    return Ok(true);
                }
                Accepted::Closed => return Ok(false),
            }
        }
        if let Some(listener) = self.server.listener().filter(|_| !self.is_asked && !self.server.stop.is_requested()) {
            self.ring.accept(&*listener)?;
            self.is_asked = true;
        }
        Ok(true)
    }

    fn add(&mut self, stream: TcpStream, connection: Connection) -> Result<()> {
        let key = self.clients.insert(Client { stream, connection, request: None, over: None });
        self.drive(key, Instant::now())
    }

    /// Ends the clients whose deadline had passed when the last wait began, in which nothing was done for them.
    fn sweep(&mut self, began: Instant) -> Result<()> {
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let client = &mut self.clients[key];
            match client.request {
                Some(Request::Receive) => client.connection.read_blocked(began),
                Some(Request::Send) => client.connection.write_blocked(began),
                None => {}
            }
            self.drive(key, Instant::now())?;
        }
        Ok(())
    }

    /// Makes the request that the conversation wants, or ends it.
    fn drive(&mut self, key: usize, now: Instant) -> Result<()> {
        let client = &mut self.clients[key];
        while client.over.is_none() {
            match client.connection.next(now) {
                Want::Read | Want::Write if client.request.is_some() => return Ok(()),
                Want::Read => {
                    client.request = Some(Request::Receive);
                    return Ok(self.ring.receive(key, &client.stream)?);
                }
                Want::Write => {
                    client.request = Some(Request::Send);
                    return Ok(self.ring.send(key, &client.stream, client.connection.outgoing())?);
                }
                Want::EndSending => match client.stream.shutdown(Shutdown::Write) {
                    Ok(()) => client.connection.ended_sending(now),
                    Err(error) => client.end(Err(error)),
                },
                Want::Close => client.end(Ok(())),
                Want::Reset => {
                    reset(&client.stream);
                    client.end(Ok(()));
                }
            }
        }
        // A request that is under way ends at once, by the shutdown in `end`.
        if client.request.is_none() {
            let Client { stream, connection, over, .. } = self.clients.remove(key);
            connection.close(over.unwrap_or(Ok(())));
            drop(stream);
        }
        Ok(())
    }
}

impl Client {
    fn end(&mut self, result: io::Result<()>) {
        self.over.get_or_insert(result);
        if self.request.is_some() {
            let _ = self.stream.shutdown(Shutdown::Both); // it fails only if both have ended already
        }
    }
}

/// Returns whether a request must only be made again, because no buffer was free or it was interrupted.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) || error.raw_os_error() == Some(ENOBUFS)
}

const ENOBUFS: i32 = 105;
