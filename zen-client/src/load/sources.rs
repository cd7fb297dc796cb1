//! The source addresses of connections, and the descriptor limit of this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::connect::refuse_self;

/// The addresses of this machine from which connections are opened. From one address to one server there are at most as
/// many connections as ports, some 28,000. On loopback there are more, because all of 127.0.0.0/8 is this machine.
pub(super) struct Sources {
    /// 0: the kernel chooses; `n`: 127.0.0.`n + 1`.
    current: u8,
    /// The number of kept connections of the current address.
    kept: usize,
    /// The number of connections that one address keeps before the next one is used.
    share: usize,
}

/// The number of further source addresses on loopback.
const OTHERS: u8 = 250;
/// The most connections from one address: it leaves ports to other programs, and the kernel finds a free one quickly.
const KEPT_FROM_ONE: usize = 10_000;

impl Sources {
    /// Returns the sources of one of `threads` threads.
    pub(super) fn new(threads: usize) -> Self {
        Self { current: 0, kept: 0, share: (KEPT_FROM_ONE / threads).max(1) }
    }

    /// Begins to connect to `target`. `is_kept`: the connection stays for the whole run.
    pub(super) fn open(&mut self, target: SocketAddr, is_kept: bool) -> Result<OwnedFd, Errno> {
        let has_others = is_ipv4_loopback(target);
        if is_kept && self.kept >= self.share && has_others {
            self.use_next_address();
        }
        for _ in 0..=OTHERS {
            match self.open_from_current(target) {
                // The errors of bind and connect when all ports are taken.
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if has_others => self.use_next_address(),
                outcome => {
                    self.kept += usize::from(is_kept);
                    return outcome;
                }
            }
        }
        Err(Errno::ADDRNOTAVAIL)
    }

    fn open_from_current(&self, target: SocketAddr) -> Result<OwnedFd, Errno> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = socket_with(family, SocketType::STREAM, flags, None)?;
        if self.current > 0 && is_ipv4_loopback(target) {
            bind(&stream, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, self.current + 1), 0)))?;
        }
        match connect(&stream, &target) {
            // A connection to itself is complete by now, and would answer each question with the question.
            Ok(()) | Err(Errno::INPROGRESS) => match refuse_self(&stream, target) {
                Ok(()) => Ok(stream),
                Err(_) => Err(Errno::CONNREFUSED),
            },
            Err(error) => Err(error),
        }
    }

    fn use_next_address(&mut self) {
        self.current = (self.current + 1) % (OTHERS + 1);
        self.kept = 0;
    }
}

fn is_ipv4_loopback(target: SocketAddr) -> bool {
    matches!(target.ip(), IpAddr::V4(address) if address.is_loopback())
}

/// Descriptors that are no connections: stdio, pollers, alarms, and a reserve.
const RESERVED: u64 = 64;

/// Raises this process's descriptor limit to what `connections` and `threads` need.
pub(super) fn raise_descriptor_limit(connections: usize, threads: usize) -> Result<()> {
    let needed = connections as u64 + 2 * threads as u64 + RESERVED;
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if is_enough(limit.current) {
        return Ok(());
    }
    if is_enough(limit.maximum) {
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        return setrlimit(Resource::Nofile, raised).context("cannot raise the descriptor limit");
    }
    // Root may raise the hard limit as well.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: Some(needed) });
    let hard = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        raised.is_ok(),
        "{connections} connections need {needed} descriptors, and the limit is {hard}: raise it with `ulimit -Hn \
         {needed}` as root, or ask for fewer with -c and --idle"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use rustix::net::getsockname;

    use super::*;

    #[test]
    fn on_loopback_many_connections_come_from_several_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let mut sources = Sources::new(KEPT_FROM_ONE / 2);
        let mut addresses = Vec::new();
        for _ in 0..6 {
            let stream = sources.open(target, true).unwrap();
            addresses.push(SocketAddr::try_from(getsockname(&stream).unwrap()).unwrap().ip().to_string());
        }
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]);
        let churned = sources.open(target, false).unwrap();
        assert_eq!(SocketAddr::try_from(getsockname(&churned).unwrap()).unwrap().ip().to_string(), "127.0.0.3");
    }

    #[test]
    fn a_connection_to_itself_is_refused() {
        // Nothing listens on either port of the pair. Usually the kernel gives clients the even ones first.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let targets = [port, port ^ 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut sources = Sources::new(1);
        let start = Instant::now();
        // One of some 14,000 tries connects to itself. The others are refused later, because nothing listens.
        let mut outcomes = targets.iter().cycle().map(|target| sources.open(*target, false));
        let refusal = outcomes.find_map(|outcome| {
            assert!(start.elapsed() < Duration::from_secs(50), "no connection to itself was refused");
            outcome.err()
        });
        assert_eq!(refusal, Some(Errno::CONNREFUSED));
    }
}
