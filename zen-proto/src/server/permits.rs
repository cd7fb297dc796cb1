//! The connection limit of this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One permit for each client that may be connected at the same time. A client in a lingering close also has one.
#[derive(Debug)]
pub(super) struct Permits {
    taken: AtomicUsize,
    limit: usize,
    /// The flag that determines the limit.
    flag: &'static str,
    /// When the last permit in use was released.
    idle_since: Mutex<Instant>,
}

impl Permits {
    pub(super) fn new(limit: usize, flag: &'static str) -> Self {
        Self { taken: AtomicUsize::new(0), limit, flag, idle_since: Mutex::new(Instant::now()) }
    }

    /// Takes a permit. Returns false if none is free.
    #[must_use]
    pub(super) fn take(&self) -> bool {
        let next = |taken: usize| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Releases a permit.
    pub(super) fn release(&self) {
        if self.taken.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn flag(&self) -> &'static str {
        self.flag
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Returns the time for which no permit has been taken.
    pub(super) fn idle_for(&self) -> Duration {
        let idle_since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken() > 0 { Duration::ZERO } else { idle_since.elapsed() }
    }
}
