//! The acceptor: the first loop accepts for all loops, and hands each client to the loop with the fewest clients.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use polling::{Event, Poller};
use zen_proto::server::{Accepted, BACK_OFF, Connection, Server, TICK};

use crate::registration::Registration;

/// The listener's key in the poller. No client has it, because their slots are small numbers.
pub(crate) const LISTENER: usize = usize::MAX - 1;

/// A client on its way to a loop.
pub(crate) type NewClient = (TcpStream, Connection);

/// The acceptor's end of a loop.
pub(crate) struct LoopHandle {
    pub(crate) new_clients: Sender<NewClient>,
    pub(crate) poller: &'static Poller,
    /// The number of the loop's clients, including those on their way.
    pub(crate) load: Arc<AtomicUsize>,
}

/// The acceptor for all loops. Only the first loop has one, and drops it when no more clients are accepted.
pub(crate) struct Acceptor {
    server: &'static Server,
    /// `None` until the first wait, and during a back-off.
    listener: Option<Registration<Arc<OwnedFd>>>,
    retry_at: Option<Instant>,
    /// The loops, this one first.
    loops: Vec<LoopHandle>,
}

impl Acceptor {
    pub(crate) fn new(server: &'static Server, loops: Vec<LoopHandle>) -> Self {
        Self { server, listener: None, retry_at: Some(Instant::now()), loops }
    }

    /// Accepts pending clients, at most [`ACCEPTS_PER_ITERATION`]. The existing clients are served in between.
    ///
    /// Returns false when no more clients are accepted.
    pub(crate) fn accept_pending(&mut self) -> bool {
        for _ in 0..ACCEPTS_PER_ITERATION {
            match self.server.try_accept() {
                Accepted::Client(stream, connection) => self.hand_over((stream, connection)),
                Accepted::Next => {}
                Accepted::WouldBlock => {
                    self.listen();
                    return true;
                }
                Accepted::Later(pause) => {
                    self.back_off(pause);
                    return true;
                }
                Accepted::Closed => return false,
            }
        }
        // The listener may report nothing more although clients over the limit are not rejected yet.
        self.retry_at = Some(Instant::now());
        true
    }

    /// Returns when to accept although the listener has reported nothing.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Lets the poller report the next client. While draining, the loop tries again after a tick, to find the backlog
    /// empty.
    fn listen(&mut self) {
        self.retry_at = self.server.stop.is_requested().then(|| Instant::now() + TICK);
        let Some(listener) = self.server.listener().filter(|_| self.listener.is_none()) else { return };
        match Registration::new(self.loops[0].poller, listener, Event::readable(LISTENER)) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => {
                log::warn!("cannot wait for clients now: {error}");
                self.back_off(BACK_OFF);
            }
        }
    }

    /// Removes the listener from the poller, which would report a level-triggered one without end.
    fn back_off(&mut self, pause: Duration) {
        self.listener = None;
        self.retry_at = Some(Instant::now() + pause);
    }

    fn hand_over(&mut self, client: NewClient) {
        let Some((number, least_loaded)) = self.least_loaded() else { return };
        least_loaded.load.fetch_add(1, Ordering::Relaxed);
        if let Err(SendError(client)) = least_loaded.new_clients.send(client) {
            // That loop has panicked and the server drains. The other loops take its clients.
            self.loops.remove(number);
            self.hand_over(client);
        } else if number > 0 {
            // It fails only when the poller is broken. Then that loop ends the server.
            let _ = least_loaded.poller.notify();
        }
    }

    /// Returns the loop with the fewest clients, and the last among equals: while the first loop is busy, it cannot
    /// accept.
    fn least_loaded(&self) -> Option<(usize, &LoopHandle)> {
        self.loops.iter().enumerate().rev().min_by_key(|(_, other)| other.load.load(Ordering::Relaxed))
    }
}

impl Drop for Acceptor {
    /// Drops the senders and wakes every loop, so that each sees that no more clients are accepted.
    fn drop(&mut self) {
        for LoopHandle { new_clients, poller, .. } in self.loops.drain(..) {
            drop(new_clients);
            let _ = poller.notify();
        }
    }
}

/// The most accepts per iteration of the loop.
const ACCEPTS_PER_ITERATION: usize = 64;
