//! recv() and send() that wait for a tick, or not at all.
//!
//! The tick is how a server that sleeps in its calls still looks at the clock and the stop flag. The listener
//! and, by inheritance, every client have SO_RCVTIMEO and SO_SNDTIMEO of one [`TICK`](super::TICK): a call that would
//! sleep longer returns EAGAIN. Busy traffic never notices.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::watchdog;

/// Calls recv(), which sleeps for a tick at most; not at all if the client `is_expired`.
///
/// # Errors
///
/// Those of recv(); [`is_tick`] tells those that mean "nothing yet".
pub fn read(stream: &TcpStream, buffer: &mut [u8], is_expired: bool) -> io::Result<usize> {
    watchdog::beat_now();
    if is_expired {
        return try_read(stream, buffer);
    }
    let (_, n) = rustix::net::recv(stream, buffer, RecvFlags::empty())?;
    Ok(n)
}

/// Calls send(), which sleeps for a tick at most; not at all if the client `is_expired`.
///
/// # Errors
///
/// Those of send(); [`is_tick`] tells those that mean "no room yet".
pub fn write(stream: &TcpStream, bytes: &[u8], is_expired: bool) -> io::Result<usize> {
    watchdog::beat_now();
    if is_expired {
        return try_write(stream, bytes);
    }
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}

/// Calls recv() without waiting.
///
/// # Errors
///
/// Those of recv(); `WouldBlock` means "nothing yet".
pub fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, n) = rustix::net::recv(stream, buffer, RecvFlags::DONTWAIT)?;
    Ok(n)
}

/// Calls send() without waiting.
///
/// # Errors
///
/// Those of send(); `WouldBlock` means "no room yet".
pub fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Returns whether a call returned only to let the server look at the clock and the stop flag.
pub fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Makes the close that follows a reset, after which the kernel keeps nothing of the connection.
pub fn reset(stream: impl AsFd) {
    // It fails only for a connection that is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
