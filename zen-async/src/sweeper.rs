//! One sweeper for all deadlines, because a timer for each client would cost system calls at each question.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use slab::Slab;
use zen_proto::server::Stop;

/// The list of waiting tasks, which wakes those whose deadline has passed.
#[derive(Default)]
pub(crate) struct Sweeper {
    /// The waiting tasks, each with its deadline and its waker.
    sleepers: Mutex<Slab<(Option<Instant>, Waker)>>,
}

impl Sweeper {
    /// Wakes the tasks whose deadline has passed at `now`. Must be called once a tick.
    pub(crate) fn sweep(&self, now: Instant) {
        let sleepers = self.sleepers();
        let late = sleepers.iter().filter(|(_, (deadline, _))| deadline.is_some_and(|deadline| deadline <= now));
        late.for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Wakes all waiting tasks.
    pub(crate) fn wake_all(&self) {
        self.sleepers().iter().for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Waits for `event` until `deadline` has passed or a stop is requested. Returns `None` if `event` did not happen.
    ///
    /// `deadline` must be in the future; `None` is no limit. `is_draining` says that the caller already knows of the
    /// stop; then the stop does not end the wait.
    pub(crate) fn in_time<T>(
        &self,
        mut event: Pin<&mut impl Future<Output = T>>,
        deadline: Option<Instant>,
        stop: &Stop,
        is_draining: bool,
    ) -> impl Future<Output = Option<T>> {
        let mut sleeper = Sleeper { sweeper: self, slot: None };
        poll_fn(move |context| {
            if let Poll::Ready(value) = event.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let was_woken = sleeper.register(deadline, context.waker());
            let is_late = was_woken && deadline.is_some_and(|deadline| deadline <= Instant::now());
            // This check comes after the registration, so that a later stop request wakes this task.
            if is_late || stop.is_requested() != is_draining { Poll::Ready(None) } else { Poll::Pending }
        })
    }

    fn sleepers(&self) -> MutexGuard<'_, Slab<(Option<Instant>, Waker)>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiting task's entry in the list. It is removed when the wait ends or is cancelled.
struct Sleeper<'a> {
    sweeper: &'a Sweeper,
    slot: Option<usize>,
}

impl Sleeper<'_> {
    /// Registers the task, or updates its waker.
    ///
    /// Returns false at the first call. At a later call it returns true: the task is polled again, so it was woken.
    fn register(&mut self, deadline: Option<Instant>, waker: &Waker) -> bool {
        let was_registered = self.slot.is_some();
        let mut sleepers = self.sweeper.sleepers();
        match self.slot {
            Some(slot) => sleepers[slot].1.clone_from(waker),
            None => self.slot = Some(sleepers.insert((deadline, waker.clone()))),
        }
        was_registered
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.sweeper.sleepers().remove(slot);
        }
    }
}
