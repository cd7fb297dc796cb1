//! A client seen from outside its conversation: its address, its place, its coming and going, its dismissal.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::SockRef;

use super::figures::{Figure, count};
use crate::{Conversation, Ending, TOO_MANY};

/// A client that has been accepted. It holds a place until it is dropped.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    _place: Place,
}

impl Client {
    pub(super) fn new(address: SocketAddr, place: Place) -> Self {
        log::debug!("{address} has come");
        Self { address, _place: place }
    }

    /// For the log: its conversation is over, or its connection failed.
    pub fn gone(&self, conversation: &Conversation, result: io::Result<()>) {
        let address = self.address;
        let is_lost = result.is_err() && conversation.ending().is_none_or(Ending::is_usual);
        count(if is_lost { Figure::Lost } else { conversation.ending().map_or(Figure::Finished, Figure::from) });
        match (result, conversation.ending()) {
            // Why it was being sent away says more than that it did not wait for the end.
            (_, Some(ending)) if !ending.is_usual() => log::info!("{address} {ending}"),
            (Err(error), _) if !conversation.has_spoken() => log::debug!("{address} is lost: {error}"),
            (Err(error), _) => log::info!("{address} is lost: {error}"),
            (Ok(()), Some(ending)) => log::debug!("{address} has gone: {ending}"),
            (Ok(()), None) => log::debug!("{address} has gone"),
        }
    }

    /// Rule 7 for a client that cannot be served after all. (For one over the limit `accept` does it.)
    pub fn turn_away(&self, stream: impl AsFd) {
        log::info!("{} turned away: no means to serve it", self.address);
        turn_away(stream);
    }
}

/// Rule 7: one write that cannot block, the end of sending, one read thrown away. Then drop the stream.
pub(super) fn turn_away(stream: impl AsFd) {
    count(Figure::TurnedAway);
    // Whatever fails here fails for a client that is being sent away.
    let _ = rustix::net::send(&stream, TOO_MANY.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(&stream, Shutdown::Write);
    let _ = rustix::net::recv(&stream, &mut [0; super::CHUNK][..], RecvFlags::DONTWAIT);
}

/// Makes the close that follows a reset, after which the kernel keeps nothing of the connection.
pub fn reset(stream: impl AsFd) {
    // It fails only for a connection that is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// The places for clients in this process.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    limit: usize,
    emptied: Mutex<Instant>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit, emptied: Mutex::new(Instant::now()) }
    }

    /// A place, if one is free.
    pub(super) fn take(&'static self) -> Option<Place> {
        let next = |taken: usize| (taken < self.limit).then_some(taken + 1);
        self.taken.try_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Place { places: self })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many are taken, those of lingering clients included.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How long no place has been taken.
    pub(super) fn empty_for(&self) -> Duration {
        let emptied = *self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken() > 0 { Duration::ZERO } else { emptied.elapsed() }
    }
}

/// One place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: &'static Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.taken.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.places.emptied.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}
