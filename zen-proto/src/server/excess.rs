//! Clients that were accepted over the connection limit. They wait some milliseconds for a permit before they are
//! rejected.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Clients over the limit. They are rejected only after a [`PERMIT_WAIT`], because a served client may have
/// disconnected without its thread or task having noticed.
#[derive(Debug, Default)]
pub(super) struct Excess {
    pub(super) clients: VecDeque<(TcpStream, SocketAddr)>,
    /// When the latest client over the limit was accepted.
    latest: Option<Instant>,
    /// Whether each client has a process, whose end frees its permit.
    pub(super) waits_for_exit: bool,
}

impl Excess {
    pub(super) fn add(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        self.clients.push_back((stream, address));
        self.latest = Some(now);
    }

    /// Returns the time until they are served or rejected, or `None` if there are none.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let latest = self.latest.filter(|_| !self.clients.is_empty())?;
        let moment = if self.waits_for_exit { PERMIT_WAIT_FOR_PROCESSES } else { PERMIT_WAIT };
        Some((latest + moment).saturating_duration_since(now))
    }

    /// Returns whether one more client may wait.
    pub(super) fn has_room(&self) -> bool {
        self.clients.len() < MAX_EXCESS
    }
}

/// The time for which clients over the limit wait for a permit. It restarts when a further one is accepted. It is long
/// enough for another thread to notice a disconnect, and too short for the client to notice.
const PERMIT_WAIT: Duration = Duration::from_millis(5);

/// The time before a rejection when each client has a process, which takes longer to end.
const PERMIT_WAIT_FOR_PROCESSES: Duration = Duration::from_millis(50);

/// The number of clients over the limit that may wait at the same time. Each has a descriptor.
const MAX_EXCESS: usize = 8;
