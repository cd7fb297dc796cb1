//! Connecting: every address of a name is tried.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::options::Server;

/// The addresses of one host, and which is tried first.
pub(crate) struct Addresses {
    port: u16,
    all: Vec<SocketAddr>,
    first: usize,
}

impl Addresses {
    /// Asks the resolver. IPv6 addresses may stand in brackets.
    pub(crate) fn resolve(server: &Server) -> Result<Self> {
        let host = server.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&server.host);
        let all: Vec<_> = (host, server.port).to_socket_addrs().with_context(|| unknown(host))?.collect();
        ensure!(!all.is_empty(), "{}", unknown(host));
        Ok(Self::new(server.port, all))
    }

    /// These addresses, one at least; `port` is what advice names.
    pub(crate) fn new(port: u16, all: Vec<SocketAddr>) -> Self {
        Self { port, all, first: 0 }
    }

    /// Every address, beginning with `first`.
    pub(crate) fn all_from(&self, first: SocketAddr) -> Vec<SocketAddr> {
        let begin = self.all.iter().position(|address| *address == first).unwrap_or(0);
        self.all.iter().cycle().skip(begin).take(self.all.len()).copied().collect()
    }

    /// Connects to the first address that lets us, waiting at most `timeout` for each (`None`: as long
    /// as the kernel does). The next call begins with the address after the one that worked.
    pub(crate) fn connect(&mut self, timeout: Option<Duration>) -> Result<(TcpStream, SocketAddr)> {
        let mut refusals = Vec::new();
        for turn in 0..self.all.len() {
            let index = (self.first + turn) % self.all.len();
            match connect_to(self.all[index], timeout) {
                Ok(stream) => {
                    self.first = (index + 1) % self.all.len();
                    return Ok((stream, self.all[index]));
                }
                Err(error) => refusals.push((self.all[index], error)),
            }
        }
        Err(anyhow!(explain(&refusals, self.port)))
    }
}

/// One attempt at one address.
fn connect_to(address: SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let stream = match timeout {
        Some(timeout) => TcpStream::connect_timeout(&address, timeout)?,
        None => TcpStream::connect(address)?,
    };
    // Where nobody listens on a port that the kernel also hands out, TCP can connect a socket to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unknown(host: &str) -> String {
    format!("cannot find the address of '{host}': is it spelled right? (the port goes into --port)")
}

/// What happened at each address, and what to do about it.
fn explain(refusals: &[(SocketAddr, io::Error)], port: u16) -> String {
    let mut text = String::new();
    for (address, error) in refusals {
        let separator = if text.is_empty() { "" } else { ", " };
        let what = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::TimedOut => "no connection in time".to_owned(),
            _ => error.to_string(),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{what} by {address}");
    }
    let arguments = if port == 1060 { String::new() } else { format!(" -- -p {port}") };
    let is_any = |kind| refusals.iter().any(|(_, error)| error.kind() == kind);
    if is_any(io::ErrorKind::AddrNotAvailable) {
        format!("{text}: this machine's ports ran out; wait a minute, or widen the sysctl net.ipv4.ip_local_port_range")
    } else if is_any(io::ErrorKind::ConnectionRefused) {
        format!("{text}: is a server running there? start one with `cargo run -p zen-poll{arguments}`")
    } else {
        format!("{text}: is the host up, and the server not overrun? try again, or wait longer with --timeout")
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An address where nobody listens.
    fn deserted() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_refused_address_is_followed_by_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let served = listener.local_addr().unwrap();
        let mut addresses = Addresses::new(1060, vec![deserted(), served]);
        for _ in 0..3 {
            let (_, address) = addresses.connect(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(address, served);
        }
    }

    #[test]
    fn after_a_success_the_next_address_comes_first() {
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let all: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let mut addresses = Addresses::new(1060, all.clone());
        for expected in [all[0], all[1], all[0]] {
            assert_eq!(addresses.connect(None).unwrap().1, expected);
        }
    }

    #[test]
    fn the_error_names_every_address_and_says_what_to_do() {
        let all = vec![deserted(), deserted()];
        let error = Addresses::new(2000, all.clone()).connect(None).unwrap_err().to_string();
        let advice = "is a server running there? start one with `cargo run -p zen-poll -- -p 2000`";
        assert_eq!(error, format!("connection refused by {}, connection refused by {}: {advice}", all[0], all[1]));
    }
}
