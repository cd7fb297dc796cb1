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

/// The listener's key in the poller. No client has this key: the slot in its lower 32 bits would be far too large. The
/// poller reserves the key `usize::MAX` for itself.
pub(crate) const LISTENER: usize = usize::MAX - 1;

/// An accepted client that no loop has registered yet.
pub(crate) type NewClient = (TcpStream, Connection);

/// The acceptor's access to one loop.
pub(crate) struct LoopHandle {
    pub(crate) new_clients: Sender<NewClient>,
    pub(crate) poller: &'static Poller,
    /// The number of the loop's clients, including those that it has not registered yet.
    pub(crate) load: Arc<AtomicUsize>,
}

/// The acceptor for all loops. The first loop owns it, and drops it when no more clients are accepted.
pub(crate) struct Acceptor {
    server: &'static Server,
    /// `None` until the backlog is first found empty, and during a back-off.
    listener: Option<Registration<Arc<OwnedFd>>>,
    /// When to accept even if the poller has not reported the listener.
    retry_at: Option<Instant>,
    /// The loops, this one first.
    loops: Vec<LoopHandle>,
}

impl Acceptor {
    pub(crate) fn new(server: &'static Server, loops: Vec<LoopHandle>) -> Self {
        Self { server, listener: None, retry_at: Some(Instant::now()), loops }
    }

    /// Accepts at most [`ACCEPTS_PER_ITERATION`] clients, so that the loop soon serves its existing clients again.
    ///
    /// Returns false when the server will accept no more clients.
    pub(crate) fn accept_pending(&mut self) -> bool {
        for _ in 0..ACCEPTS_PER_ITERATION {
            match self.server.try_accept() {
                Accepted::Client(stream, connection) => self.hand_over((stream, connection)),
                Accepted::Next => {}
                Accepted::WouldBlock => {
                    self.watch_listener();
                    return true;
                }
                Accepted::Later(pause) => {
                    self.back_off(pause);
                    return true;
                }
                Accepted::Closed => return false,
            }
        }
        // More clients may be in the backlog, and the listener may not be in the poller. Clients over the limit may
        // also wait: `try_accept` rejects them some milliseconds after their accept, and no event announces this. So
        // the next iteration of the loop accepts again without an event.
        self.retry_at = Some(Instant::now());
        true
    }

    /// Returns the time of the next accept() that does not wait for the listener, if there is one.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Lets the poller report the listener when the next client connects. While draining, the acceptor also tries again
    /// after a tick, because the listener is closed when no client has connected for a tick.
    fn watch_listener(&mut self) {
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

    /// Removes the listener from the poller, which would otherwise report it in every wait (level mode).
    fn back_off(&mut self, pause: Duration) {
        self.listener = None;
        self.retry_at = Some(Instant::now() + pause);
    }

    fn hand_over(&mut self, client: NewClient) {
        let Some((number, least_loaded)) = self.least_loaded() else { return };
        least_loaded.load.fetch_add(1, Ordering::Relaxed);
        if let Err(SendError(client)) = least_loaded.new_clients.send(client) {
            // That loop has ended by a panic or an error of its poller, and the server drains. Another loop gets this
            // client.
            self.loops.remove(number);
            self.hand_over(client);
        } else if number > 0 {
            let _ = least_loaded.poller.notify(); // if it fails, that loop's wait fails too, and the server ends
        }
    }

    /// Returns the loop with the fewest clients. Among equals it is the last, because the first loop also accepts.
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

/// The largest number of accepts in one iteration of the loop.
const ACCEPTS_PER_ITERATION: usize = 64;
