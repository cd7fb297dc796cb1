//! Connecting: every address of a name is tried.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use socket2::SockRef;

use crate::options::{Server, lacks_zone, without_brackets};

/// The addresses of one host, and the one to try first.
pub(crate) struct Addresses {
    port: u16,
    all: Vec<SocketAddr>,
    first: usize,
}

impl Addresses {
    /// Asks the resolver, and waits at most `timeout` for it (`None`: without limit). IPv6 addresses may be in
    /// brackets.
    pub(crate) fn resolve(server: &Server, timeout: Option<Duration>) -> Result<Self> {
        let (host, port) = (without_brackets(&server.host), server.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::new(port, vec![(address, port).into()]));
        }
        let name = host.to_owned();
        let look_up = move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let all = match timeout {
            Some(timeout) => within(timeout, look_up).with_context(|| {
                let timeout = humantime::format_duration(timeout);
                format!(
                    "no address of '{host}' was found within {timeout}: write the address, or try a longer --timeout"
                )
            })?,
            None => look_up(),
        };
        let all = all.with_context(|| unknown(host))?;
        ensure!(!all.is_empty(), "{}", unknown(host));
        Ok(Self::new(port, all))
    }

    /// Returns these addresses, at least one; `port` is the one that advice names.
    pub(crate) fn new(port: u16, all: Vec<SocketAddr>) -> Self {
        Self { port, all, first: 0 }
    }

    /// Returns every address, beginning with `first`.
    pub(crate) fn all_from(&self, first: SocketAddr) -> Vec<SocketAddr> {
        let begin = self.all.iter().position(|address| *address == first).unwrap_or(0);
        self.all.iter().cycle().skip(begin).take(self.all.len()).copied().collect()
    }

    /// Connects to the first address that accepts, waiting at most `timeout` for each (`None`: as long as the kernel
    /// does). The next call begins with the address after that one.
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

/// Runs `work` on a thread of its own, because nothing ends a call of the resolver. `None` after `timeout`.
fn within<T: Send + 'static>(timeout: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("resolver".into()).spawn(move || sender.send(work())).ok()?;
    receiver.recv_timeout(timeout).ok()
}

/// Makes one attempt at one address.
pub(crate) fn connect_to(address: SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let stream = match timeout {
        Some(timeout) => TcpStream::connect_timeout(&address, timeout)?,
        None => TcpStream::connect(address)?,
    };
    refuse_self(&stream, address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Refuses a connection from a socket to itself. TCP makes one where no server listens on `target` and the kernel
/// chooses the same port for the client.
pub(crate) fn refuse_self(stream: impl AsFd, target: SocketAddr) -> io::Result<()> {
    let stream = SockRef::from(&stream);
    let Some(local) = stream.local_addr()?.as_socket() else { return Ok(()) };
    // Connecting to 0.0.0.0 or :: connects to this machine.
    if local.port() != target.port() || local.ip() != target.ip() && !target.ip().is_unspecified() {
        return Ok(());
    }
    // A reset leaves no TIME_WAIT, which would keep the port from the server.
    stream.set_linger(Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// Reads what has arrived, or waits for it until `deadline`. 0 at end of file.
pub(crate) fn read_before(stream: &TcpStream, deadline: Option<Instant>, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(left)?;
        match (&*stream).read(chunk) {
            // A signal, or the timeout: the top of the loop finds out which.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            outcome => return outcome,
        }
    }
}

fn unknown(host: &str) -> String {
    format!("cannot find the address of '{host}': is it spelled right? (the port goes into --port)")
}

/// Returns what happened at each address, and what to do about it.
fn explain(refusals: &[(SocketAddr, io::Error)], port: u16) -> String {
    let mut text = String::new();
    for (address, error) in refusals {
        let separator = if text.is_empty() { "" } else { ", " };
        let what = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::TimedOut => "connection not accepted in time".to_owned(),
            _ => error.to_string(),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{what} by {address}");
    }
    let arguments = if port == 1060 { String::new() } else { format!(" -- -p {port}") };
    if let Some((address, _)) = refusals.iter().find(|(address, _)| lacks_zone(address)) {
        return format!("{text}: {} is link-local, append %INTERFACE", address.ip());
    }
    let is_any = |kind| refusals.iter().any(|(_, error)| error.kind() == kind);
    if is_any(io::ErrorKind::AddrNotAvailable) {
        format!("{text}: this machine's ports ran out; wait a minute, or widen the sysctl net.ipv4.ip_local_port_range")
    } else if is_any(io::ErrorKind::ConnectionRefused) {
        format!("{text}: is a server running there? start one with `cargo run -p zen-poll{arguments}`")
    } else {
        format!("{text}: is the host up, and not overloaded? try again, or wait longer with --timeout")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// Returns an address on which no server listens.
    fn unused() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_refused_address_is_followed_by_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let served = listener.local_addr().unwrap();
        let mut addresses = Addresses::new(1060, vec![unused(), served]);
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
        let all = vec![unused(), unused()];
        let error = Addresses::new(2000, all.clone()).connect(None).unwrap_err().to_string();
        let advice = "is a server running there? start one with `cargo run -p zen-poll -- -p 2000`";
        assert_eq!(error, format!("connection refused by {}, connection refused by {}: {advice}", all[0], all[1]));
    }

    #[test]
    fn a_connection_of_a_socket_to_itself_is_refused_and_its_port_free_again() {
        let localhosts = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        for host in localhosts.into_iter().filter(|host| TcpListener::bind((*host, 0)).is_ok()) {
            for target in
                [host, if host.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }]
            {
                let socket = Socket::new(Domain::for_address((host, 0).into()), Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
                let own = socket.local_addr().unwrap().as_socket().unwrap();
                socket.connect(&own.into()).unwrap();
                let refusal = refuse_self(&socket, (target, own.port()).into()).unwrap_err();
                assert_eq!(refusal.kind(), io::ErrorKind::ConnectionRefused, "{target}");
                drop(socket);
                // Unlike that of TcpListener, this bind fails while there is a TIME_WAIT.
                let server = Socket::new(Domain::for_address(own), Type::STREAM, None).unwrap();
                server.bind(&own.into()).unwrap();
            }
        }
    }

    #[test]
    fn another_end_is_no_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let stream = TcpStream::connect(target).unwrap();
        refuse_self(&stream, target).unwrap();
    }

    #[test]
    fn a_resolver_that_hangs_is_left_behind() {
        let start = Instant::now();
        assert_eq!(within(Duration::from_millis(50), || thread::sleep(Duration::from_secs(20))), None);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(within(Duration::from_secs(20), || 1), Some(1));
    }

    #[test]
    fn a_link_local_address_without_an_interface_is_explained() {
        let address: SocketAddr = "[fe80::1]:1060".parse().unwrap();
        let error = Addresses::new(1060, vec![address]).connect(None).unwrap_err().to_string();
        assert!(error.ends_with(" by [fe80::1]:1060: fe80::1 is link-local, append %INTERFACE"), "{error}");
    }
}
