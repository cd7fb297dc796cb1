//! Who answers: the three aphorisms, after as much thinking as the command line asks for.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::time::{Duration, Instant};

use super::Options;
use super::figures::{Figure, count, count_question};
use super::watchdog;
use crate::{Answer, Excerpt, answer_to};

/// Answers questions.
#[derive(Debug)]
pub struct Sage {
    /// `None`: it knows without thinking.
    thought: Option<Thought>,
}

/// What is done before an answer. The ancestor put a `time.sleep` into its `get_answer`; here it is a flag.
#[derive(Debug)]
struct Thought {
    delay: Option<Duration>,
    burn: Option<Duration>,
    panic_on: Option<String>,
    abort_on: Option<String>,
    panic_outside: Option<String>,
}

thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`, whose panic is the end of one conversation and not of the server: then it returns `None`.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    let was_catching = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CATCHING.set(was_catching);
    result.ok()
}

/// Whether a panic of this thread would be caught by [`catch`].
pub(super) fn is_catching() -> bool {
    IS_CATCHING.get()
}

impl Sage {
    pub(super) fn new(options: &Options) -> Self {
        let thinks = options.delay.is_some() || options.burn.is_some();
        let faults = [&options.panic_on, &options.abort_on, &options.panic_outside];
        let fails = faults.iter().any(|fault| fault.is_some());
        let thought = Thought {
            delay: options.delay,
            burn: options.burn,
            panic_on: options.panic_on.clone(),
            abort_on: options.abort_on.clone(),
            panic_outside: options.panic_outside.clone(),
        };
        Self { thought: (thinks || fails).then_some(thought) }
    }

    /// The answer to `question`, which may take a while. `None` if thinking panicked: that is the end
    /// of one conversation and not of the server.
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        if let Some(thought) = &self.thought {
            assert!(!is(&thought.panic_outside, question), "--panic-outside {}", Excerpt(question));
            let thinking = catch(|| thought.think_about(question));
            watchdog::beat_between_thoughts();
            if thinking.is_none() {
                count(Figure::Panics);
            }
            thinking?;
        }
        let answer = answer_to(question);
        count_question();
        log::trace!("{} {}", Excerpt(question), answer.as_str());
        Some(answer)
    }
}

impl Thought {
    fn think_about(&self, question: &[u8]) {
        if let Some(delay) = self.delay {
            std::thread::sleep(delay);
        }
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
