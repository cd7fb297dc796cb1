//! What happens to a connection beside questions and answers: how it begins and ends, and what is looked at now and
//! then.

use std::net::TcpStream;
use std::sync::atomic::Ordering;

use anyhow::Result;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::super::clock::{Nanos, nanos};
use super::super::connection::failure_of;
use super::super::failures::Failure;
use super::super::mix::Kind;
use super::super::tally::{Asked, Window};
use super::{EVENTS, Generator, NO_EVENT, READABLE, Shared, Stage};
use crate::pause;

/// The pause between two bytes of a dripping connection.
const DRIP: Nanos = 100_000_000;
/// What is due a moment before the end may still be sent this much after it.
const LATE: Nanos = 10_000_000;
/// How many busy connections are passed over in search of one that can ask: a look, not a search.
const LOOKED_AHEAD: usize = 16;
/// How many connections may be on their way while all are opened: fewer than any usual backlog.
const OPENING_AT_ONCE: usize = 64;
/// Opening ends when nothing has come of it for so long: a lost SYN is repeated after a second.
const STALLED: Nanos = 1_500_000_000;

impl Generator {
    /// Opens all connections, `first` being one that is open already, or as many as the server lets us. `goes_on` is
    /// asked now and then.
    pub(in crate::load) fn open_all(&mut self, mut first: Option<TcpStream>, goes_on: impl Fn() -> bool) -> Result<()> {
        let mut events = [NO_EVENT; EVENTS];
        // With --churn those that ask are opened when they ask.
        let mut next = if self.plan.churn { self.good } else { 0 };
        let mut settled = next;
        self.now = self.clock.now();
        let (mut progress, mut next_allowed) = (self.now, self.now);
        let distance = self.plan.connect_rate.map_or(0, |rate| 1_000_000_000 / rate);
        while goes_on() && settled < self.connections.len() && self.now < progress + STALLED {
            while next < self.connections.len() && next < settled + OPENING_AT_ONCE && next_allowed <= self.now {
                (progress, next_allowed) = (progress.max(next_allowed), next_allowed + distance);
                match first.take() {
                    Some(stream) if next < self.good => self.adopt(next, stream),
                    _ => self.open(next),
                }
                next += 1;
            }
            let wake = self.now + self.tick;
            self.alarm.set(if next_allowed > self.now { wake.min(next_allowed) } else { wake }, self.clock)?;
            self.wait(&mut events)?;
            self.now = self.clock.now();
            let asks = if self.plan.churn { self.good } else { 0 };
            let is_settled = |place: &&super::Connection| place.is_connected || place.stream.is_none();
            let now_settled = asks + self.connections[asks..next].iter().filter(is_settled).count();
            if now_settled > settled {
                (settled, progress) = (now_settled, self.now);
            }
        }
        Ok(())
    }

    /// Takes over a connection that is open already.
    fn adopt(&mut self, place: usize, stream: TcpStream) {
        if stream.set_nonblocking(true).is_ok() {
            self.connections[place].open(stream.into(), self.now);
            self.connections[place].is_connected = true;
            self.connections[place].turn += 1;
            if let Err(failure) = self.watch(place) {
                self.fail(place, failure);
            }
        }
    }

    /// Begins to connect a connection that stays.
    pub(super) fn open(&mut self, place: usize) {
        if let Err(failure) = self.connect(place).and_then(|()| self.watch(place)) {
            self.fail(place, failure);
        }
    }

    /// Begins to connect to the place's next address.
    pub(super) fn connect(&mut self, place: usize) -> Result<(), Failure> {
        let Self { connections, plan, addresses, sources, now, .. } = self;
        let connection = &mut connections[place];
        let address = addresses[connection.turn % addresses.len()];
        let is_kept = !plan.churn || place >= self.good;
        connection.turn += 1;
        match sources.open(address, is_kept) {
            Ok(stream) => {
                // A connection for one question sends one segment, which nothing delays.
                if is_kept {
                    let _ = sockopt::set_tcp_nodelay(&stream, true);
                }
                connection.open(stream, *now);
                Ok(())
            }
            Err(error) => Err(self.not_connected(error)),
        }
    }

    /// Why there is no connection.
    pub(super) fn not_connected(&mut self, error: Errno) -> Failure {
        let failure = failure_of(error);
        if failure == Failure::NotOpened {
            self.tally.obstacle = Some(error);
        }
        failure
    }

    /// Adds the connection to the poller. The edges of room to write cost nothing where nobody lacked it.
    pub(super) fn watch(&mut self, place: usize) -> Result<(), Failure> {
        let connection = &self.connections[place];
        let Some(stream) = &connection.stream else { return Ok(()) };
        let flags = if connection.is_connected { READABLE } else { READABLE | EventFlags::OUT };
        epoll::add(&self.poller, stream, EventData::new_u64(place as u64), flags)
            .map_err(|error| self.is_in_vain(error))
    }

    /// The network had no room: asks to be told when it has.
    pub(super) fn watch_for_room(&mut self, place: usize) -> Result<(), Failure> {
        let Some(stream) = &self.connections[place].stream else { return Ok(()) };
        let flags = READABLE | EventFlags::OUT;
        epoll::modify(&self.poller, stream, EventData::new_u64(place as u64), flags)
            .map_err(|error| self.is_in_vain(error))
    }

