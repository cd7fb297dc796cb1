//! Taking clients from the listener: what each error of accept() means, and when there are no more clients.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::addresses::with_canonical_ip;
use super::connection::{Connection, reject};
use super::constants::{BACK_OFF, TICK};
use super::counters::{Counter, count};
use super::shared::Server;
use super::watchdog;

/// What came of one look at the listener, for servers that wait for readiness.
#[derive(Debug)]
pub enum Accepted {
    /// A client; its stream does not block.
    Client(TcpStream, Connection),
    /// A client left, or was rejected (rule 7): accept again.
    Next,
    /// No client waits.
    WouldBlock,
    /// Accept again after this pause, in which the existing clients are served: no client can be accepted now, or
    /// clients over the limit are about to be rejected.
    Later(Duration),
    /// The server accepts no more clients: close the listener, and return when the last connection is closed.
    Closed,
}

impl Server {
    /// Sleeps in accept(2) until a client comes, a tick at a time. `None`: no more clients are accepted.
    ///
    /// A client over the limit is rejected here (rule 7). When no client can be accepted now, this sleeps and tries
    /// again.
    pub fn accept(&'static self) -> Option<(TcpStream, Connection)> {
        loop {
            watchdog::beat_now();
            match self.look(SocketFlags::empty()) {
                Accepted::Client(stream, connection) => return Some((stream, connection)),
                Accepted::Next | Accepted::WouldBlock => {}
                Accepted::Later(pause) => thread::sleep(pause),
                Accepted::Closed => return None,
            }
        }
    }

    /// Takes a client from a listener that does not block.
    ///
    /// While the server drains, call this at least once in a [`TICK`]: the listener is kept until
    /// that time passes without a connection.
    pub fn try_accept(&'static self) -> Accepted {
        self.look(SocketFlags::NONBLOCK)
    }

    /// Takes a client that was accepted by other means, such as a request to the kernel.
    pub fn admit(&'static self, stream: TcpStream) -> Accepted {
        let address = stream.peer_addr().ok();
        self.register(stream, address)
    }

    fn look(&'static self, flags: SocketFlags) -> Accepted {
        let only_client = self.only_client.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = only_client {
            let address = stream.peer_addr().ok();
            return self.register(stream, address);
        }
        let Some(listener) = self.listener() else { return Accepted::Closed };
        let left = self.excess().left(Instant::now());
        match left {
            Some(Duration::ZERO) => return self.decide(),
            Some(left) if self.stop.is_requested() || !is_readable(&*listener) => return Accepted::Later(left),
            // A flood: the oldest is decided now, or the next would not even be connected.
            Some(_) if !self.excess().has_room() => return self.decide(),
            _ => {}
        }
        if let Some(requested_at) = self.stop.requested_at() {
            if self.leaves_backlog() {
                // A signal to the whole group may reach this worker before its parent says that all drain.
                let left = TICK.saturating_sub(requested_at.elapsed()).min(BACK_OFF);
                return if self.is_inherited || left.is_zero() { self.no_more() } else { Accepted::Later(left) };
            }
            // All that can have waited were accepted.
            if self.arrivals().while_draining > self.backlog {
                return self.no_more();
            }
        }
        match acceptfrom_with(&*listener, flags | SocketFlags::CLOEXEC) {
            Ok((stream, address)) => self.register(stream.into(), address.and_then(|address| address.try_into().ok())),
            Err(Errno::AGAIN) => left.map_or_else(|| self.judge(Errno::AGAIN), Accepted::Later),
            Err(errno) => self.judge(errno),
        }
    }

    fn register(&'static self, stream: TcpStream, address: Option<SocketAddr>) -> Accepted {
        let mut arrivals = self.arrivals();
        arrivals.while_draining += usize::from(self.stop.is_requested());
        arrivals.latest = Instant::now();
        arrivals.failures = 0;
        drop(arrivals);
        // A client that left before it was accepted may have no address any more.
        let Some(address) = address else { return Accepted::Next };
        let address = with_canonical_ip(address);
        // Those who came before it are first.
        let has_turn = self.excess().clients.is_empty();
        if has_turn && self.permits.take() {
            return Accepted::Client(stream, Connection::new(self, address));
        }
        self.excess().add(stream, address, Instant::now());
        Accepted::Next
    }

    /// Serves the first of those over the limit if a place is free by now, or rejects it (rule 7).
    fn decide(&'static self) -> Accepted {
        let Some((stream, address)) = self.excess().clients.pop_front() else { return Accepted::Next };
        if self.permits.take() {
            return Accepted::Client(stream, Connection::new(self, address));
        }
        log::info!("{address} rejected: {} clients are connected (--max-connections)", self.permits.limit());
        reject(&stream);
        Accepted::Next
    }

    fn judge(&'static self, errno: Errno) -> Accepted {
        match class(errno) {
            Class::Interrupted => Accepted::Next,
            Class::Empty | Class::Next | Class::BackOff if self.is_drained() => self.no_more(),
            Class::Empty => Accepted::WouldBlock,
            Class::Next if self.failed(errno) < MOST_FAILURES => Accepted::Next,
            Class::Next => Accepted::Later(BACK_OFF),
            Class::BackOff => {
                self.failed(errno);
                Accepted::Later(BACK_OFF)
            }
            Class::Dead => {
                count(Counter::AcceptErrors);
                self.stop.fail(anyhow!("the listener does not work any more ({errno}): restart the server"));
                self.no_more()
            }
        }
    }

    /// Counts a failure of accept(), and logs one a second. How many there have been since the last success.
    fn failed(&self, errno: Errno) -> u32 {
        count(Counter::AcceptErrors);
        let mut arrivals = self.arrivals();
        if arrivals.last_logged.is_none_or(|last_logged| last_logged.elapsed() >= Duration::from_secs(1)) {
            log::warn!("cannot accept a client now: {errno}");
            arrivals.last_logged = Some(Instant::now());
        }
        arrivals.failures = arrivals.failures.saturating_add(1);
        arrivals.failures
    }

    /// Returns whether the server drains and no client has connected for a tick.
    fn is_drained(&self) -> bool {
        let latest = self.arrivals().latest;
        self.stop.requested_at().is_some_and(|requested_at| requested_at.max(latest).elapsed() >= TICK)
    }

    /// Drops the listener, once the clients over the limit are decided. It closes when no other thread (and no
    /// other process) has it any more.
    fn no_more(&'static self) -> Accepted {
        if !self.excess().clients.is_empty() {
            return self.decide();
        }
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        Accepted::Closed
    }
}

/// Whether a client waits to be accepted.
fn is_readable(listener: impl AsFd) -> bool {
    poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
}

/// Failures in a row of accept(), each of one client, after which it is not the clients any more.
const MOST_FAILURES: u32 = 64;

/// The three classes of accept errors, and what is none.
#[derive(Debug, PartialEq)]
enum Class {
    Empty,
    Interrupted,
    /// It happened to one client.
    Next,
    /// Something is used up for now.
    BackOff,
    /// It will never work again.
    Dead,
}

fn class(errno: Errno) -> Class {
    match errno {
        Errno::AGAIN => Class::Empty,
        Errno::INTR => Class::Interrupted,
        // accept(2): errors that are pending on the new connection come here on Linux.
        Errno::CONNABORTED
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::PERM
        | Errno::TIMEDOUT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET
        | Errno::OPNOTSUPP
        | Errno::CONNRESET => Class::Next,
        Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::FAULT => Class::Dead,
        _ => Class::BackOff,
    }
}
