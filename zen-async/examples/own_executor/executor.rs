//! The executor: it polls the tasks that have been woken, and sleeps when there are none.

use std::io;
use std::mem::swap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};

use polling::Events;

use crate::reactor::{Reactor, lock};

/// An executor that runs all tasks on one thread.
pub(crate) struct Executor {
    pub(crate) reactor: Reactor,
    /// The tasks to poll next, in the order in which they were woken.
    woken: Mutex<Vec<Arc<Task>>>,
    unfinished: AtomicUsize,
    /// The thread that polls the tasks.
    thread: ThreadId,
}

/// A future, and what its waker needs to put it on the list again.
struct Task {
    executor: &'static Executor,
    /// `None` once it is finished. Only the executor's thread locks it, so the lock never waits.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Whether the task is on the list of woken tasks.
    is_woken: AtomicBool,
}

/// A waker is a pointer to a task. It may be called at any time, from any thread.
impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // A task that is woken twice is polled once.
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let executor = self.executor;
            lock(&executor.woken).push(self);
            // Called from another thread: the executor's thread may be asleep, and must wake to see the list.
            if thread::current().id() != executor.thread {
                let _ = executor.reactor.poller.notify(); // if it fails, the executor's `wait` fails too
            }
        }
    }
}

impl Executor {
    /// Creates the executor of this thread.
    pub(crate) fn new() -> io::Result<Self> {
        let (woken, unfinished) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Self { reactor: Reactor::new()?, woken, unfinished, thread: thread::current().id() })
    }

    /// Creates a task from `future`. It is first polled in the next round.
    pub(crate) fn spawn(&'static self, future: impl Future<Output = ()> + Send + 'static) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let (future, is_woken) = (Mutex::new(Some(Box::pin(future) as _)), AtomicBool::new(false));
        Arc::new(Task { executor: self, future, is_woken }).wake();
    }

    /// Returns how many tasks are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Runs until every task is finished.
    ///
    /// 1. Poll each woken task once. Tasks that are woken meanwhile are polled in the next round.
    /// 2. Sleep in the reactor until it can wake a task. If a task is already woken, do not sleep.
    pub(crate) fn run(&self) -> io::Result<()> {
        let (mut round, mut events) = (Vec::new(), Events::new());
        loop {
            swap(&mut round, &mut *lock(&self.woken));
            round.drain(..).for_each(|task| self.poll(task));
            if self.unfinished() == 0 {
                return Ok(());
            }
            let may_sleep = lock(&self.woken).is_empty();
            self.reactor.wait(&mut events, may_sleep)?;
        }
    }

    /// Runs a task to the next `.await` at which it has to wait, or to its end.
    fn poll(&self, task: Arc<Task>) {
        // Cleared before the poll: an event that comes during the poll must put the task on the list again.
        task.is_woken.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&task));
        let mut future = lock(&task.future);
        let Some(running) = &mut *future else { return };
        if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *future = None; // this closes the socket, even if a waker still points to the task
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
