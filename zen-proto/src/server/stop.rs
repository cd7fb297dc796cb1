//! The stop flag: whether the server drains, and what it ends with.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::anyhow;

/// Tells a server that it is to stop.
#[derive(Default)]
pub struct Stop {
    requested: AtomicBool,
    requested_at: OnceLock<Instant>,
    /// Wakes the thread that takes the signals.
    pub(super) waker: OnceLock<UnixStream>,
    wakers: Mutex<Vec<Box<dyn Fn() + Send>>>,
    failure: OnceLock<anyhow::Error>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("requested", &self.requested).finish_non_exhaustive()
    }
}

impl Stop {
    /// Whether the server is to drain. A load; free on the path of an answer.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Calls `wake` when the server is to drain. For servers that sleep for longer than a tick.
    pub fn on_request(&self, wake: impl Fn() + Send + 'static) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            wake();
        }
        wakers.push(Box::new(wake));
    }

    /// When it was requested, if it was.
    pub(super) fn requested_at(&self) -> Option<Instant> {
        self.requested_at.get().copied()
    }

    /// Drains for a reason of the server's own.
    pub fn request(&self) {
        self.set();
        self.ring();
    }

    /// Drains, and ends with `error`; the first one counts.
    pub fn fail(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.request();
    }

    /// As [`Stop::fail`], for a panic hook: the thread that panics may hold any lock, so another one tells the others.
    pub(super) fn fail_in_panic(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.ring();
    }

    fn ring(&self) {
        if let Some(mut waker) = self.waker.get() {
            let _ = waker.write_all(b"!"); // it fails only when it rings already, louder than anyone can hear
        }
    }

    pub(super) fn failure(&self) -> Option<&anyhow::Error> {
        self.failure.get()
    }

    pub(super) fn set(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, Ordering::Relaxed);
        wakers.iter().for_each(|wake| wake());
    }
}

/// What the server ends with when a thread of it has panicked.
pub(super) fn defect() -> anyhow::Error {
    anyhow!("the server has a defect: the log says where; please report it")
}
