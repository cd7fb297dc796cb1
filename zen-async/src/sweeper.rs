//! The deadlines of all waiting tasks, in one list that is checked once a tick. A timer for each client would cost
//! system calls at each question.

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
    waiting: Mutex<Slab<(Option<Instant>, Waker)>>,
}

impl Sweeper {
    /// Wakes the tasks whose deadline has passed at `now`. Must be called once a tick.
    pub(crate) fn sweep(&self, now: Instant) {
        let waiting = self.waiting();
        let late = waiting.iter().filter(|(_, (deadline, _))| deadline.is_some_and(|deadline| deadline <= now));
        late.for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Wakes all waiting tasks.
    pub(crate) fn wake_all(&self) {
        self.waiting().iter().for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Waits for `event` until `deadline` has passed or a stop is requested. Returns `None` if `event` did not happen.
    ///
    /// `deadline` must be in the future; `None` is no limit. `is_draining` says that the caller already knows of the
    /// stop; then the stop does not end the wait.
    pub(crate) fn wait_until<T>(
        &self,
        mut event: Pin<&mut impl Future<Output = T>>,
        deadline: Option<Instant>,
        stop: &Stop,
        is_draining: bool,
    ) -> impl Future<Output = Option<T>> {
        let mut sleeper = WaitingTask { sweeper: self, slot: None };
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

    fn waiting(&self) -> MutexGuard<'_, Slab<(Option<Instant>, Waker)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiting task's entry in the list. It is removed when the wait ends or is cancelled.
struct WaitingTask<'a> {
    sweeper: &'a Sweeper,
    slot: Option<usize>,
}

impl WaitingTask<'_> {
    /// Registers the task, or updates its waker.
    ///
    /// Returns whether the task was registered already. If so, it has been woken since, and its deadline may have
    /// passed.
    fn register(&mut self, deadline: Option<Instant>, waker: &Waker) -> bool {
        let was_registered = self.slot.is_some();
        let mut waiting = self.sweeper.waiting();
        match self.slot {
            Some(slot) => waiting[slot].1.clone_from(waker),
            None => self.slot = Some(waiting.insert((deadline, waker.clone()))),
        }
        was_registered
    }
}

impl Drop for WaitingTask<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.sweeper.waiting().remove(slot);
        }
    }
}
