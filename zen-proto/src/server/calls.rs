//! recv() and send(), which sleep for a tick or not at all.
//!
//! The tick is how a server that sleeps in its calls still looks at the clock and the stop flag. The listener
//! and, by inheritance, every client have SO_RCVTIMEO and SO_SNDTIMEO of one [`TICK`]: a call that would
//! sleep longer comes back with EAGAIN. Busy traffic never notices.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};

use super::watchdog;

/// How long a call may sleep: the deadlines of a blocking server are exact to this.
pub const TICK: Duration = Duration::from_millis(250);

/// recv(): sleeps for a tick at most; not at all for a client whose time `is_up`.
///
/// # Errors
///
/// Those of recv(); [`is_tick`] tells those that mean "nothing yet".
pub fn receive(stream: &TcpStream, chunk: &mut [u8], is_up: bool) -> io::Result<usize> {
    watchdog::beat_now();
    if is_up {
        return receive_now(stream, chunk);
    }
    let (_, n) = rustix::net::recv(stream, chunk, RecvFlags::empty())?;
    Ok(n)
}

/// send(): under the same conditions.
///
/// # Errors
///
/// Those of send(); [`is_tick`] tells those that mean "no room yet".
pub fn send(stream: &TcpStream, bytes: &[u8], is_up: bool) -> io::Result<usize> {
    watchdog::beat_now();
    if is_up {
        return send_now(stream, bytes);
    }
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}

/// recv() that never sleeps.
///
/// # Errors
///
/// Those of recv(); `WouldBlock` means "nothing yet".
pub fn receive_now(stream: &TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    let (_, n) = rustix::net::recv(stream, chunk, RecvFlags::DONTWAIT)?;
    Ok(n)
}

/// send() that never sleeps.
///
/// # Errors
///
/// Those of send(); `WouldBlock` means "no room yet".
pub fn send_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Whether a call came back only to let the server look up.
pub fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
