//! Completion instead of readiness, with io_uring: the loop requests operations, and the kernel completes them.
//!
//! A readiness loop asks which sockets would not block, and then calls recv() and send(). This loop calls neither. It
//! requests the next bytes of a client, and sleeps until they are in a buffer. One system call hands all new requests
//! to the kernel, and the thread sleeps in the same call.
//!
//! What is different from a readiness loop:
//!
//! - While the kernel uses memory of a request, this memory must not be moved or freed. `ring.rs` owns it.
//! - A client has at most one request at a time: to receive while the conversation wants to read, to send while it
//!   wants to write. So nothing is received while an answer is pending (rule 2 of the protocol).
//! - A client is removed only when its request is done. Until then the kernel keeps its socket open, and the completion
//!   still carries its key, which must not be another client's.
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

use ring::{Completion, Ring};

struct Loop {
    server: &'static Server,
    ring: &'static mut Ring,
    clients: Slab<Client>,
    /// Whether the kernel has a request to accept clients.
    is_accept_pending: bool,
    /// When to check the listener and all deadlines.
    next_sweep: Instant,
}

struct Client {
    stream: TcpStream,
    connection: Connection,
    request: Option<Request>,
    /// The result with which the conversation ended. `Some` while the client's last request is not done yet.
    over: Option<io::Result<()>>,
}

/// The request that the kernel has for a client.
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
        Loop { server, ring, clients: Slab::new(), is_accept_pending: false, next_sweep: Instant::now() }.run()
    })
}

impl Loop {
    /// Serves until the server accepts no more clients and the last connection is closed.
    ///
    /// 1. Hand the new requests to the kernel, and sleep until a request is done or a sweep is due.
    /// 2. Handle every request that is done, and make the client's next request.
    /// 3. Sweep if it is due: accept or reject the clients that the kernel has not accepted, and end those whose
    ///    deadline has passed.
    fn run(mut self) -> Result<()> {
        let mut is_accepting = true;
        while is_accepting || !self.clients.is_empty() {
            let began = Instant::now();
            self.ring.enter(self.next_sweep.saturating_duration_since(began))?;
            let now = Instant::now();
            while let Some(done) = self.ring.next_completion() {
                match done {
                    Completion::Accepted(result, is_pending) => self.accepted(result, is_pending)?,
                    Completion::Received(key, result) => {
                        let client = &mut self.clients[key];
                        client.request = None;
                        match result {
                            Ok(None) => client.connection.received_eof(),
                            Ok(Some(buffer)) => {
                                let mut input = self.ring.bytes(&buffer);
                                while let Some(question) = client.connection.next_question(&mut input, now) {
                                    let answer = self.server.answer(question); // all clients wait for a slow answer
                                    client.connection.answer(answer);
                                }
                                self.ring.return_buffer(buffer);
                            }
                            Err(error) if is_transient(&error) => {}
                            Err(error) => client.end(Err(error)),
                        }
                        self.drive(key, now)?;
                    }
                    Completion::Sent(key, result) => {
                        let client = &mut self.clients[key];
                        client.request = None;
                        match result {
                            Ok(n) => client.connection.sent(n, now),
                            Err(error) if is_transient(&error) => {}
                            Err(error) => client.end(Err(error)),
                        }
                        self.drive(key, now)?;
                    }
                    Completion::Cancelled => {}
                }
            }
            if self.next_sweep <= now || self.server.stop.is_requested() {
                self.next_sweep = now + TICK;
                is_accepting = is_accepting && self.check_listener()?;
                self.sweep(began)?;
            }
        }
        Ok(())
    }

    /// Adds a client that the kernel has accepted.
    fn accepted(&mut self, result: io::Result<OwnedFd>, is_pending: bool) -> Result<()> {
        self.is_accept_pending = is_pending;
        let Ok(stream) = result else { return Ok(()) }; // `check_listener` tries again, and logs the reason
        match self.server.admit(stream.into()) {
            Accepted::Client(stream, connection) => self.add(stream, connection),
            // A client over the limit is rejected by `check_listener`, in the next sweep. The sweep is in 5 ms, the
            // time after which `try_accept` decides about such a client.
            _ => {
                self.next_sweep = self.next_sweep.min(Instant::now() + BACK_OFF / 20);
                Ok(())
            }
        }
    }

    /// Accepts the clients that the kernel has not accepted, and makes the accept request again if it has ended.
    ///
    /// Returns false when the server will accept no more clients.
    fn check_listener(&mut self) -> Result<bool> {
        if self.server.stop.is_requested() && self.is_accept_pending {
            self.ring.cancel_accept()?; // while draining, this function accepts all clients in the backlog
            self.is_accept_pending = false;
        }
        loop {
            match self.server.try_accept() {
                Accepted::Client(stream, connection) => self.add(stream, connection)?,
                Accepted::Next => {}
                Accepted::WouldBlock => break,
                Accepted::Later(pause) => {
                    self.next_sweep = Instant::now() + pause;
                    return Ok(true);
                }
                Accepted::Closed => return Ok(false),
            }
        }
        let must_request = !self.is_accept_pending && !self.server.stop.is_requested();
        if let Some(listener) = self.server.listener().filter(|_| must_request) {
            self.ring.accept(&*listener)?;
            self.is_accept_pending = true;
        }
        Ok(true)
    }

    fn add(&mut self, stream: TcpStream, connection: Connection) -> Result<()> {
        // If the socket is non-blocking, io_uring completes each request immediately with EAGAIN.
        if let Err(error) = stream.set_nonblocking(false) {
            connection.close(Err(error));
            return Ok(());
        }
        let key = self.clients.insert(Client { stream, connection, request: None, over: None });
        self.drive(key, Instant::now())
    }

    /// Ends each client whose deadline had already passed when the last wait began, and whose request was not completed
    /// in that wait.
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
        // If the kernel still has a request, the shutdown in `end` completes it immediately.
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
            let _ = self.stream.shutdown(Shutdown::Both); // this fails only if both directions have already ended
        }
    }
}

/// Returns whether the same request can be made again: no buffer was free, or it was interrupted.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) || error.raw_os_error() == Some(ENOBUFS)
}

const ENOBUFS: i32 = 105;
