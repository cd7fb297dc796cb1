//! One thread's share of the load: an epoll loop over its connections.
//!
//! 1. The alarm is set for whatever is due next: a question of the open loop, or the tick.
//! 2. `epoll_wait` sleeps until a connection is readable, or the alarm rings.
//! 3. A readable connection is read once: the descriptors are watched for edges, so a short read has emptied it.
//! 4. The bytes are compared, each whole answer is counted with its time, and the next question goes out.
//!
//! That is one `recv` and one `send` for each answer, and a share of an `epoll_wait`. The clock is read once a chunk,
//! which is no system call. Nothing is allocated for a question.

mod retrying;
mod upkeep;

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

/// What the threads of a run and the thread that watches them tell each other.
pub(super) struct Shared {
    /// When asking ends. May be set to an earlier moment, two ticks ahead.
    pub(super) end: AtomicU64,
    /// When missing answers are given up, if that comes before their timeout. May be set to an earlier moment, as
    /// `end`.
    pub(super) stop: AtomicU64,
    /// Answers so far, the warm-up's too; for the progress bar.
    pub(super) answers: AtomicU64,
}

/// A thread's connections and all that it needs to keep them busy.
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
    /// Those that ask come first.
    connections: Vec<Connection>,
    /// How many of them ask.
    good: usize,
    /// Places whose connection has failed, by when the next one is opened.
    again: BinaryHeap<Reverse<(Nanos, usize)>>,
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

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    WarmUp,
    Measuring,
    /// Nothing is asked any more; what counts is waited for.
    Waiting,
}

/// What the alarm's events carry; a connection's carry its place.
const ALARM: u64 = u64::MAX;
/// How much one read takes: more than a thousand answers.
const CHUNK: usize = 16_384;
/// How many events one `epoll_wait` brings.
const EVENTS: usize = 1024;
/// How often time-outs are looked at and lost connections opened again, unless `--timeout` is short.
const TICK: Nanos = 100_000_000;

const NO_EVENT: Event = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ENDED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

impl Generator {
    /// The share of `thread`; nothing is opened yet.
    pub(super) fn new(plan: &Plan, addresses: &[SocketAddr], thread: usize, clock: Clock) -> Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot poll")?;
        let alarm = Alarm::new(&poller, ALARM).context("cannot set an alarm")?;
        let [good, drip, silent] = plan.shares();
        let kinds = [(Kind::Good, good), (Kind::Drip, drip), (Kind::Silent, silent + plan.idle)];
        // Every `threads`-th of each kind.
        let share = |all: usize| (all + plan.threads - 1 - thread) / plan.threads;
        let places = kinds.iter().flat_map(|&(kind, all)| std::iter::repeat_n(kind, share(all)));
        // Side by side at the addresses, all threads together.
        let turns = (thread..).step_by(plan.threads);
        let tick = TICK.min(nanos(plan.timeout) / 4).max(1_000_000);
        Ok(Self {
            thread,
            clock,
            now: clock.now(),
            poller,
            alarm,
            sources: Sources::new(plan.threads),
            connections: places.zip(turns).map(|(kind, turn)| Connection::new(kind, plan.pipeline, turn)).collect(),
            good: share(good),
            again: BinaryHeap::new(),
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

    /// Asks from `start` on, counts in `window`, and ends when what counts has been answered.
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
        for place in 0..self.good {
            self.now = self.clock.now();
            self.ask(place);
        }
        let mut events = [NO_EVENT; EVENTS];
        loop {
            self.ask_what_is_due();
            self.open_again();
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

    /// The open loop: everything whose time has come.
    fn ask_what_is_due(&mut self) {
        let end = self.tally.window().end;
        while let Some(schedule) = &mut self.schedule {
            if schedule.next_due() > self.now || schedule.next_due() >= end {
                break;
            }
            let place = schedule.advance();
            self.ask(place);
        }
    }

    /// Sends as many questions as are to be sent over a connection now.
    fn ask(&mut self, place: usize) {
        if self.stage == Stage::Waiting {
            return;
        }
        let connection = &mut self.connections[place];
        let room = self.plan.pipeline - connection.asked.len();
        let questions = match &self.schedule {
            Some(schedule) => room.min((schedule.rounds(place) - connection.round) as usize),
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
            let due = self.schedule.as_ref().map_or(self.now, |schedule| schedule.due(place, connection.round));
            let aphorism = self.random.u8(0..3);
            connection.round += 1;
            connection.asked.push_back(self.tally.asked(due, self.now, aphorism));
            self.outgoing.extend_from_slice(question(aphorism));
        }
        self.send(place);
    }

    /// Sends what is outgoing, over a new connection if each question has its own.
    fn send(&mut self, place: usize) {
        let outcome = if self.plan.churn {
            self.visit(place)
        } else {
            match self.connections[place].send(&self.outgoing) {
                Ok(Sent::All) => Ok(()),
                Ok(Sent::Part) => self.watch_for_room(place),
                Err(failure) => Err(failure),
            }
        };
        if let Err(failure) = outcome {
            self.fail(place, failure);
        }
    }

    /// Begins to connect, and sends what is outgoing as soon as that has come about.
    fn visit(&mut self, place: usize) -> Result<(), Failure> {
        self.connect(place)?;
        let connection = &mut self.connections[place];
        // The kernel completes most handshakes on loopback at once; then nobody waits for room to write.
        connection.is_connected = connection.send(&self.outgoing)? == Sent::All;
        self.watch(place)
    }

    /// Sleeps until something happens, and deals with it.
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

    fn ready(&mut self, place: usize, flags: EventFlags) {
        let is_news = flags.contains(EventFlags::OUT) || !self.connections[place].is_connected;
        let outcome = if is_news { self.writable(place) } else { Ok(()) };
        if let Err(failure) = outcome {
            return self.fail(place, failure);
        }
        if flags.intersects(EventFlags::IN | ENDED) {
            self.read(place, flags.intersects(ENDED));
        }
    }

    /// The connection is there, or has room again, or never will be there.
    fn writable(&mut self, place: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[place];
        let Some(stream) = &connection.stream else { return Ok(()) };
        if !connection.is_connected {
            if let Err(error) = sockopt::socket_error(stream).and_then(|outcome| outcome) {
                return Err(self.not_connected(error));
            }
            connection.is_connected = true;
            self.now = self.clock.now();
            if !self.plan.churn && self.stage != Stage::Opening && place < self.good {
                self.ask(place);
            }
        }
        self.connections[place].send_rest()
    }

    /// Reads until nothing is left. `is_ended`: the end has come as well, and no further edge will tell.
    fn read(&mut self, place: usize, is_ended: bool) {
        loop {
            let Self { connections, tally, chunk, clock, answers, .. } = self;
            let connection = &mut connections[place];
            let Some(stream) = &connection.stream else { return };
            match recv(stream, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => return self.ended(place),
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
                        return self.fail(place, failure);
                    }
                    if self.plan.churn && place < self.good && self.connections[place].asked.is_empty() {
                        self.connections[place].close();
                        break;
                    }
                    if n < CHUNK && !is_ended {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return self.broken(place, failure_of(error)),
            }
        }
        if place < self.good {
            self.ask(place);
        }
    }
}
