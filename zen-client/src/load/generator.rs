//! One thread's share of the load: an epoll loop over its connections.
//!
//! 1. The alarm is set for whatever is due next: a question of the open loop, or the tick.
//! 2. `epoll_wait` sleeps until a connection is readable, or the alarm fires.
//! 3. A readable connection is read once. It is registered edge-triggered, so a short read has emptied it.
//! 4. The bytes are compared, each whole answer is counted with its time, and the next question is sent.
//!
//! That is one `recv` and one `send` for each answer, or for several with `--pipeline`, and a share of an `epoll_wait`.
//! The clock is read once per chunk, which is no system call. Nothing is allocated for a question.

mod lifecycle;
mod retrying;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use fastrand::Rng;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use super::clock::{Alarm, Clock, Nanos, nanos, own_processor_time};
use super::connection::{Connection, Sent, failure_of, question};
use super::failures::Failure;
use super::mix::Kind;
use super::plan::Plan;
use super::schedule::{Arrivals, Schedule};
use super::sources::Sources;
use super::tally::{Tally, Window};

/// State that the threads of a run share with the thread that watches them.
pub(super) struct Shared {
    /// When asking ends. May be set to an earlier time, two ticks ahead.
    pub(super) end: AtomicU64,
    /// When missing answers are given up, if that is before their timeout. May be set to an earlier time, as `end`.
    pub(super) stop: AtomicU64,
    /// Answers so far, those of the warm-up included; for the progress bar.
    pub(super) answers: AtomicU64,
}

/// The connections of a thread and everything that keeps them busy.
pub(super) struct Generator {
    plan: Plan,
    addresses: Vec<SocketAddr>,
    thread: usize,
    clock: Clock,
    /// When the clock was last read.
    now: Nanos,
    poller: OwnedFd,
    alarm: Alarm,
    sources: Sources,
    /// The slots; those that ask are first.
    connections: Vec<Connection>,
    /// The number of slots that ask.
    good: usize,
    /// Slots whose connection has failed, ordered by the time of the next one.
    reopen_queue: BinaryHeap<Reverse<(Nanos, usize)>>,
    schedule: Option<Schedule>,
    tally: Tally,
    stage: Stage,
    tick: Nanos,
    next_tick: Nanos,
    next_drip: Nanos,
    random: Rng,
    chunk: Box<[u8]>,
    outgoing: Vec<u8>,
    answers: u64,
}

/// The stages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    WarmUp,
    Measuring,
    /// No more questions are asked; answers that count are waited for.
    Waiting,
}

/// The key of the alarm's events; a connection's key is its slot.
const ALARM: u64 = u64::MAX;
/// Bytes of one read: more than a thousand answers.
const CHUNK: usize = 16_384;
/// Events of one `epoll_wait`.
const EVENTS: usize = 1024;
/// The interval at which timeouts are checked and lost connections are opened again, unless `--timeout` is short.
const TICK: Nanos = 100_000_000;

const NO_EVENT: Event = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ENDED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

