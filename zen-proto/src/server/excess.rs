//! Clients over the connection limit, from accept to the decision.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Clients over the limit. One inside may have gone already without its thread or task having had a turn since, so they
/// are rejected only after a [`MOMENT`].
#[derive(Debug, Default)]
pub(super) struct Excess {
    pub(super) clients: VecDeque<(TcpStream, SocketAddr)>,
    /// When the latest of them came.
    latest: Option<Instant>,
}

impl Excess {
    pub(super) fn add(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        self.clients.push_back((stream, address));
        self.latest = Some(now);
    }

    /// How long until they are rejected; `None` if there are none.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let latest = self.latest.filter(|_| !self.clients.is_empty())?;
        Some((latest + MOMENT).saturating_duration_since(now))
    }

    /// Whether one more may wait for the same moment.
    pub(super) fn has_room(&self) -> bool {
        self.clients.len() < MOST_EXCESS
    }
}

/// How long a client over the limit waits before it is rejected: time for the others to notice who has gone, and short
/// enough to be called at once.
const MOMENT: Duration = Duration::from_millis(5);

/// How many wait for the same moment: their descriptors are beyond the limit.
const MOST_EXCESS: usize = 8;
