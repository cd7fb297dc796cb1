//! One sweeper for all deadlines, because a timer for each client would cost system calls for each question.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use slab::Slab;
use zen_proto::server::Stop;

/// A list of waiting tasks, of which it wakes those whose client has missed its deadline.
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
    /// A deadline must lie in the future; without one, the wait has no limit. A stop that was requested before the wait
    /// (`is_draining`) does not end it.
    pub(crate) fn in_time<T>(
        &self,
        mut event: Pin<&mut impl Future<Output = T>>,
        deadline: Option<Instant>,
        stop: &Stop,
        is_draining: bool,
    ) -> impl Future<Output = Option<T>> {
        let mut sleeper = Sleeper { sweeper: self, place: None };
        poll_fn(move |context| {
            if let Poll::Ready(value) = event.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let was_woken = sleeper.register(deadline, context.waker());
            let is_late = was_woken && deadline.is_some_and(|deadline| deadline <= Instant::now());
            // Checked after the registration, so a later stop finds this sleeper.
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
    place: Option<usize>,
}

impl Sleeper<'_> {
    /// Registers the task, or updates its waker.
    ///
    /// Returns true if it was registered already and has been woken since.
    fn register(&mut self, deadline: Option<Instant>, waker: &Waker) -> bool {
        let mut sleepers = self.sweeper.sleepers();
        match self.place {
            Some(place) => sleepers[place].1.clone_from(waker),
            None => {
                self.place = Some(sleepers.insert((deadline, waker.clone())));
                return false;
            }
        }
        true
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.sweeper.sleepers().remove(place);
        }
    }
}
