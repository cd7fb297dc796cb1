//! Taking clients from the listener: what each error of accept() means, and when there are no more clients.

use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::connection::{Connection, reject};
use super::figures::{Figure, count};
use super::run::Server;
use super::socket_io::TICK;
use super::watchdog;

/// How long a server leaves the listener alone when it cannot have another descriptor, or memory.
pub const BACK_OFF: Duration = Duration::from_millis(100);

/// What came of one look at the listener, for servers that wait for readiness.
#[derive(Debug)]
pub enum Accepted {
    /// A client; its stream does not block.
    Client(TcpStream, Connection),
    /// A client left, or was rejected (rule 7): accept again.
    Next,
    /// No client waits.
    WouldBlock,
    /// No descriptor or memory can be had: accept again after [`BACK_OFF`].
    BackOff,
    /// The server accepts no more clients: close the listener, and return when the last connection is closed.
    Closed,
}

impl Server {
    /// Sleeps in accept() until a client comes. `None`: the server takes no more.
    ///
    /// Fewer clients than places are here: one over the limit is turned away (rule 7). When no descriptor can
    /// be had this sleeps for [`BACK_OFF`] and tries again.
    pub fn accept(&'static self) -> Option<(TcpStream, Connection)> {
        loop {
            watchdog::beat_now();
            match self.look(SocketFlags::empty()) {
                Accepted::Client(stream, connection) => return Some((stream, connection)),
                Accepted::Next | Accepted::WouldBlock => {}
                Accepted::BackOff => thread::sleep(BACK_OFF),
                Accepted::Closed => return None,
            }
        }
    }

    /// Takes a client from a listener that does not block.
    ///
    /// While the server drains, call this at least once in a [`TICK`]: the listener is kept until
    /// nobody has come for so long.
    pub fn try_accept(&'static self) -> Accepted {
        self.look(SocketFlags::NONBLOCK)
    }

    fn look(&'static self, flags: SocketFlags) -> Accepted {
        let only_client = self.only_client.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = only_client {
            let address = stream.peer_addr().ok();
            return self.welcome(stream, address);
        }
        let Some(listener) = self.listener() else { return Accepted::Closed };
        // As many as can have waited have come; or those who wait are left to the next who has the listener.
        if self.stop.is_requested() && (self.is_heir || self.arrivals().while_draining > self.backlog) {
            return self.no_more();
        }
        match acceptfrom_with(&*listener, flags | SocketFlags::CLOEXEC) {
            Ok((stream, address)) => self.welcome(stream.into(), address.and_then(|address| address.try_into().ok())),
            Err(errno) => self.judge(errno),
        }
    }

    fn welcome(&'static self, stream: TcpStream, address: Option<SocketAddr>) -> Accepted {
        let mut arrivals = self.arrivals();
        arrivals.while_draining += usize::from(self.stop.is_requested());
        arrivals.latest = Instant::now();
        drop(arrivals);
        count(Figure::Clients);
        // A client that left before it was accepted may have no address any more.
        let Some(address) = address else { return Accepted::Next };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if self.permits.take() {
            return Accepted::Client(stream, Connection::new(self, address));
        }
        log::info!("{address} rejected: {} clients are connected (--max-connections)", self.permits.limit());
        reject(&stream);
        Accepted::Next
    }

    fn judge(&'static self, errno: Errno) -> Accepted {
        match class(errno) {
            Class::Nobody if self.is_drained() => self.no_more(),
            Class::Nobody => Accepted::WouldBlock,
            Class::Next => {
                log::debug!("nobody was accepted: {errno}");
                Accepted::Next
            }
            Class::BackOff => {
                count(Figure::AcceptFailures);
                let mut arrivals = self.arrivals();
                if arrivals.complained.is_none_or(|complained| complained.elapsed() >= Duration::from_secs(1)) {
                    log::warn!("cannot accept a client now: {errno}");
                    arrivals.complained = Some(Instant::now());
                }
                Accepted::BackOff
            }
            Class::Dead => {
                self.stop.fail(anyhow!("the listener does not work any more ({errno}): start the server anew"));
                self.no_more()
            }
        }
    }

    /// Whether the server drains and nobody has come for a tick.
    fn is_drained(&self) -> bool {
        let latest = self.arrivals().latest;
        self.stop.requested_at().is_some_and(|requested_at| requested_at.max(latest).elapsed() >= TICK)
    }

    /// Lets go of the listener. It closes when no other thread (and no other process) has it any more.
    fn no_more(&self) -> Accepted {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        Accepted::Closed
    }
}

/// The three classes of accept errors, and EAGAIN.
#[derive(Debug, PartialEq)]
enum Class {
    Nobody,
    /// It happened to one client, or was a signal.
    Next,
    /// Something is used up for now.
    BackOff,
    /// It will never work again.
    Dead,
}

fn class(errno: Errno) -> Class {
    match errno {
        Errno::AGAIN => Class::Nobody,
        // accept(2): errors that are pending on the new connection come here on Linux.
        Errno::INTR
        | Errno::CONNABORTED
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::PERM
        | Errno::TIMEDOUT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET => Class::Next,
        Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT => Class::Dead,
        _ => Class::BackOff,
    }
}
