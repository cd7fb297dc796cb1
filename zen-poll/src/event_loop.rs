//! The readiness loop: sleep until a descriptor is ready, then do what can be done without sleeping.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use polling::{Event, Events, Poller};
use slab::Slab;
use zen_proto::Want;
use zen_proto::server::{Connection, READ_SIZE, Server, TICK, heartbeat, next_heartbeat, reset, try_read, try_write};

use crate::acceptor::{Acceptor, LISTENER, LoopHandle, NewClient};
use crate::registration::Registration;

/// The methods that the loop calls when something has happened to a client.
pub(crate) trait Protocol: Send + Sized {
    /// Creates the protocol of a client that was accepted.
    fn connection_made(connection: Connection) -> Self;
    /// Handles `data` that the client sent.
    fn data_received(&mut self, data: &[u8], now: Instant);
    /// Ends the protocol, because the conversation is over or the socket failed.
    fn connection_lost(self, result: io::Result<()>);
    /// Returns the connection, which knows what to do next for this client. In asyncio the transport knows this.
    fn connection(&mut self) -> &mut Connection;
}

/// Serves from `loops` threads, of which the calling thread is the first. Returns when the server accepts no more
/// clients and the last connection is closed.
pub(crate) fn serve<P: Protocol>(server: &'static Server, loops: usize) -> Result<()> {
    let mut handles = Vec::new();
    let mut all = Vec::new();
    for _ in 0..loops {
        let poller: &'static Poller = Box::leak(Box::new(Poller::new().context("cannot make a poller")?));
        server.stop.on_request(|| _ = poller.notify());
        let (sender, new_clients) = channel();
        let load = Arc::new(AtomicUsize::new(0));
        handles.push(LoopHandle { new_clients: sender, poller, load: Arc::clone(&load) });
        all.push(EventLoop::<P>::new(server, poller, new_clients, load));
    }
    let mut first = all.remove(0);
    first.acceptor = Some(Acceptor::new(server, handles));
    thread::scope(|scope| {
        for (number, other) in (2..).zip(all) {
            thread::Builder::new()
                .name(format!("loop-{number}"))
                .spawn_scoped(scope, || other.run())
                .inspect_err(|_| server.stop.request())
                .context("cannot start all loops: lower --loops")?;
        }
        first.run();
        Ok(())
    })
}

struct EventLoop<P> {
    server: &'static Server,
    poller: &'static Poller,
    /// Only the first loop has one, for as long as clients are accepted.
    acceptor: Option<Acceptor>,
    /// The clients that the acceptor hands to this loop. Declared before `clients`, because fields are dropped in
    /// order. If this loop panics, the channel is closed first, so the acceptor hands no more clients to this loop.
    new_clients: Receiver<NewClient>,
    load: Arc<AtomicUsize>,
    clients: Slab<Client<P>>,
    /// The number of clients that were ever registered, modulo 2^32.
    generation: u32,
    /// When to check all deadlines next. `None` if this loop has had no client since the last check.
    next_sweep: Option<Instant>,
    is_draining: bool,
}

/// A client of this loop.
struct Client<P> {
    stream: Registration<TcpStream>,
    protocol: P,
    /// The client's generation: the upper 32 bits of its key. A slot is soon used again. An event of its previous
    /// client must not be taken for one of this client. In this loop none is pending then, because `run` handles all
    /// events before it registers new clients. The generation makes this independent of that order.
    generation: u32,
    /// True if the loop waits until it can write to this client; false if it waits until it can read.
    wants_write: bool,
}

