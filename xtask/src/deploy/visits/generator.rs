//! The visits of one load, all on one thread.
//!
//! 1. Visits that are due begin, late if the machine is busy.
//! 2. Alarms that are due are handled: a timeout, or the end of a pause before the next try.
//! 3. The thread sleeps until a connection is ready, or something is due.
//! 4. A new connection sends its question; an answer ends its visit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::{Behavior, Shared};
use crate::harness::client::{APHORISMS, refuse_self};

pub(super) struct Generator {
    address: SocketAddr,
    behavior: Behavior,
    shared: Arc<Shared>,
    poller: OwnedFd,
    /// The visits that are not over, by number.
    open: BTreeMap<u64, Visit>,
    /// Timers of visits: the time, the number of the visit, and the number of its try. A timer whose try is over is
    /// ignored.
    alarms: BinaryHeap<Reverse<(Instant, u64, u32)>>,
}

#[derive(Default)]
struct Visit {
    tries: u32,
    /// `None` between two tries.
    socket: Option<Socket>,
    has_asked: bool,
    got: Vec<u8>,
}

impl Generator {
    pub(super) fn new(address: SocketAddr, behavior: Behavior, shared: Arc<Shared>) -> Result<Generator> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot poll")?;
        Ok(Generator { address, behavior, shared, poller, open: BTreeMap::new(), alarms: BinaryHeap::new() })
    }

    /// Begins visits until the load is over and the last visit has ended.
    pub(super) fn run(mut self) -> Result<()> {
        let start = Instant::now();
        let mut number: u32 = 0;
        loop {
            let mut due = start + Duration::from_secs(1) * number / self.behavior.per_second;
            let is_over = self.shared.is_over.load(Ordering::Relaxed);
            while !is_over && due <= Instant::now() {
                self.shared.counts().visits += 1;
                self.open.insert(number.into(), Visit::default());
                self.try_once(number.into())?;
                number += 1;
                due = start + Duration::from_secs(1) * number / self.behavior.per_second;
            }
            self.alarms_due()?;
            if is_over && self.open.is_empty() {
                return Ok(());
            }
            ensure!(self.open.len() <= MOST, "{} visits are open, more than {MOST}", self.open.len());
            let alarm = self.alarms.peek().map(|Reverse((at, ..))| *at);
            let next = if is_over { alarm.unwrap_or(due) } else { alarm.unwrap_or(due).min(due) };
            self.sleep(next)?;
            let mut counts = self.shared.counts();
            counts.time = start.elapsed();
            counts.over = self.open.first_key_value().map_or(counts.visits, |(&first, _)| first as usize);
        }
    }

    /// Handles the timers that are due: timeouts of tries, and ends of pauses before the next try.
    fn alarms_due(&mut self) -> Result<()> {
        while let Some(&Reverse((at, number, tries))) = self.alarms.peek()
            && at <= Instant::now()
        {
            self.alarms.pop();
            match self.open.get(&number).filter(|visit| visit.tries == tries) {
                Some(Visit { socket: Some(_), .. }) => self.failed(number, ErrorKind::TimedOut)?,
                Some(_) => self.try_once(number)?,
                None => {}
            }
        }
        Ok(())
    }

    fn sleep(&mut self, until: Instant) -> Result<()> {
        // epoll_wait counts in milliseconds.
        let time = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let n = match epoll::wait(&self.poller, &mut events[..], Some(&time.try_into()?)) {
            Ok(n) => n,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error).context("cannot wait for answers"),
        };
        events[..n].iter().try_for_each(|event| self.ready(event.data.u64()))
    }

    /// Connects for the next try.
    fn try_once(&mut self, number: u64) -> Result<()> {
        let visit = self.open.get_mut(&number).context("no visit has this number")?;
        visit.tries += 1;
        self.alarms.push(Reverse((Instant::now() + self.behavior.timeout, number, visit.tries)));
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.poller, &socket, EventData::new_u64(number), flags)?;
        let connected = match (socket.connect(&self.address.into()), refuse_self(&socket, self.address)) {
            (connected, Ok(())) => connected,
            (_, refused) => refused,
        };
        *visit = Visit { tries: visit.tries, socket: Some(socket), ..Visit::default() };
        match connected {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                self.failed(number, error.kind())
            }
            // On loopback a connection is often complete by now, so its question is sent immediately.
            _ => self.ready(number),
        }
    }

    /// Handles a connection that is ready.
    fn ready(&mut self, number: u64) -> Result<()> {
        let (question, answer) = APHORISMS[number as usize % APHORISMS.len()];
        // The visit may be over by now.
        let Some(visit) = self.open.get_mut(&number) else { return Ok(()) };
        match visit.converse(question) {
            Ok(()) if visit.got == answer => {
                let is_retried = visit.tries > 1;
                self.open.remove(&number);
                let mut counts = self.shared.counts();
                counts.answers += 1;
                counts.retried += usize::from(is_retried);
                let now = Instant::now();
                let gap = counts.last_answer.replace(now).map(|last| now - last);
                counts.longest_gap = counts.longest_gap.max(gap.unwrap_or_default());
                Ok(())
            }
            Ok(()) if visit.got == b"Error: too many clients." => self.failed(number, ErrorKind::ConnectionRefused),
            Ok(()) => bail!("the answer was {}", visit.got.escape_ascii()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.failed(number, error.kind()),
        }
    }

    /// Handles a try that failed: the next one follows after a pause, or the visit is lost.
    fn failed(&mut self, number: u64, why: ErrorKind) -> Result<()> {
        let visit = self.open.get_mut(&number).context("no visit has this number")?;
        visit.socket = None;
        let mut counts = self.shared.counts();
        match why {
            ErrorKind::ConnectionRefused => counts.refused += 1,
            ErrorKind::UnexpectedEof => counts.ended += 1,
            ErrorKind::TimedOut => counts.stuck += 1,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => counts.reset += 1,
            other => bail!("a try failed for another reason: {other}"),
        }
        if visit.tries <= RETRIES {
            let pause = FIRST_PAUSE * 2u32.pow(visit.tries - 1);
            self.alarms.push(Reverse((Instant::now() + pause, number, visit.tries)));
        } else {
            counts.lost += 1;
            counts.retried += 1;
            self.open.remove(&number);
        }
        Ok(())
    }
}

impl Visit {
    /// Sends the question on a new connection, and reads the answer. `WouldBlock` until the answer is complete.
    fn converse(&mut self, question: &[u8]) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Err(ErrorKind::WouldBlock.into()) };
        if !self.has_asked {
            socket.take_error()?.map_or(Ok(()), Err)?;
            // The buffer of a new connection has room for it.
            socket.write_all(question)?;
            self.has_asked = true;
        }
        let mut chunk = [0; 64];
        while !self.got.ends_with(b".") {
            match socket.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.got.extend_from_slice(&chunk[..n]),
            }
        }
        Ok(())
    }
}

/// How many further tries a visit has.
const RETRIES: u32 = 8;

/// The pause before the second try, doubled for each further one. Together they take 5 s: more than a server needs to
/// start, or a balancer to find a dead one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The largest number of open visits: those of eight seconds without an answer, at a thousand visits a second.
const MOST: usize = 8000;
