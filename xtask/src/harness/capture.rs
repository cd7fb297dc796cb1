//! The output of a child: always read, so that the child never blocks, and kept up to a bound.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::WAIT_LIMIT;

/// The maximum number of bytes kept. If a faulty program prints more, the beginning shows the reason.
const KEPT: usize = 1 << 20;

pub(crate) struct Capture(Arc<Shared>);

#[derive(Default)]
struct Shared {
    captured: Mutex<Captured>,
    changed: Condvar,
}

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Capture {
    /// Starts a thread that reads `pipe` to its end.
    pub(crate) fn of(mut pipe: impl Read + Send + 'static) -> Result<Capture> {
        let shared = Arc::new(Shared::default());
        let capture = Capture(Arc::clone(&shared));
        thread::Builder::new().name("capture".into()).spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                let mut captured = shared.lock();
                let room = KEPT - captured.bytes.len();
                captured.bytes.extend_from_slice(&chunk[..n.min(room)]);
                shared.changed.notify_all();
            }
            shared.lock().has_ended = true;
            shared.changed.notify_all();
        })?;
        Ok(capture)
    }

    /// Calls `find` with the output so far, whenever there is more, until it finds something. `None` when the pipe has
    /// ended or `limit` is over.
    pub(crate) fn wait_for<T>(&self, limit: Duration, mut find: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut captured = self.0.lock();
        loop {
            if let Some(found) = find(&captured.bytes) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if captured.has_ended || left.is_zero() {
                return None;
            }
            captured = self.0.changed.wait_timeout(captured, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the pipe has ended, at most for [`WAIT_LIMIT`], and returns the output.
    pub(crate) fn at_end(&self) -> Vec<u8> {
        self.wait_for(WAIT_LIMIT, |_| None::<()>);
        self.0.lock().bytes.clone()
    }

    /// Returns the output so far; control bytes other than newlines are escaped.
    pub(crate) fn text(&self) -> String {
        let escaped =
            |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
        String::from_utf8_lossy(&self.0.lock().bytes).chars().map(escaped).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
