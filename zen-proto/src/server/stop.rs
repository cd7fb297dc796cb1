//! The stop flag: whether the server drains, and the error with which it ends.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::anyhow;

/// A flag that requests a drain.
#[derive(Default)]
pub struct Stop {
    requested: AtomicBool,
    requested_at: OnceLock<Instant>,
    /// Wakes the signal thread.
    pub(super) waker: OnceLock<UnixStream>,
    callbacks: Mutex<Vec<Box<dyn Fn() + Send>>>,
    failure: OnceLock<anyhow::Error>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("requested", &self.requested).finish_non_exhaustive()
    }
}

impl Stop {
    /// Returns whether the server should drain. The call costs one relaxed atomic load.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Calls `wake` when a drain is requested, or immediately if it already was, for servers that sleep longer than a
    /// tick. It may be called more than once.
    pub fn on_request(&self, wake: impl Fn() + Send + 'static) {
        let mut callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            wake();
        }
        callbacks.push(Box::new(wake));
    }

    /// Returns when the drain was requested, if it was.
    pub(super) fn requested_at(&self) -> Option<Instant> {
        self.requested_at.get().copied()
    }

    /// Requests a drain without a signal.
    pub fn request(&self) {
        self.set();
        self.wake_signal_thread();
    }

    /// Requests a drain, after which the server ends with `error`. If this is called again, the first error is kept.
    pub fn fail(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.request();
    }

    /// Does the work of [`Stop::fail`] in a panic hook. The panicking thread may hold any lock, so the signal thread
    /// calls the callbacks.
    pub(super) fn fail_in_panic(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.wake_signal_thread();
    }

    fn wake_signal_thread(&self) {
        if let Some(mut waker) = self.waker.get() {
            let _ = waker.write_all(b"!"); // fails only if the stream is full, and then the thread wakes anyway
        }
    }

    pub(super) fn failure(&self) -> Option<&anyhow::Error> {
        self.failure.get()
    }

    /// Sets the flag, and calls the functions of [`Stop::on_request`].
    pub(super) fn set(&self) {
        let callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, Ordering::Relaxed);
        callbacks.iter().for_each(|wake| wake());
    }
}

/// Returns the error with which the server ends after one of its threads has panicked.
pub(super) fn defect() -> anyhow::Error {
    anyhow!("the server has a defect: the log says where; please report it")
}
