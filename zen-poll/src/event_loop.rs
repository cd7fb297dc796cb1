//! The readiness loop: sleep until something is ready, then do what can be done without sleeping.

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
use zen_proto::server::{CHUNK, Client, Server, TICK, beat, next_beat, receive_now, reset, send_now};
use zen_proto::{Conversation, Want};

use crate::door::{Address, Arrival, Door, LISTENER};
use crate::registration::Registration;

/// What the loop tells about one client, and what it asks.
pub(crate) trait Protocol: Send + Sized {
    /// A client has come.
    fn connection_made(server: &'static Server, client: Client) -> Self;
    /// It sent `data`.
    fn data_received(&mut self, data: &[u8], now: Instant);
    /// It has gone, as its conversation ended or by an error.
    fn connection_lost(self, result: io::Result<()>);
    /// What there is to do for it: what asyncio keeps in its transport.
    fn conversation(&mut self) -> &mut Conversation;
}

/// Serves from `loops` threads, of which this is the first, until there are no more clients.
pub(crate) fn serve<P: Protocol>(server: &'static Server, loops: usize) -> Result<()> {
    let mut addresses = Vec::new();
    let mut others = Vec::new();
    for _ in 0..loops {
        let poller: &'static Poller = Box::leak(Box::new(Poller::new().context("cannot make a poller")?));
        server.stop.on_request(|| _ = poller.notify());
        let (sender, arrivals) = channel();
        let load = Arc::new(AtomicUsize::new(0));
        addresses.push(Address { arrivals: sender, poller, load: Arc::clone(&load) });
        others.push(EventLoop::<P>::new(server, poller, arrivals, load));
    }
    let mut first = others.remove(0);
    first.door = Some(Door::open(server, addresses));
    thread::scope(|scope| {
        for (number, other) in (2..).zip(others) {
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
    /// The first loop has it, for as long as clients are taken.
    door: Option<Door>,
    arrivals: Receiver<Arrival>,
    load: Arc<AtomicUsize>,
    guests: Slab<Guest<P>>,
    /// How many guests there have been, modulo 2^32.
    generation: u32,
    next_sweep: Option<Instant>,
    is_draining: bool,
}

/// A client of this loop.
struct Guest<P> {
    stream: Registration<TcpStream>,
    protocol: P,
    /// Its slot, and above that its generation. A slot is soon somebody else's; an event that is still
    /// under way for the one before must not be taken for his. (The ancestor trusted bare descriptors.)
    key: usize,
    /// Whether it waits for room to write, and not for something to read.
    wants_room: bool,
}

impl<P: Protocol> EventLoop<P> {
    fn new(
        server: &'static Server,
        poller: &'static Poller,
        arrivals: Receiver<Arrival>,
        load: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            server,
            poller,
            door: None,
            arrivals,
            load,
            guests: Slab::new(),
            generation: 0,
            next_sweep: None,
            is_draining: false,
        }
    }

    /// 1. Sleep until a descriptor is ready, somebody notifies this loop, or it is time to sweep.
    /// 2. Give each ready client its turn.
    /// 3. Answer the door if somebody rang, and welcome those who were given to this loop.
    /// 4. Sweep if it is time: see to the clients whose time is up.
    /// 5. Leave when the door is shut and the last client has gone.
    fn run(mut self) {
        let mut events = Events::new();
        let mut chunk = [0; CHUNK];
        loop {
            events.clear();
            // The only place where this thread sleeps.
            if let Err(error) = self.poller.wait(&mut events, self.patience()) {
                self.server.stop.fail(anyhow!("cannot wait for events ({error}): start the server anew"));
                return;
            }
            let mut now = Instant::now();
            beat(now);
            for event in events.iter().filter(|event| event.key != LISTENER) {
                self.turn(event.key, &mut chunk, &mut now);
            }
            let rang = events.iter().any(|event| event.key == LISTENER);
            self.answer_door(rang);
            let may_leave = self.welcome();
            self.sweep(&mut chunk);
            if may_leave && self.guests.is_empty() {
                return;
            }
        }
    }

    /// How long to sleep at most; `None`: until something happens.
    fn patience(&self) -> Option<Duration> {
        let door = self.door.as_ref().and_then(Door::look_at);
        let next = self.next_sweep.into_iter().chain(door).chain(next_beat()).min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    fn turn(&mut self, key: usize, chunk: &mut [u8], now: &mut Instant) {
        beat(*now);
        let slot = key & SLOT;
        let Some(guest) = self.guests.get_mut(slot).filter(|guest| guest.key == key) else { return };
        let result = match guest.turn(chunk, now) {
            Ok(true) => return,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        let guest = self.guests.remove(slot);
        self.load.fetch_sub(1, Ordering::Relaxed);
        guest.protocol.connection_lost(result);
    }

    fn answer_door(&mut self, rang: bool) {
        let is_time = |door: &Door| door.look_at().is_some_and(|at| at <= Instant::now());
        if let Some(door) = &mut self.door
            && (rang || is_time(door) || self.server.stop.is_requested())
            && !door.answer()
        {
            self.door = None;
        }
    }

    /// Takes in those who were given to this loop. True: nobody comes any more.
    fn welcome(&mut self) -> bool {
        loop {
            let (stream, client) = match self.arrivals.try_recv() {
                Ok(arrival) => arrival,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            };
            let now = Instant::now();
            let protocol = P::connection_made(self.server, client);
            self.generation = self.generation.wrapping_add(1);
            let place = self.guests.vacant_entry();
            let key = (self.generation as usize) << SLOT_BITS | place.key();
            match Registration::new(self.poller, stream, Event::readable(key)) {
                Ok(stream) => _ = place.insert(Guest { stream, protocol, key, wants_room: false }),
                Err(error) => {
                    self.load.fetch_sub(1, Ordering::Relaxed);
                    protocol.connection_lost(Err(error));
                }
            }
            // A new client has time; one that comes while the server drains has none.
            let next = if self.is_draining { now } else { now + TICK };
            self.next_sweep = Some(self.next_sweep.map_or(next, |sweep| sweep.min(next)));
        }
    }

    /// Gives a turn to every client whose time is up; one who does nothing with it goes. At the next
    /// deadline, but after a tick at most, it is time again: a deadline that begins after a sweep costs no
    /// system call then.
    fn sweep(&mut self, chunk: &mut [u8]) {
        let mut now = Instant::now();
        if self.server.stop.is_requested() && !self.is_draining {
            self.is_draining = true;
            self.next_sweep = Some(now);
        }
        if self.next_sweep.is_none_or(|sweep| now < sweep) {
            return;
        }
        let mut due = Vec::new();
        for (_, guest) in &mut self.guests {
            let conversation = guest.protocol.conversation();
            if self.is_draining {
                conversation.drain(now);
            }
            if conversation.is_due(now) {
                due.push(guest.key);
            }
        }
        for key in due {
            self.turn(key, chunk, &mut now);
        }
        let tick = (!self.guests.is_empty()).then_some(now + TICK);
        let deadlines = self.guests.iter_mut().filter_map(|(_, guest)| guest.protocol.conversation().expires_at());
        self.next_sweep = deadlines.chain(tick).min();
    }
}

impl<P: Protocol> Guest<P> {
    /// One recv() and then one send() at most, so that all get their turn. False: it is over.
    ///
    /// `now` is read once a turn, after the send(); for the recv() before it the end of the last turn is
    /// near enough.
    fn turn(&mut self, chunk: &mut [u8], now: &mut Instant) -> io::Result<bool> {
        let stream = self.stream.source();
        let (mut has_read, mut has_written) = (false, false);
        loop {
            let conversation = self.protocol.conversation();
            match conversation.wants() {
                Want::Read if has_read || has_written => break,
                Want::Read => {
                    has_read = true;
                    match receive_now(stream, chunk) {
                        Ok(0) => conversation.received_eof(),
                        Ok(n) => self.protocol.data_received(&chunk[..n], *now),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => conversation.timed_out(*now),
                        Err(error) => return Err(error),
                    }
                }
                Want::Write if has_written => break,
                Want::Write => {
                    has_written = true;
                    let began = *now;
                    let written = send_now(stream, conversation.outgoing());
                    *now = Instant::now();
                    match written {
                        Ok(n) => conversation.sent(n, *now),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            conversation.sent(0, *now);
                            conversation.timed_out(began);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Want::EndSending => {
                    stream.shutdown(Shutdown::Write)?;
                    conversation.ended_sending(*now);
                }
                Want::Close => return Ok(false),
                Want::Reset => {
                    reset(stream);
                    return Ok(false);
                }
            }
        }
        if has_read && !has_written {
            *now = Instant::now(); // it may have thought for long and have nothing to say
        }
        let wants_room = self.protocol.conversation().wants() == Want::Write;
        if wants_room != self.wants_room {
            self.wants_room = wants_room;
            let interest = if wants_room { Event::writable(self.key) } else { Event::readable(self.key) };
            self.stream.modify(interest)?;
        }
        Ok(true)
    }
}

/// The lower bits of a key are a slot.
const SLOT_BITS: u32 = 32;
const SLOT: usize = (1 << SLOT_BITS) - 1;