    fn is_in_vain(&mut self, error: Errno) -> Failure {
        self.tally.obstacle = Some(error);
        Failure::NotOpened
    }

    /// An end of file. It is a loss where something is owed; else a server may do so.
    pub(super) fn ended(&mut self, place: usize) {
        if self.connections[place].asked.is_empty() {
            self.tally.reopened += 1;
            self.vacate(place);
        } else {
            self.fail(place, Failure::Lost);
        }
    }

    /// The connection is broken. Who drips or says nothing may be cut by any server.
    pub(super) fn broken(&mut self, place: usize, failure: Failure) {
        let connection = &self.connections[place];
        if connection.kind != Kind::Good && connection.is_connected && connection.asked.is_empty() {
            self.ended(place);
        } else {
            self.fail(place, failure);
        }
    }

    fn vacate(&mut self, place: usize) {
        let Self { connections, tally, now, .. } = self;
        let connection = &mut connections[place];
        let is_good = connection.kind == Kind::Good;
        connection.asked.drain(..).filter(|_| is_good).for_each(|asked| tally.abandoned(asked, *now));
        connection.close();
    }

    /// What need not happen at once.
    pub(super) fn tick(&mut self, shared: &Shared) {
        self.next_tick = self.now + self.tick;
        shared.answers.fetch_add(std::mem::take(&mut self.answers), Ordering::Relaxed);
        let end = shared.end.load(Ordering::Relaxed);
        if end < self.tally.window().end {
            self.tally.cut(end);
        }
        let is_drip = self.now >= self.next_drip;
        if is_drip {
            self.next_drip = self.now + DRIP;
        }
        let timeout = nanos(self.plan.timeout);
        for place in 0..self.connections.len() {
            let connection = &self.connections[place];
            if connection.waits_since().is_some_and(|since| since + timeout <= self.now) {
                self.fail(place, Failure::TimedOut);
            } else if connection.stream.is_none() {
                self.reopen(place);
            } else if is_drip && connection.kind == Kind::Drip {
                self.drip(place);
            }
        }
    }

    fn drip(&mut self, place: usize) {
        let Self { connections, random, .. } = self;
        let connection = &mut connections[place];
        match connection.drip(|| random.u8(0..3)) {
            Ok(None) => {}
            Ok(Some(aphorism)) => connection.asked.push_back(Asked::beside(self.now, aphorism)),
            Err(failure) => self.broken(place, failure),
        }
    }

    /// The measured time is over: what was not sent was missed, and who was never served is not waited for.
    pub(super) fn end_asking(&mut self) {
        self.stage = Stage::Waiting;
        self.tally.end(self.now);
        let Window { start, end } = self.tally.window();
        if let Some(schedule) = &mut self.schedule {
            while schedule.next_due() < end {
                schedule.advance();
            }
            for place in 0..self.good {
                for round in self.connections[place].round..schedule.rounds(place) {
                    self.tally.missed(schedule.due(place, round));
                }
            }
        }
        for place in 0..self.good {
            let connection = &self.connections[place];
            // It has waited for (nearly) all of the measured time, or in vain, or not even got a connection to wait on.
            let is_stuck = connection.waits_since().is_some_and(|since| since <= start + (end - start) / 10);
            let is_out = !self.plan.churn && !connection.is_connected;
            let has_tries = self.plan.retries > 0 && !connection.asked.is_empty();
            if !connection.is_served && (is_stuck || !has_tries && (is_out || connection.has_failed)) {
                self.tally.unserved += 1;
                self.vacate(place);
            }
        }
    }

    /// When something is to be done even if nothing comes.
    pub(super) fn next_wake(&self) -> Nanos {
        let Window { start, end } = self.tally.window();
        let due = self.next_room().filter(|due| *due < end);
        let stage = match self.stage {
            Stage::Opening | Stage::WarmUp => start,
            Stage::Measuring => end + self.grace(),
            Stage::Waiting => Nanos::MAX,
        };
        self.next_tick.min(stage).min(due.unwrap_or(Nanos::MAX)).min(self.next_again().unwrap_or(Nanos::MAX))
    }

    /// The open loop: when a question will be due that can also be sent. Where answers are owed, they wake us first.
    fn next_room(&self) -> Option<Nanos> {
        let schedule = self.schedule.as_ref()?;
        let mut last = None;
        for (place, due) in schedule.upcoming().take(LOOKED_AHEAD) {
            last = Some(due);
            if self.connections[place].asked.len() < self.plan.pipeline {
                return last;
            }
        }
        last.filter(|_| self.good > LOOKED_AHEAD)
    }

    /// How long after the end what is due may still be sent.
    pub(super) fn grace(&self) -> Nanos {
        if self.schedule.is_some() { LATE } else { 0 }
    }

    /// How long the answers that are missing are waited for, after `end`.
    pub(super) fn last_moment(&self, end: Nanos, shared: &Shared) -> Nanos {
        let tries = u64::from(self.plan.retries) + 1;
        let longest = (nanos(self.plan.timeout) + self.tick) * tries + nanos(pause::LONGEST) * (tries - 1);
        shared.stop.load(Ordering::Relaxed).min(end + longest)
    }

    /// Takes back the questions whose answers are not waited for any more.
    pub(super) fn give_up(&mut self) {
        (0..self.good).for_each(|place| self.vacate(place));
    }
}
