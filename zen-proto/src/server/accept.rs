//! Accepting clients: how each error of accept(2) is handled, and when the listener is closed.

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

/// The result of an attempt to accept a client, for servers that wait for readiness.
#[derive(Debug)]
pub enum Accepted {
    /// A client with a non-blocking stream.
    Client(TcpStream, Connection),
    /// There is no client to serve: the accepted one has disconnected, or is over the limit (rule 7), or accept(2) was
    /// interrupted or failed. Try again immediately.
    Next,
    /// The backlog is empty.
    WouldBlock,
    /// Try again after this pause, and serve the existing clients in the meantime. Either no client can be accepted
    /// now, or clients over the limit are about to be rejected.
    Later(Duration),
    /// The server accepts no more clients. Drop the listener, and return when the last connection is closed.
    Closed,
}

impl Server {
    /// Sleeps in accept(2) until a client connects. Returns `None` when no more clients are accepted.
    ///
    /// accept(2) returns at least once in a [`TICK`], so that a drain is noticed. Clients over the limit are rejected
    /// (rule 7). When no client can be accepted, this waits and tries again.
    pub fn accept(&'static self) -> Option<(TcpStream, Connection)> {
        loop {
            watchdog::beat_now();
            match self.accept_once(SocketFlags::empty()) {
                Accepted::Client(stream, connection) => return Some((stream, connection)),
                Accepted::Next | Accepted::WouldBlock => {}
                Accepted::Later(pause) => thread::sleep(pause),
                Accepted::Closed => return None,
            }
        }
    }

    /// Accepts a client from a non-blocking listener.
    ///
    /// While the server drains, call this at least once in a [`TICK`]. The listener stays open until no client has
    /// connected for that time.
    pub fn try_accept(&'static self) -> Accepted {
        self.accept_once(SocketFlags::NONBLOCK)
    }

    /// Accepts a client from a non-blocking listener of the caller's own, as [`try_accept`](Self::try_accept) does.
    pub fn try_accept_from(&'static self, listener: impl AsFd) -> Accepted {
        self.accept_from(listener, SocketFlags::NONBLOCK)
    }

    /// Registers a client that was accepted in another way, for example by io_uring.
    ///
    /// `Next` means that the client is over the limit, or has already disconnected. Then call
    /// [`try_accept`](Self::try_accept) after a few milliseconds: it serves the client if there is a permit by then,
    /// and rejects it otherwise. The result may be another client that has waited in this way.
    pub fn admit(&'static self, stream: TcpStream) -> Accepted {
        let address = stream.peer_addr().ok();
        match self.register(stream, address) {
            Accepted::Next if !self.excess().has_room() => self.serve_or_reject(),
            accepted => accepted,
        }
    }

    fn accept_once(&'static self, flags: SocketFlags) -> Accepted {
        let only_client = self.only_client.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = only_client {
            let address = stream.peer_addr().ok();
            return self.register(stream, address);
        }
        let Some(listener) = self.listener() else { return Accepted::Closed };
        self.accept_from(&*listener, flags)
    }

    fn accept_from(&'static self, listener: impl AsFd, flags: SocketFlags) -> Accepted {
        let left = self.excess().left(Instant::now());
        match left {
            Some(Duration::ZERO) => return self.serve_or_reject(),
            Some(left) if self.stop.is_requested() || !is_readable(&listener) => return Accepted::Later(left),
            // Too many wait for a decision: the oldest is served or rejected now, so that further ones can be accepted.
            Some(_) if !self.excess().has_room() => return self.serve_or_reject(),
            _ => {}
        }
        if let Some(requested_at) = self.stop.requested_at() {
            if self.leaves_backlog() {
                // Ctrl-C signals the parent and its workers at the same time. Until the parent shuts down the channel,
                // this worker cannot know that the others drain, too. So it waits a tick before it leaves the backlog
                // to them.
                let left = TICK.saturating_sub(requested_at.elapsed()).min(BACK_OFF);
                return if self.is_inherited || left.is_zero() { self.close_listener() } else { Accepted::Later(left) };
            }
            // Every client that was in the backlog has been accepted.
            if self.arrivals().while_draining > self.backlog {
                return self.close_listener();
            }
        }
        match acceptfrom_with(&listener, flags | SocketFlags::CLOEXEC) {
            Ok((stream, address)) => self.register(stream.into(), address.and_then(|address| address.try_into().ok())),
            Err(Errno::AGAIN) => left.map_or_else(|| self.handle_error(Errno::AGAIN), Accepted::Later),
            Err(errno) => self.handle_error(errno),
        }
    }

