//! The reactor: it keeps the wakers of waiting tasks, and wakes a task when its socket is ready or its timer expires.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode, Poller};
use slab::Slab;

/// A reactor, which waits for the sockets and timers of all tasks.
pub(crate) struct Reactor {
    pub(crate) poller: Poller,
    /// For each socket, the task that waits for it, if any. The slot is the socket's key in the poller.
    sockets: Mutex<Slab<Option<Waiter>>>,
    timers: Mutex<Vec<(Instant, Waker)>>,
}

/// The waker of a waiting task, and its deadline.
type Waiter = (Waker, Option<Instant>);

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()?, sockets: Mutex::default(), timers: Mutex::default() })
    }

    /// Wakes every task whose socket is ready or whose timer has expired. If `may_sleep`, the thread sleeps here until
    /// there is such a task.
    pub(crate) fn wait(&self, events: &mut Events, may_sleep: bool) -> io::Result<()> {
        let next_timer = lock(&self.timers).iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min();
        events.clear();
        self.poller.wait(events, if may_sleep { next_timer } else { Some(Duration::ZERO) })?;
        for event in events.iter() {
            // No task waits if `wake_expired` has already woken it.
            let waiting = lock(&self.sockets).get_mut(event.key).and_then(Option::take);
            waiting.into_iter().for_each(|(task, _)| task.wake());
        }
        let now = Instant::now();
        lock(&self.timers).retain(|(at, task)| {
            let is_due = *at <= now;
            if is_due {
                task.wake_by_ref();
            }
            !is_due
        });
        Ok(())
    }

    /// Wakes the tasks that wait for a socket and whose deadline has passed at `now`. With `None`, wakes all that wait
    /// for a socket.
    pub(crate) fn wake_expired(&self, now: Option<Instant>) {
        let is_expired = |deadline: Option<Instant>| now.is_none_or(|now| deadline.is_some_and(|at| at <= now));
        for (_, waiting) in lock(&self.sockets).iter_mut() {
            waiting.take_if(|(_, deadline)| is_expired(*deadline)).into_iter().for_each(|(task, _)| task.wake());
        }
    }

    /// Suspends the task for `duration`, or until it is woken for another reason.
    pub(crate) async fn sleep(&self, duration: Duration) {
        suspend(|waker| lock(&self.timers).push((Instant::now() + duration, waker))).await;
    }
}

/// A socket that is registered with the reactor until it is dropped.
pub(crate) struct Socket<S: AsFd> {
    reactor: &'static Reactor,
    key: usize,
    is_for_writing: bool,
    pub(crate) source: S,
}

impl<S: AsFd> Socket<S> {
    /// Registers `source` in level mode: a source that is still ready is reported again.
    #[allow(unsafe_code)]
    pub(crate) fn new(reactor: &'static Reactor, source: S) -> io::Result<Self> {
        let key = lock(&reactor.sockets).insert(None);
        let socket = Self { reactor, key, is_for_writing: false, source };
        let descriptor = socket.source.as_fd().as_raw_fd();
        // SAFETY: a source must be deleted from its poller before it is closed. The socket owns it until `drop`, which
        // deletes it, and nothing in this example moves it out.
        unsafe { reactor.poller.add_with_mode(descriptor, Event::readable(key), PollMode::Level)? };
        Ok(socket)
    }

    /// Suspends the task until the socket can be read (or written), or `deadline` has passed.
    pub(crate) async fn ready(&mut self, is_for_writing: bool, deadline: Option<Instant>) -> io::Result<()> {
        if is_for_writing != self.is_for_writing {
            let event = Event::new(self.key, !is_for_writing, is_for_writing);
            self.reactor.poller.modify_with_mode(&self.source, event, PollMode::Level)?;
            self.is_for_writing = is_for_writing;
        }
        suspend(|waker| lock(&self.reactor.sockets)[self.key] = Some((waker, deadline))).await;
        Ok(())
    }
}

impl<S: AsFd> Drop for Socket<S> {
    fn drop(&mut self) {
        let _ = self.reactor.poller.delete(&self.source); // this fails only if it was never added
        lock(&self.reactor.sockets).remove(self.key);
    }
}

/// Passes the task's waker to `store`, and suspends the task until that waker is called.
async fn suspend(store: impl FnOnce(Waker)) {
    let mut store = Some(store);
    let poll = |context: &mut Context<'_>| match store.take() {
        Some(store) => {
            store(context.waker().clone());
            Poll::Pending
        }
        None => Poll::Ready(()), // the task is polled again, so it was woken
    };
    poll_fn(poll).await;
}

/// Locks a mutex, even if a thread has panicked while it held the lock.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
