//! Inherited descriptors: a listener or a client from another process.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::Socket;

/// Returns whether systemd, or a program with the same protocol, passed descriptors to this process.
pub(super) fn has_listen_fds() -> bool {
    let pid = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
    pid == Some(std::process::id()) && std::env::var_os("LISTEN_FDS").is_some()
}

/// Returns descriptor 3 as the listener, if it is the only one that was passed.
pub(super) fn listen_fds() -> Result<Socket> {
    let count = std::env::var_os("LISTEN_FDS").unwrap_or_default();
    let count = count.to_string_lossy();
    if count.parse() != Ok(1) {
        bail!(
            "LISTEN_FDS={}, but this server takes exactly one listener: \
             write one ListenStream= line in the socket unit, and another unit for each further address",
            count.escape_debug()
        );
    }
    let listener = listenfd::ListenFd::from_env().take_tcp_listener(0).ok().flatten();
    let listener = listener.filter(|listener| sockopt::socket_acceptconn(listener).unwrap_or(false));
    // It may be another kind of socket, or a client (with Accept=yes).
    let listener = listener.context(
        "descriptor 3 is not a TCP listener: write ListenStream= with a port, and Accept=no, in the socket unit",
    )?;
    Ok(listener.into())
}

/// Returns stdin as the listener, which inetd or the parent of a worker has opened.
pub(super) fn stdin_as_listener() -> Result<Socket> {
    let socket = stdin_as_socket()?;
    if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        bail!("stdin is not a listener: start this from inetd, with `wait` in its line");
    }
    Ok(socket)
}

/// Returns stdin as the only client, or `None` if the client has disconnected.
pub(super) fn stdin_as_client() -> Result<Option<TcpStream>> {
    let socket = stdin_as_socket()?;
    if sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        bail!("stdin is not a client: start this from inetd, with `nowait` in its line");
    }
    Ok(socket.peer_addr().is_ok().then(|| socket.into()))
}

/// Returns whether stderr is the socket on stdin, as under inetd.
///
/// Without `--inetd` stderr is no client's connection, even if it is the same socket as stdin, so this returns false.
/// It searches the command line itself, because it is also called after a parse error.
pub(super) fn stderr_is_client() -> bool {
    let is_inetd = std::env::args_os().any(|argument| argument.as_encoded_bytes().starts_with(b"--inetd"));
    is_inetd && is_stdin(std::io::stderr())
}

/// Takes the socket from stdin, and replaces stdin with /dev/null. If stdout or stderr is the same socket, it is
/// replaced, too: a connection is closed only with its last descriptor.
fn stdin_as_socket() -> Result<Socket> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("stdin is closed: start this from inetd")?;
    if !is_tcp(&stdin) {
        bail!("stdin is not a TCP socket: start this from inetd");
    }
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null").context("/dev/null")?);
    if is_stdin(std::io::stdout()) {
        rustix::stdio::dup2_stdout(&null)?;
    }
    if is_stdin(std::io::stderr()) {
        rustix::stdio::dup2_stderr(&null)?;
    }
    rustix::stdio::dup2_stdin(&null)?;
    Ok(stdin.into())
}

fn is_tcp(descriptor: impl AsFd) -> bool {
    let is_stream = sockopt::socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
    let family = sockopt::socket_domain(&descriptor);
    is_stream && family.is_ok_and(|family| [AddressFamily::INET, AddressFamily::INET6].contains(&family))
}

fn is_stdin(other: impl AsFd) -> bool {
    match (rustix::fs::fstat(std::io::stdin()), rustix::fs::fstat(other)) {
        (Ok(stdin), Ok(other)) => {
            let is_socket = rustix::fs::FileType::from_raw_mode(stdin.st_mode) == rustix::fs::FileType::Socket;
            is_socket && (stdin.st_dev, stdin.st_ino) == (other.st_dev, other.st_ino)
        }
        _ => false,
    }
}