    fn register(&'static self, stream: TcpStream, address: Option<SocketAddr>) -> Accepted {
        let mut arrivals = self.arrivals();
        arrivals.while_draining += usize::from(self.stop.is_requested());
        arrivals.latest = Instant::now();
        arrivals.failures = 0;
        drop(arrivals);
        // A client that has already disconnected may have no address.
        let Some(address) = address else { return Accepted::Next };
        let address = with_canonical_ip(address);
        // Clients over the limit that were accepted earlier come first.
        let is_first = self.excess().clients.is_empty();
        if is_first && self.permits.take() {
            return Accepted::Client(stream, Connection::new(self, address));
        }
        self.excess().add(stream, address, Instant::now());
        Accepted::Next
    }

    /// Serves the oldest client over the limit if there is a permit now, and rejects it otherwise (rule 7).
    fn serve_or_reject(&'static self) -> Accepted {
        let Some((stream, address)) = self.excess().clients.pop_front() else { return Accepted::Next };
        if self.permits.take() {
            return Accepted::Client(stream, Connection::new(self, address));
        }
        log::info!("{address} rejected: {} clients are connected ({})", self.permits.limit(), self.permits.flag());
        reject(&stream);
        Accepted::Next
    }

    fn handle_error(&'static self, errno: Errno) -> Accepted {
        match class(errno) {
            Class::Interrupted => Accepted::Next,
            Class::Empty | Class::Next | Class::BackOff if self.is_drained() => self.close_listener(),
            Class::Empty => Accepted::WouldBlock,
            Class::Next if self.record_failure(errno) < MAX_FAILURES => Accepted::Next,
            Class::Next => Accepted::Later(BACK_OFF),
            Class::BackOff => {
                self.record_failure(errno);
                Accepted::Later(BACK_OFF)
            }
            Class::Fatal => {
                count(Counter::AcceptErrors);
                self.stop.fail(anyhow!("the listener does not work any more ({errno}): restart the server"));
                self.close_listener()
            }
        }
    }

    /// Counts a failure of accept(2), and logs at most one per second. Returns the number since the last success.
    fn record_failure(&self, errno: Errno) -> u32 {
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

    /// Drops the listener after the last client over the limit has been served or rejected. The kernel closes it when
    /// no other thread or process has it.
    fn close_listener(&'static self) -> Accepted {
        if !self.excess().clients.is_empty() {
            return self.serve_or_reject();
        }
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        Accepted::Closed
    }
}

/// Returns whether a client is in the backlog.
fn is_readable(listener: impl AsFd) -> bool {
    poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
}

/// After this many failures of accept(2) in a row, the cause is probably not the clients: the server then pauses before
/// each retry.
const MAX_FAILURES: u32 = 64;

/// Classes of errno values after accept(2).
#[derive(Debug, PartialEq)]
enum Class {
    /// The backlog is empty.
    Empty,
    Interrupted,
    /// An error of one client's connection.
    Next,
    /// A resource is exhausted, which may change.
    BackOff,
    /// The listener is unusable.
    Fatal,
}

fn class(errno: Errno) -> Class {
    match errno {
        Errno::AGAIN => Class::Empty,
        Errno::INTR => Class::Interrupted,
        // On Linux, accept(2) also returns errors that are pending on the new connection.
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
        Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::FAULT => Class::Fatal,
        _ => Class::BackOff,
    }
}
