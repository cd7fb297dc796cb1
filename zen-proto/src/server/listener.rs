//! The listener, opened by this process or inherited, and its socket options.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, SockRef, Socket, Type};

use super::addresses::{lacks_interface, resolve};
use super::constants::TICK;
use super::inherited_fds;
use super::options::{Inetd, Options};

/// The way in which a server waits for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It sleeps in accept(), recv() and send(), each for at most a [`super::TICK`].
    InCalls,
    /// Its descriptors are non-blocking, and it waits until one is ready.
    ForReadiness {
        /// The number of pollers.
        pollers: usize,
    },
}

/// The default address of the listener.
const HOST: &str = "127.0.0.1";

/// The port of the book's servers.
const PORT: u16 = 1060;

/// The send buffer of a connection in bytes. The kernel doubles this number.
const SEND_BUFFER: usize = 64 * 1024;

/// Opens the listener, or takes an inherited one.
pub(super) fn open(options: &Options) -> Result<Socket> {
    if options.worker || options.inetd == Some(Inetd::Wait) {
        inherited_fds::stdin_as_listener()
    } else if inherited_fds::has_listen_fds() {
        inherited_fds::listen_fds()
    } else {
        bind(options.host.as_deref().unwrap_or(HOST), options.port.unwrap_or(PORT), options.backlog)
    }
}

/// Describes the size of the backlog for the log, even if the kernel's limit is unknown.
pub(super) fn backlog(options: &Options, is_inherited: bool) -> String {
    match somaxconn() {
        _ if is_inherited || options.inetd.is_some() => "no backlog of its own".to_owned(),
        Some(most) => format!("backlog {}", options.backlog.min(most)),
        None => format!("backlog {} or less", options.backlog),
    }
}

/// Returns the kernel's limit of every backlog in this network namespace.
fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Sets the options that accepted sockets inherit, so that a client costs no further system calls. Also sets or clears
/// O_NONBLOCK of the listener. It is not changed later, because all processes that share the listener share the flag.
pub(super) fn configure(socket: SockRef<'_>, waiting: Waiting) -> Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if waiting == Waiting::InCalls {
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(TICK))?;
    }
    socket.set_nonblocking(waiting != Waiting::InCalls)?;
    Ok(())
}

fn bind(host: &str, port: u16, backlog: u32) -> Result<Socket> {
    let addresses = resolve(host, port)?;
    let mut failure = None;
    for address in &addresses {
        match bind_address(*address, host.is_empty(), backlog) {
            Ok(socket) => {
                warn_if_other_addresses(host, *address, &addresses);
                warn_if_backlog_is_limited(backlog);
                return Ok(socket);
            }
            Err(error) => {
                // HOST '' means both families on one port. IPv4 alone is used only if the machine has no IPv6.
                let is_final = host.is_empty() && !lacks_family(&error);
                failure = failure.or(Some((*address, error)));
                if is_final {
                    break;
                }
            }
        }
    }
    let (address, error) = failure.with_context(|| format!("{host} has no address: use another HOST"))?;
    Err(anyhow!("cannot listen on {address}: {}", advice(address, &error)))
}

fn bind_address(address: SocketAddr, serves_both_families: bool, backlog: u32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!serves_both_families)?;
    }
    // Without this a restart fails for a minute, because of connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

fn lacks_family(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn warn_if_other_addresses(host: &str, served: SocketAddr, addresses: &[SocketAddr]) {
    let others: Vec<_> =
        addresses.iter().filter(|other| **other != served).map(|other| other.ip().to_string()).collect();
    if !host.is_empty() && !others.is_empty() {
        let others = others.join(", ");
        log::warn!("{host} also resolves to {others}: this server listens only on {}", served.ip());
    }
}

/// Logs a warning if the kernel limits the backlog to a lower number.
fn warn_if_backlog_is_limited(backlog: u32) {
    if let Some(most) = somaxconn().filter(|most| *most < backlog) {
        log::warn!(
            "--backlog {backlog} is over the kernel's limit, so {most} is used: \
             raise the limit (sysctl -w net.core.somaxconn={backlog})"
        );
    }
}

fn advice(address: SocketAddr, error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        _ if lacks_interface(address) => {
            format!("a link-local address needs its interface: append %INTERFACE, as in {}%eth0", address.ip())
        }
        ErrorKind::AddrInUse => {
            "the port is in use: end the other server, or choose another port with -p (0 is any)".into()
        }
        ErrorKind::PermissionDenied => "ports below 1024 may need privileges: choose another with -p (0 is any)".into(),
        ErrorKind::AddrNotAvailable => "not an address of this machine: choose another HOST".into(),
        _ => format!("{error}"),
    }
}
