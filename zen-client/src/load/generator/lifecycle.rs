//! Opening and closing connections, and what is done at each tick and at the end of the measured time.

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
/// The time after the end in which a question may still be sent that was due just before it.
const LATE: Nanos = 10_000_000;
/// The most busy connections that are skipped in search of one that can ask.
const LOOKED_AHEAD: usize = 16;
/// The most connections in progress while all are opened: fewer than any usual backlog.
const OPENING_AT_ONCE: usize = 64;
/// Opening ends when there is no progress for this long: a lost SYN is sent again after a second.
const STALLED: Nanos = 1_500_000_000;

impl Generator {
    /// Opens all connections, or as many as the server accepts. `first` is open already. `goes_on` is called now and
    /// then.
    pub(in crate::load) fn open_all(&mut self, mut first: Option<TcpStream>, goes_on: impl Fn() -> bool) -> Result<()> {
        let mut events = [NO_EVENT; EVENTS];
        // With --churn the connections that ask are opened when they ask.
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
            let is_settled = |slot: &&super::Connection| slot.is_connected || slot.stream.is_none();
            let now_settled = asks + self.connections[asks..next].iter().filter(is_settled).count();
            if now_settled > settled {
                (settled, progress) = (now_settled, self.now);
            }
        }
        Ok(())
    }

    /// Takes over a connection that is open already.
    fn adopt(&mut self, slot: usize, stream: TcpStream) {
        if stream.set_nonblocking(true).is_ok() {
            self.connections[slot].open(stream.into(), self.now);
            self.connections[slot].is_connected = true;
            self.connections[slot].address_index += 1;
            if let Err(failure) = self.watch(slot) {
                self.fail(slot, failure);
            }
        }
    }

    /// Opens a connection that stays.
    pub(super) fn open(&mut self, slot: usize) {
        if let Err(failure) = self.connect(slot).and_then(|()| self.watch(slot)) {
            self.fail(slot, failure);
        }
    }

    /// Begins to connect to the slot's next address.
    pub(super) fn connect(&mut self, slot: usize) -> Result<(), Failure> {
        let Self { connections, plan, addresses, sources, now, .. } = self;
        let connection = &mut connections[slot];
        let address = addresses[connection.address_index % addresses.len()];
        let is_kept = !plan.churn || slot >= self.good;
        connection.address_index += 1;
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

    /// Returns the failure for an error of connecting, and records why.
    pub(super) fn not_connected(&mut self, error: Errno) -> Failure {
        let failure = failure_of(error);
        if failure == Failure::NotOpened {
            self.tally.open_error = Some(error);
        }
        failure
    }

    /// Adds the connection to the poller. One that is not established is also watched for room to write, which reports
    /// the end of the handshake. It stays so: edge-triggered, this costs nothing while there is room.
    pub(super) fn watch(&mut self, slot: usize) -> Result<(), Failure> {
        let connection = &self.connections[slot];
        let Some(stream) = &connection.stream else { return Ok(()) };
        let flags = if connection.is_connected { READABLE } else { READABLE | EventFlags::OUT };
        epoll::add(&self.poller, stream, EventData::new_u64(slot as u64), flags).map_err(|error| self.not_polled(error))
    }

    /// Asks the poller for an event when the kernel has room again.
    pub(super) fn watch_for_room(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(stream) = &self.connections[slot].stream else { return Ok(()) };
        let flags = READABLE | EventFlags::OUT;
        epoll::modify(&self.poller, stream, EventData::new_u64(slot as u64), flags)
            .map_err(|error| self.not_polled(error))
    }

    fn not_polled(&mut self, error: Errno) -> Failure {
        self.tally.open_error = Some(error);
        Failure::NotOpened
    }

    /// Handles an end of file: a loss if an answer is pending; otherwise a server may end the connection.
    pub(super) fn ended(&mut self, slot: usize) {
        if self.connections[slot].asked.is_empty() {
            self.tally.reopened += 1;
            self.abandon(slot);
        } else {
            self.fail(slot, Failure::Lost);
        }
    }

    /// Handles a broken connection. A client that drips or is silent may be disconnected by any server.
    pub(super) fn broken(&mut self, slot: usize, failure: Failure) {
        let connection = &self.connections[slot];
        if connection.kind != Kind::Good && connection.is_connected && connection.asked.is_empty() {
            self.ended(slot);
        } else {
            self.fail(slot, failure);
        }
    }

    /// Closes a connection, and takes back its questions without counting a failure.
    fn abandon(&mut self, slot: usize) {
        let Self { connections, tally, now, .. } = self;
        let connection = &mut connections[slot];
        let is_good = connection.kind == Kind::Good;
        connection.asked.drain(..).filter(|_| is_good).for_each(|asked| tally.abandoned(asked, *now));
        connection.close();
    }

    /// Does the periodic work: timeouts, reopening connections, and the bytes of dripping ones.
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
        for slot in 0..self.connections.len() {
            let connection = &self.connections[slot];
            if connection.waits_since().is_some_and(|since| since + timeout <= self.now) {
                self.fail(slot, Failure::TimedOut);
            } else if connection.stream.is_none() {
                self.reopen(slot);
            } else if is_drip && connection.kind == Kind::Drip {
                self.drip(slot);
            }
        }
    }

    fn drip(&mut self, slot: usize) {
        let Self { connections, random, .. } = self;
        let connection = &mut connections[slot];
        match connection.drip(|| random.u8(0..3)) {
            Ok(None) => {}
            Ok(Some(aphorism)) => connection.asked.push_back(Asked::uncounted(self.now, aphorism)),
            Err(failure) => self.broken(slot, failure),
        }
    }

    /// Ends the measured time: questions that were not sent are missed, and clients that were never served are given
    /// up.
    pub(super) fn end_asking(&mut self) {
        self.stage = Stage::Waiting;
        self.tally.end(self.now);
        let Window { start, end } = self.tally.window();
        if let Some(schedule) = &mut self.schedule {
            while schedule.next_due() < end {
                schedule.advance();
            }
            for slot in 0..self.good {
                for round in self.connections[slot].round..schedule.rounds(slot) {
                    self.tally.missed(schedule.due(slot, round));
                }
            }
        }
        for slot in 0..self.good {
            let connection = &self.connections[slot];
            // It has waited for nearly all of the measured time, or failed, or has no connection to wait on.
            let is_stuck = connection.waits_since().is_some_and(|since| since <= start + (end - start) / 10);
            let is_out = !self.plan.churn && !connection.is_connected;
            let has_tries = self.plan.retries > 0 && !connection.asked.is_empty();
            if !connection.is_served && (is_stuck || !has_tries && (is_out || connection.has_failed)) {
                self.tally.unserved += 1;
                self.abandon(slot);
            }
        }
    }

    /// Returns when there is something to do even if no event arrives.
    pub(super) fn next_wake(&self) -> Nanos {
        let Window { start, end } = self.tally.window();
        let due = self.next_room().filter(|due| *due < end);
        let stage = match self.stage {
            Stage::Opening | Stage::WarmUp => start,
            Stage::Measuring => end + self.grace(),
            Stage::Waiting => Nanos::MAX,
        };
        self.next_tick.min(stage).min(due.unwrap_or(Nanos::MAX)).min(self.next_reopen().unwrap_or(Nanos::MAX))
    }

    /// Returns when a question of the open loop is due that can also be sent. Pending answers cause an event anyway.
    fn next_room(&self) -> Option<Nanos> {
        let schedule = self.schedule.as_ref()?;
        let mut last = None;
        for (slot, due) in schedule.upcoming().take(LOOKED_AHEAD) {
            last = Some(due);
            if self.connections[slot].asked.len() < self.plan.pipeline {
                return last;
            }
        }
        last.filter(|_| self.good > LOOKED_AHEAD)
    }

    /// Returns how long after the end a due question may still be sent.
    pub(super) fn grace(&self) -> Nanos {
        if self.schedule.is_some() { LATE } else { 0 }
    }

    /// Returns until when missing answers are waited for, if the measured time ends at `end`.
    pub(super) fn last_moment(&self, end: Nanos, shared: &Shared) -> Nanos {
        let tries = u64::from(self.plan.retries) + 1;
        let longest = (nanos(self.plan.timeout) + self.tick) * tries + nanos(pause::LONGEST) * (tries - 1);
        shared.stop.load(Ordering::Relaxed).min(end + longest)
    }

    /// Takes back the questions whose answers are not waited for any more.
    pub(super) fn give_up(&mut self) {
        (0..self.good).for_each(|slot| self.abandon(slot));
    }
}