impl Generator {
    /// Returns the share of `thread`; no connection is open yet.
    pub(super) fn new(plan: &Plan, addresses: &[SocketAddr], thread: usize, clock: Clock) -> Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot poll")?;
        let alarm = Alarm::new(&poller, ALARM).context("cannot set an alarm")?;
        let [good, drip, silent] = plan.shares();
        let kinds = [(Kind::Good, good), (Kind::Drip, drip), (Kind::Silent, silent + plan.idle)];
        // Every `threads`-th of each kind.
        let share = |all: usize| (all + plan.threads - 1 - thread) / plan.threads;
        let slots = kinds.iter().flat_map(|&(kind, all)| std::iter::repeat_n(kind, share(all)));
        // The slots of all threads together go through the addresses.
        let turns = (thread..).step_by(plan.threads);
        let tick = TICK.min(nanos(plan.timeout) / 4).max(1_000_000);
        Ok(Self {
            thread,
            clock,
            now: clock.now(),
            poller,
            alarm,
            sources: Sources::new(plan.threads),
            connections: slots.zip(turns).map(|(kind, turn)| Connection::new(kind, plan.pipeline, turn)).collect(),
            good: share(good),
            reopen_queue: BinaryHeap::new(),
            schedule: None,
            tally: Tally::new(plan.rate.is_some() || plan.retries > 0),
            stage: Stage::Opening,
            tick,
            next_tick: 0,
            next_drip: 0,
            random: Rng::with_seed(plan.seed.wrapping_add(thread as u64)),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            outgoing: Vec::new(),
            answers: 0,
            plan: plan.clone(),
            addresses: addresses.to_vec(),
        })
    }

    /// Asks from `start` on, counts in `window`, and ends when everything that counts is answered.
    pub(super) fn run(mut self, start: Nanos, window: Window, shared: &Shared) -> Result<Tally> {
        self.tally.begin(window);
        self.schedule = self.plan.rate.map(|rate| {
            let schedule = Schedule::new(start, rate, self.plan.good(), self.thread, self.plan.threads);
            match self.plan.arrivals {
                Arrivals::Even => schedule,
                Arrivals::Poisson => schedule.with_random_times(self.random.fork()),
            }
        });
        self.stage = Stage::WarmUp;
        self.now = self.clock.now();
        (self.next_tick, self.next_drip) = (self.now + self.tick, self.now);
        let mut processor_time = own_processor_time();
        for slot in 0..self.good {
            self.now = self.clock.now();
            self.ask(slot);
        }
        let mut events = [NO_EVENT; EVENTS];
        loop {
            self.ask_what_is_due();
            self.reopen_due();
            let Window { start, end } = self.tally.window();
            match self.stage {
                Stage::WarmUp if self.now >= start => {
                    self.stage = Stage::Measuring;
                    processor_time = own_processor_time();
                }
                Stage::Measuring if self.now >= end + self.grace() => {
                    self.tally.processor_time = own_processor_time().saturating_sub(processor_time);
                    self.tally.busiest = self.tally.processor_time;
                    self.end_asking();
                }
                Stage::Waiting if !self.tally.is_waiting() || self.now >= self.last_moment(end, shared) => break,
                _ => {
                    if self.now >= self.next_tick {
                        self.tick(shared);
                    }
                    self.alarm.set(self.next_wake(), self.clock)?;
                    self.wait(&mut events)?;
                }
            }
        }
        self.give_up();
        Ok(self.tally)
    }

    /// Asks everything in the open loop that is due.
    fn ask_what_is_due(&mut self) {
        let end = self.tally.window().end;
        while let Some(schedule) = &mut self.schedule {
            if schedule.next_due() > self.now || schedule.next_due() >= end {
                break;
            }
            let slot = schedule.advance();
            self.ask(slot);
        }
    }

    /// Sends as many questions over a connection as are due and fit.
    fn ask(&mut self, slot: usize) {
        if self.stage == Stage::Waiting {
            return;
        }
        let connection = &mut self.connections[slot];
        let room = self.plan.pipeline - connection.asked.len();
        let questions = match &self.schedule {
            Some(schedule) => room.min((schedule.rounds(slot) - connection.round) as usize),
            None => room,
        };
        if questions == 0 || !(connection.is_connected || self.plan.churn) || connection.not_before > self.now {
            return;
        }
        if self.schedule.is_some() {
            self.now = self.clock.now();
        }
        self.outgoing.clear();
        for _ in 0..questions {
            let due = self.schedule.as_ref().map_or(self.now, |schedule| schedule.due(slot, connection.round));
            let aphorism = self.random.u8(0..3);
            connection.round += 1;
            connection.asked.push_back(self.tally.asked(due, self.now, aphorism));
            self.outgoing.extend_from_slice(question(aphorism));
        }
        self.send(slot);
    }

    /// Sends the outgoing bytes, over a new connection if each question has its own.
    fn send(&mut self, slot: usize) {
        let outcome = if self.plan.churn {
            self.connect_and_ask(slot)
        } else {
            match self.connections[slot].send(&self.outgoing) {
                Ok(Sent::All) => Ok(()),
                Ok(Sent::Part) => self.watch_for_room(slot),
                Err(failure) => Err(failure),
            }
        };
        if let Err(failure) = outcome {
            self.fail(slot, failure);
        }
    }

    /// Connects, and sends the outgoing bytes as soon as the connection is established.
    fn connect_and_ask(&mut self, slot: usize) -> Result<(), Failure> {
        self.connect(slot)?;
        let connection = &mut self.connections[slot];
        // On loopback the kernel completes most handshakes immediately; then there is no need to wait for room.
        connection.is_connected = connection.send(&self.outgoing)? == Sent::All;
        self.watch(slot)
    }

    /// Sleeps until events arrive, and handles them.
    fn wait(&mut self, events: &mut [Event; EVENTS]) -> Result<()> {
        let n = match epoll::wait(&self.poller, &mut events[..], None) {
            Ok(n) => n,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error).context("cannot wait for the network"),
        };
        for &Event { flags, data, .. } in &events[..n] {
            if data.u64() == ALARM {
                self.alarm.fired();
                self.now = self.clock.now();
            } else {
                self.ready(data.u64() as usize, flags);
            }
        }
        Ok(())
    }

    fn ready(&mut self, slot: usize, flags: EventFlags) {
        let is_news = flags.contains(EventFlags::OUT) || !self.connections[slot].is_connected;
        let outcome = if is_news { self.writable(slot) } else { Ok(()) };
        if let Err(failure) = outcome {
            return self.fail(slot, failure);
        }
        if flags.intersects(EventFlags::IN | ENDED) {
            self.read(slot, flags.intersects(ENDED));
        }
    }

    /// Handles a connection that is established, or failed to be, or has room again.
    fn writable(&mut self, slot: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[slot];
        let Some(stream) = &connection.stream else { return Ok(()) };
        if !connection.is_connected {
            if let Err(error) = sockopt::socket_error(stream).and_then(|outcome| outcome) {
                return Err(self.not_connected(error));
            }
            connection.is_connected = true;
            self.now = self.clock.now();
            if !self.plan.churn && self.stage != Stage::Opening && slot < self.good {
                self.ask(slot);
            }
        }
        self.connections[slot].send_rest()
    }

    /// Reads until nothing is left. With `is_ended` the end has arrived too, and there will be no further edge.
    fn read(&mut self, slot: usize, is_ended: bool) {
        loop {
            let Self { connections, tally, chunk, clock, answers, .. } = self;
            let connection = &mut connections[slot];
            let Some(stream) = &connection.stream else { return };
            match recv(stream, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => return self.ended(slot),
                Ok((n, _)) => {
                    let now = clock.now();
                    let is_good = connection.kind == Kind::Good;
                    let received = connection.received(&chunk[..n], |asked| {
                        if is_good {
                            tally.answered(asked, now);
                            *answers += 1;
                        }
                    });
                    self.now = now;
                    if let Err(failure) = received {
                        return self.fail(slot, failure);
                    }
                    if self.plan.churn && slot < self.good && self.connections[slot].asked.is_empty() {
                        self.connections[slot].close();
                        break;
                    }
                    if n < CHUNK && !is_ended {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return self.broken(slot, failure_of(error)),
            }
        }
        if slot < self.good {
            self.ask(slot);
        }
    }
}
