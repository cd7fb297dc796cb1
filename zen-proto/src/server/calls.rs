//! recv() and send(), which sleep for a tick or not at all.
//!
//! The tick is how a server that sleeps in its calls still looks at the clock and the stop flag. The listener
//! and, by inheritance, every client have SO_RCVTIMEO and SO_SNDTIMEO of one [`TICK`]: a call that would
//! sleep longer comes back with EAGAIN. Busy traffic never notices.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};

/// How long a call may sleep: the deadlines of a blocking server are exact to this.
pub const TICK: Duration = Duration::from_millis(250);

/// recv(): sleeps for a tick at most; not at all for a client whose time `is_up`.
///
/// # Errors
///
/// Those of recv(); [`is_tick`] tells those that mean "nothing yet".
pub fn receive(stream: &TcpStream, chunk: &mut [u8], is_up: bool) -> io::Result<usize> {
    let flags = if is_up { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
    let (_, n) = rustix::net::recv(stream, chunk, flags)?;
    Ok(n)
}

/// send(): under the same conditions.
///
/// # Errors
///
/// Those of send(); [`is_tick`] tells those that mean "no room yet".
pub fn send(stream: &TcpStream, bytes: &[u8], is_up: bool) -> io::Result<usize> {
    let flags = if is_up { SendFlags::DONTWAIT } else { SendFlags::empty() };
    Ok(rustix::net::send(stream, bytes, flags | SendFlags::NOSIGNAL)?)
}

/// recv() that never sleeps.
///
/// # Errors
///
/// Those of recv(); `WouldBlock` means "nothing yet".
pub fn receive_now(stream: &TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    receive(stream, chunk, true)
}

/// send() that never sleeps.
///
/// # Errors
///
/// Those of send(); `WouldBlock` means "no room yet".
pub fn send_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send(stream, bytes, true)
}

/// Whether a call came back only to let the server look up.
pub fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
