//! Who answers: the three aphorisms, after as much thinking as the command line asks for.

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
}

impl Sage {
    pub(super) fn new(options: &Options) -> Self {
        let thinks = options.delay.is_some() || options.burn.is_some();
        let fails = options.panic_on.is_some() || options.abort_on.is_some();
        let thought = Thought {
            delay: options.delay,
            burn: options.burn,
            panic_on: options.panic_on.clone(),
            abort_on: options.abort_on.clone(),
        };
        Self { thought: (thinks || fails).then_some(thought) }
    }

    /// The answer to `question`, which may take a while. `None` if thinking panicked: that is the end
    /// of one conversation and not of the server.
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        if let Some(thought) = &self.thought {
            let thinking = catch_unwind(AssertUnwindSafe(|| thought.think_about(question)));
            watchdog::beat_between_thoughts();
            thinking.inspect_err(|_| count(Figure::Panics)).ok()?;
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
        let is = |fault: &Option<String>| fault.as_ref().is_some_and(|fault| fault.as_bytes() == question);
        if is(&self.abort_on) {
            abort();
        }
        assert!(!is(&self.panic_on), "--panic-on {}", Excerpt(question));
    }
}
