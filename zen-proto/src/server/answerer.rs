//! Working out an answer: the aphorisms, after the simulated work that the command line asks for.

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
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        if let Some(delay) = self.delay() {
            thread::sleep(delay);
        }
        self.answer_now(question)
    }

    /// Returns the time that `--delay` puts before each answer, for a server that waits in another way than by sleeping.
    pub fn delay(&self) -> Option<Duration> {
        self.work.as_ref()?.delay
    }

    /// Returns the answer to `question` without the delay. `None` is a panic.
    pub fn answer_now(&self, question: &[u8]) -> Option<Answer> {
        match &self.work {
            None => Some(answer_to(question)),
            Some(work) => catch(|| {
                work.run(question);
                answer_to(question)
            }),
        }
    }
}

/// Runs an answer function; a panic in it is counted, and `None`.
pub fn catch<T>(answer: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(answer)).inspect_err(|_| count(Figure::Panics)).ok()
}

/// Simulated work before each answer. The book put a `time.sleep` into its `get_answer`; here it is a flag.
#[derive(Debug)]
pub(super) struct Work {
    delay: Option<Duration>,
    burn: Option<Duration>,
    panic_on: Option<String>,
    abort_on: Option<String>,
}

impl Work {
    /// The work that the command line asks for, if any.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let works = options.delay.is_some() || options.burn.is_some();
        let fails = options.panic_on.is_some() || options.abort_on.is_some();
        (works || fails).then(|| Self {
            delay: options.delay,
            burn: options.burn,
            panic_on: options.panic_on.clone(),
            abort_on: options.abort_on.clone(),
        })
    }

    fn run(&self, question: &[u8]) {
        if let Some(burn) = self.burn {
            let begin = Instant::now();
            while begin.elapsed() < burn {
                std::hint::spin_loop();
            }
        }
        let is = |fault: &Option<String>| fault.as_ref().is_some_and(|fault| fault.as_bytes() == question);
        if is(&self.abort_on) {
            abort();
        }
        assert!(!is(&self.panic_on), "--panic-on {}", Excerpt(question));
    }
}