impl<P: Protocol> EventLoop<P> {
    fn new(
        server: &'static Server,
        poller: &'static Poller,
        new_clients: Receiver<NewClient>,
        load: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            server,
            poller,
            acceptor: None,
            new_clients,
            load,
            clients: Slab::new(),
            generation: 0,
            next_sweep: None,
            is_draining: false,
        }
    }

    /// Runs the loop until the acceptor is dropped and the loop's last client is closed.
    ///
    /// 1. Sleep until a descriptor is ready, another thread notifies this loop, or a sweep is due.
    /// 2. Handle each ready client.
    /// 3. Accept if the listener is ready or a retry is due (the first loop only). Register the clients that were
    ///    handed to this loop.
    /// 4. Sweep if it is due: handle the clients whose deadline has passed.
    /// 5. Return if the acceptor is dropped and this loop has no client.
    fn run(mut self) {
        let mut events = Events::new();
        let mut buffer = [0; READ_SIZE];
        loop {
            events.clear();
            // The thread sleeps here. (With --delay it also sleeps in `server.answer`, and all its clients wait.)
            if let Err(error) = self.poller.wait(&mut events, self.poll_timeout()) {
                self.server.stop.fail(anyhow!("cannot wait for events ({error}): restart the server"));
                return;
            }
            let mut now = Instant::now();
            heartbeat(now); // tells the service manager's watchdog that this loop is not stuck
            for event in events.iter().filter(|event| event.key != LISTENER) {
                self.handle_ready(event.key, &mut buffer, &mut now);
            }
            let is_listener_ready = events.iter().any(|event| event.key == LISTENER);
            self.accept_pending(is_listener_ready);
            let may_return = self.register_new();
            self.sweep(&mut buffer);
            if may_return && self.clients.is_empty() {
                return;
            }
        }
    }

    /// Returns how long to sleep at most. `None` means until something happens.
    fn poll_timeout(&self) -> Option<Duration> {
        let accept = self.acceptor.as_ref().and_then(Acceptor::retry_at);
        let next = self.next_sweep.into_iter().chain(accept).chain(next_heartbeat()).min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn handle_ready(&mut self, key: usize, buffer: &mut [u8], now: &mut Instant) {
        heartbeat(*now);
        let slot = key & SLOT;
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.key(slot) == key) else { return };
        let result = match client.handle_ready(key, buffer, now) {
            Ok(true) => return,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        let client = self.clients.remove(slot);
        self.load.fetch_sub(1, Ordering::Relaxed);
        client.protocol.connection_lost(result);
    }

    fn accept_pending(&mut self, is_listener_ready: bool) {
        let is_time = |acceptor: &Acceptor| acceptor.retry_at().is_some_and(|at| at <= Instant::now());
        let Some(acceptor) = &mut self.acceptor else { return };
        let is_due = is_listener_ready || is_time(acceptor) || self.server.stop.is_requested();
        if is_due && !acceptor.accept_pending() {
            self.acceptor = None;
        }
    }

    /// Registers the clients that were handed to this loop. Returns true when no more will follow.
    fn register_new(&mut self) -> bool {
        loop {
            let (stream, connection) = match self.new_clients.try_recv() {
                Ok(client) => client,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            };
            let now = Instant::now();
            let mut protocol = P::connection_made(connection);
            let _ = protocol.connection().next(now); // lets the client drain if a stop was requested since accept()
            self.generation = self.generation.wrapping_add(1);
            let (generation, entry) = (self.generation, self.clients.vacant_entry());
            match Registration::new(self.poller, stream, Event::readable(key(generation, entry.key()))) {
                Ok(stream) => _ = entry.insert(Client { stream, protocol, generation, wants_write: false }),
                Err(error) => {
                    self.load.fetch_sub(1, Ordering::Relaxed);
                    protocol.connection_lost(Err(error));
                }
            }
            // A sweep within a tick checks the new client's deadline. While draining, the sweep is due immediately.
            let next = if self.is_draining { now } else { now + TICK };
            self.next_sweep = Some(self.next_sweep.map_or(next, |sweep| sweep.min(next)));
        }
    }

    /// Handles every client whose deadline has passed, and all clients when draining begins.
    ///
    /// The next sweep is at the earliest deadline, and a tick from now at the latest. A deadline that is set between
    /// two sweeps does not change that time, so it costs nothing, but it may be noticed a tick late.
    fn sweep(&mut self, buffer: &mut [u8]) {
        let mut now = Instant::now();
        let begins_draining = self.server.stop.is_requested() && !self.is_draining;
        self.is_draining |= begins_draining;
        if !begins_draining && self.next_sweep.is_none_or(|sweep| now < sweep) {
            return;
        }
        let is_due = |client: &mut Client<P>| begins_draining || client.protocol.connection().is_expired(now);
        let due: Vec<_> =
            self.clients.iter_mut().filter_map(|(slot, client)| is_due(client).then(|| client.key(slot))).collect();
        for key in due {
            self.handle_ready(key, buffer, &mut now);
        }
        let tick = (!self.clients.is_empty()).then_some(now + TICK);
        let deadlines = self.clients.iter_mut().filter_map(|(_, client)| client.protocol.connection().deadline());
        self.next_sweep = deadlines.chain(tick).min();
    }
}

impl<P: Protocol> Client<P> {
    /// Does what the conversation wants, with at most one recv() and then one send(), so that each client gets a turn.
    ///
    /// Returns false when the conversation is over. A turn reads the clock at most once: after its send(), or at its
    /// end if it only received. It stores the time in `now`. So a recv() uses the time at which the previous client's
    /// turn ended, which is exact enough.
    fn handle_ready(&mut self, key: usize, buffer: &mut [u8], now: &mut Instant) -> io::Result<bool> {
        let stream = self.stream.source();
        let (mut has_read, mut has_written) = (false, false);
        loop {
            let connection = self.protocol.connection();
            match connection.next(*now) {
                Want::Read if has_read || has_written => break,
                Want::Read => {
                    has_read = true;
                    match try_read(stream, buffer) {
                        Ok(0) => connection.received_eof(),
                        Ok(n) => self.protocol.data_received(&buffer[..n], *now),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => connection.read_blocked(*now),
                        Err(error) => return Err(error),
                    }
                }
                Want::Write if has_written => break,
                Want::Write => {
                    has_written = true;
                    let began = *now;
                    let written = try_write(stream, connection.outgoing());
                    *now = Instant::now();
                    match written {
                        Ok(n) => connection.sent(n, *now),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => connection.write_blocked(began),
                        Err(error) => return Err(error),
                    }
                }
                Want::EndSending => {
                    stream.shutdown(Shutdown::Write)?;
                    connection.ended_sending(*now);
                }
                Want::Close => return Ok(false),
                Want::Reset => {
                    reset(stream);
                    return Ok(false);
                }
            }
        }
        // Without a send(), the clock has not been read in this turn. Yet the turn may have taken long, if an answer
        // panicked after long work.
        if has_read && !has_written {
            *now = Instant::now();
        }
        let wants_write = self.protocol.connection().next(*now) == Want::Write;
        if wants_write != self.wants_write {
            self.wants_write = wants_write;
            let interest = if wants_write { Event::writable(key) } else { Event::readable(key) };
            self.stream.modify(interest)?;
        }
        Ok(true)
    }

    fn key(&self, slot: usize) -> usize {
        key(self.generation, slot)
    }
}

fn key(generation: u32, slot: usize) -> usize {
    (generation as usize) << SLOT_BITS | slot
}

/// The number of low bits of a key that contain the slot. The upper bits contain the generation.
const SLOT_BITS: u32 = 32;
const SLOT: usize = (1 << SLOT_BITS) - 1;
