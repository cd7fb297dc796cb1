//! recv() and send() that wait for at most a tick, or not at all.
//!
//! Because of the tick, a server that sleeps in its calls can check the clock and the stop flag. The listener and, by
//! inheritance, every client has SO_RCVTIMEO and SO_SNDTIMEO of one [`TICK`](super::TICK): a call that would sleep
//! longer returns EAGAIN. Clients that keep sending are not affected.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::watchdog;

/// Calls recv(), which sleeps for at most a tick, or not at all if the client `is_expired`.
///
/// # Errors
///
/// The errors of recv(). For those that mean "nothing yet" [`is_tick`] returns true.
pub fn read(stream: &TcpStream, buffer: &mut [u8], is_expired: bool) -> io::Result<usize> {
    watchdog::beat_now();
    if is_expired {
        return try_read(stream, buffer);
    }
    let (_, n) = rustix::net::recv(stream, buffer, RecvFlags::empty())?;
    Ok(n)
}

/// Calls send(), which sleeps for at most a tick, or not at all if the client `is_expired`.
///
/// # Errors
///
/// The errors of send(). For those that mean "no room yet" [`is_tick`] returns true.
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
/// The errors of recv(); `WouldBlock` means "nothing yet".
pub fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, n) = rustix::net::recv(stream, buffer, RecvFlags::DONTWAIT)?;
    Ok(n)
}

/// Calls send() without waiting.
///
/// # Errors
///
/// The errors of send(); `WouldBlock` means "no room yet".
pub fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Returns whether a call had no result: nothing has arrived, there is no room, or a signal interrupted it. In a server
/// that sleeps in its calls this happens at each tick, so that it can check the clock and the stop flag.
pub fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Makes the following close a reset, after which the kernel keeps no state of the connection.
pub fn reset(stream: impl AsFd) {
    // This fails only for a connection that has already ended.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
