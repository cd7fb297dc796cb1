//! One sweeper for all deadlines: a timer for each client would cost system calls for each question.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use slab::Slab;
use zen_proto::server::Stop;

/// Wakes the tasks whose client has let their deadline pass.
#[derive(Default)]
pub(crate) struct Sweeper {
    /// Those that wait, each with the end of its time.
    sleepers: Mutex<Slab<(Option<Instant>, Waker)>>,
}

impl Sweeper {
    /// Wakes those whose time is up at `now`. To be called once a tick.
    pub(crate) fn sweep(&self, now: Instant) {
        let sleepers = self.sleepers();
        let late = sleepers.iter().filter(|(_, (deadline, _))| deadline.is_some_and(|deadline| deadline <= now));
        late.for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.sleepers().iter().for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    /// Waits for `event` until `deadline`, which lies ahead (`None`: for ever), or until a stop is requested; one
    /// that was when the wait began (`is_draining`) does not count. `None`: it did not happen.
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
            // Looked at after the registration: a stop from now on finds this sleeper.
            if is_late || stop.is_requested() != is_draining { Poll::Ready(None) } else { Poll::Pending }
        })
    }

    fn sleepers(&self) -> MutexGuard<'_, Slab<(Option<Instant>, Waker)>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits; it leaves its place when its wait is over, or given up.
struct Sleeper<'a> {
    sweeper: &'a Sweeper,
    place: Option<usize>,
}

impl Sleeper<'_> {
    /// True: it was registered already, and has been woken since.
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
