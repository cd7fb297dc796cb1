//! Working out an answer: the aphorisms, after the simulated work that the command line asks for.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::thread;
use std::time::{Duration, Instant};

use super::Options;
use super::figures::{Figure, count};
use super::run::Server;
use crate::{Answer, Excerpt, answer_to};

impl Server {
    /// Returns the answer to `question`, after [`delay`](Self::delay): the calling thread sleeps, or computes, here.
    /// `None` is a panic, and the end of one conversation.
    #[inline]
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        if let Some(delay) = self.delay() {
            thread::sleep(delay);
        }
        self.answer_now(question)
    }

    /// Returns the time that `--delay` puts before each answer, for a server that waits in another way than by sleeping.
    #[inline]
    pub fn delay(&self) -> Option<Duration> {
        self.work.as_ref()?.delay
    }

    /// Returns the answer to `question` without the delay. `None` is a panic.
    #[inline]
    pub fn answer_now(&self, question: &[u8]) -> Option<Answer> {
        if let Some(work) = &self.work {
            work.run(question)?;
        }
        Some(answer_to(question))
    }
}

thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs an answer function. A panic in it is `None`, and the end of one conversation; any other drains the server.
pub fn catch<T>(answer: impl FnOnce() -> T) -> Option<T> {
    let was_catching = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(answer));
    IS_CATCHING.set(was_catching);
    result.inspect_err(|_| count(Figure::Panics)).ok()
}

/// Returns whether a panic of this thread would be caught by [`catch`].
pub(super) fn is_catching() -> bool {
    IS_CATCHING.get()
}

/// Simulated work before each answer. The book put a `time.sleep` into its `get_answer`; here it is a flag.
#[derive(Debug)]
pub(super) struct Work {
    delay: Option<Duration>,
    burn: Option<Duration>,
    panic_on: Option<String>,
    abort_on: Option<String>,
    panic_outside: Option<String>,
}

impl Work {
    /// The work that the command line asks for, if any.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let works = options.delay.is_some() || options.burn.is_some();
        let faults = [&options.panic_on, &options.abort_on, &options.panic_outside];
        let fails = faults.iter().any(|fault| fault.is_some());
        (works || fails).then(|| Self {
            delay: options.delay,
            burn: options.burn,
            panic_on: options.panic_on.clone(),
            abort_on: options.abort_on.clone(),
            panic_outside: options.panic_outside.clone(),
        })
    }

    /// `None`: it panicked.
    fn run(&self, question: &[u8]) -> Option<()> {
        assert!(!is(&self.panic_outside, question), "--panic-outside {}", Excerpt(question));
        catch(|| self.burn_and_fail(question))
    }

    fn burn_and_fail(&self, question: &[u8]) {
        if let Some(burn) = self.burn {
            let begin = Instant::now();
            while begin.elapsed() < burn {
                std::hint::spin_loop();
            }
        }
        if is(&self.abort_on, question) {
            abort();
        }
        assert!(!is(&self.panic_on, question), "--panic-on {}", Excerpt(question));
    }
}

fn is(fault: &Option<String>, question: &[u8]) -> bool {
    fault.as_ref().is_some_and(|fault| fault.as_bytes() == question)
}
