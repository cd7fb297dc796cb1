//! The door of the first loop: where clients come in and are given to the loop that has the fewest.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use polling::{Event, Poller};
use zen_proto::server::{Accepted, BACK_OFF, Client, Listener, Server, TICK};

use crate::registration::Registration;

/// The key under which the listener is ready. No client has it: their slots are small numbers.
pub(crate) const LISTENER: usize = usize::MAX - 1;

/// A client on its way to a loop.
pub(crate) type Arrival = (TcpStream, Client);

/// How to reach a loop.
pub(crate) struct Address {
    pub(crate) arrivals: Sender<Arrival>,
    pub(crate) poller: &'static Poller,
    /// How many clients it has, those on their way included.
    pub(crate) load: Arc<AtomicUsize>,
}

/// Accepts for all loops. Only the first loop has one, and drops it when no more clients are taken.
pub(crate) struct Door {
    server: &'static Server,
    /// `None` while it is left alone.
    listener: Option<Registration<Arc<Listener>>>,
    look_at: Option<Instant>,
    /// The loops, this one first.
    loops: Vec<Address>,
}

impl Door {
    pub(crate) fn open(server: &'static Server, loops: Vec<Address>) -> Self {
        Self { server, listener: None, look_at: Some(Instant::now()), loops }
    }

    /// Lets in those who wait, but only so many in a turn: the clients inside want theirs too.
    /// False: no more clients are taken.
    pub(crate) fn answer(&mut self) -> bool {
        for _ in 0..ACCEPTS_A_TURN {
            match self.server.try_accept() {
                Accepted::Client(stream, client) => self.hand_over((stream, client)),
                Accepted::Next => {}
                Accepted::Nobody => {
                    self.listen();
                    return true;
                }
                Accepted::Later(pause) => {
                    self.back_off(pause);
                    return true;
                }
                Accepted::NoMore => return false,
            }
        }
        true
    }

    /// When to answer although nobody rang.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// From now on the poller reports whoever comes. Only a drain asks for a look before that.
    fn listen(&mut self) {
        self.look_at = self.server.stop.is_requested().then(|| Instant::now() + TICK);
        let Some(listener) = self.server.listener().filter(|_| self.listener.is_none()) else { return };
        match Registration::new(self.loops[0].poller, listener, Event::readable(LISTENER)) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => {
                log::warn!("cannot wait for clients now: {error}");
                self.back_off(BACK_OFF);
            }
        }
    }

    /// A listener that stays registered would be reported again and again: a processor burnt.
    fn back_off(&mut self, pause: Duration) {
        self.listener = None;
        self.look_at = Some(Instant::now() + pause);
    }

    fn hand_over(&mut self, arrival: Arrival) {
        // Among equals the last: while this loop is busy with a client, nobody is let in.
        let fewest = self.loops.iter().enumerate().rev().min_by_key(|(_, other)| other.load.load(Ordering::Relaxed));
        let Some((number, lucky)) = fewest else { return };
        lucky.load.fetch_add(1, Ordering::Relaxed);
        if let Err(SendError(arrival)) = lucky.arrivals.send(arrival) {
            // That loop has failed, and the server drains: the others take its share.
            self.loops.remove(number);
            self.hand_over(arrival);
        } else if number > 0 {
            let _ = lucky.poller.notify(); // it fails only when the poller is broken: then that loop ends the server
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The senders go now, and every loop is to see that nobody comes any more.
        for address in self.loops.drain(..) {
            drop(address.arrivals);
            let _ = address.poller.notify();
        }
    }
}

/// So many clients are let in before those inside get their turn again.
const ACCEPTS_A_TURN: usize = 64;
