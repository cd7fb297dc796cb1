//! The visitors of one service, all on one thread.
//!
//! 1. Whoever is due comes, late if the machine is busy.
//! 2. Alarms ring: for who has waited in vain for as long as he has timeout, and for who comes back after a pause.
//! 3. The thread sleeps until a connection has news, or somebody is due.
//! 4. A connection that is there is asked; an answer that is there is taken, and its visitor leaves.

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

pub(super) struct Crowd {
    address: SocketAddr,
    behavior: Behavior,
    shared: Arc<Shared>,
    poller: OwnedFd,
    /// Who is here, by number.
    here: BTreeMap<u64, Visitor>,
    /// When somebody is to be looked at again, unless that try is over by then: the time, the number, and which try.
    alarms: BinaryHeap<Reverse<(Instant, u64, u32)>>,
}

#[derive(Default)]
struct Visitor {
    tries: u32,
    /// `None` between two tries.
    socket: Option<Socket>,
    has_asked: bool,
    got: Vec<u8>,
}

impl Crowd {
    pub(super) fn new(address: SocketAddr, behavior: Behavior, shared: Arc<Shared>) -> Result<Crowd> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot poll")?;
        Ok(Crowd { address, behavior, shared, poller, here: BTreeMap::new(), alarms: BinaryHeap::new() })
    }

    /// Lets them come until it is over, and the last has left.
    pub(super) fn come(mut self) -> Result<()> {
        let start = Instant::now();
        let mut number: u32 = 0;
        loop {
            let mut due = start + Duration::from_secs(1) * number / self.behavior.a_second;
            let is_over = self.shared.is_over.load(Ordering::Relaxed);
            while !is_over && due <= Instant::now() {
                self.shared.counts().visits += 1;
                self.here.insert(number.into(), Visitor::default());
                self.try_once(number.into())?;
                number += 1;
                due = start + Duration::from_secs(1) * number / self.behavior.a_second;
            }
            self.ring()?;
            if is_over && self.here.is_empty() {
                return Ok(());
            }
            ensure!(self.here.len() <= MOST, "{} visitors are here, and none leaves", self.here.len());
            let alarm = self.alarms.peek().map(|Reverse((at, ..))| *at);
            let next = if is_over { alarm.unwrap_or(due) } else { alarm.unwrap_or(due).min(due) };
            self.sleep(next)?;
            let mut counts = self.shared.counts();
            counts.time = start.elapsed();
            counts.left = self.here.first_key_value().map_or(counts.visits, |(&first, _)| first as usize);
        }
    }

    /// Those who wait too long, and those who come back.
    fn ring(&mut self) -> Result<()> {
        while let Some(&Reverse((at, number, tries))) = self.alarms.peek()
            && at <= Instant::now()
        {
            self.alarms.pop();
            match self.here.get(&number).filter(|visitor| visitor.tries == tries) {
                Some(Visitor { socket: Some(_), .. }) => self.failed(number, ErrorKind::TimedOut)?,
                Some(_) => self.try_once(number)?,
                None => {}
            }
        }
        Ok(())
    }

    fn sleep(&mut self, until: Instant) -> Result<()> {
        // The kernel counts in milliseconds.
        let time = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let n = match epoll::wait(&self.poller, &mut events[..], Some(&time.try_into()?)) {
            Ok(n) => n,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error).context("cannot wait for answers"),
        };
        events[..n].iter().try_for_each(|event| self.look(event.data.u64()))
    }

    /// A new connection.
    fn try_once(&mut self, number: u64) -> Result<()> {
        let visitor = self.here.get_mut(&number).context("nobody has this number")?;
        visitor.tries += 1;
        self.alarms.push(Reverse((Instant::now() + self.behavior.timeout, number, visitor.tries)));
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.poller, &socket, EventData::new_u64(number), flags)?;
        let connected = match (socket.connect(&self.address.into()), refuse_self(&socket, self.address)) {
            (connected, Ok(())) => connected,
            (_, refused) => refused,
        };
        *visitor = Visitor { tries: visitor.tries, socket: Some(socket), ..Visitor::default() };
        match connected {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                self.failed(number, error.kind())
            }
            // Between processes of one machine it is there already, and asks at once, as a client does.
            _ => self.look(number),
        }
    }

    /// The connection has news.
    fn look(&mut self, number: u64) -> Result<()> {
        let (question, answer) = APHORISMS[number as usize % APHORISMS.len()];
        // One who has left already may have had news as well.
        let Some(visitor) = self.here.get_mut(&number) else { return Ok(()) };
        match visitor.converse(question) {
            Ok(()) if visitor.got == answer => {
                let is_retried = visitor.tries > 1;
                self.here.remove(&number);
                let mut counts = self.shared.counts();
                counts.answers += 1;
                counts.retried += usize::from(is_retried);
                let now = Instant::now();
                let gap = counts.last_answer.replace(now).map(|last| now - last);
                counts.longest_gap = counts.longest_gap.max(gap.unwrap_or_default());
                Ok(())
            }
            Ok(()) if visitor.got == b"Error: too many clients." => self.failed(number, ErrorKind::ConnectionRefused),
            Ok(()) => bail!("the answer was {}", visitor.got.escape_ascii()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.failed(number, error.kind()),
        }
    }

    /// A try was in vain: the visitor comes back after a pause, or gives up.
    fn failed(&mut self, number: u64, why: ErrorKind) -> Result<()> {
        let visitor = self.here.get_mut(&number).context("nobody has this number")?;
        visitor.socket = None;
        let mut counts = self.shared.counts();
        match why {
            ErrorKind::ConnectionRefused => counts.refused += 1,
            ErrorKind::UnexpectedEof => counts.ended += 1,
            ErrorKind::TimedOut => counts.stuck += 1,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => counts.reset += 1,
            other => bail!("a try failed for another reason: {other}"),
        }
        if visitor.tries <= RETRIES {
            let pause = FIRST_PAUSE * 2u32.pow(visitor.tries - 1);
            self.alarms.push(Reverse((Instant::now() + pause, number, visitor.tries)));
        } else {
            counts.lost += 1;
            counts.retried += 1;
            self.here.remove(&number);
        }
        Ok(())
    }
}

impl Visitor {
    /// Asks as soon as the connection is there, and takes what has come: a whole answer, or it would block.
    fn converse(&mut self, question: &[u8]) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Err(ErrorKind::WouldBlock.into()) };
        if !self.has_asked {
            socket.take_error()?.map_or(Ok(()), Err)?;
            // A new connection has room for more than this.
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

/// How often a visitor tries again.
const RETRIES: u32 = 8;

/// Before the second try; doubled for each further one. All take 5 s: more than a server needs to start, or a balancer
/// to find that one has gone.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Of a thousand a second so many are here after eight seconds in which nobody was answered.
const MOST: usize = 8000;
