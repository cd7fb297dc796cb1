//! Notifications to the service manager that started this process, if one did (sd_notify(3)).
//!
//! A worker notifies no service manager: its parent does, and removes NOTIFY_SOCKET from the worker's environment.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Once;

use sd_notify::NotifyState;

/// Reports that clients can connect to this server, and to each of its workers.
pub(super) fn notify_ready() {
    tell(&NotifyState::Ready);
}

/// Reports that the drain begins.
pub(super) fn notify_stopping() {
    tell(&NotifyState::Stopping);
}

/// Reports that all event loops, threads or workers are alive; see [`super::watchdog`].
pub(super) fn notify_alive() {
    tell(&NotifyState::Watchdog);
}

fn tell(state: &NotifyState<'_>) {
    static WARNED: Once = Once::new();
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, &format!("{state}\n")) {
        WARNED.call_once(|| log::warn!("cannot notify the service manager at NOTIFY_SOCKET: {error}"));
    }
}

/// Sends one datagram without waiting: a manager that does not read must not stop the server. (The crate sd-notify
/// would wait.)
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(text.as_bytes(), &address).map(drop)
}
