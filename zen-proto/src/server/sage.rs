//! Who answers: the three aphorisms, after as much thinking as the command line asks for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use crate::{Answer, Excerpt, answer_to};

/// Answers questions. The ancestor put a `time.sleep` into its `get_answer`; here it is a flag.
#[derive(Debug)]
pub struct Sage {
    delay: Option<Duration>,
    burn: Option<Duration>,
    panic_on: Option<Vec<u8>>,
    abort_on: Option<Vec<u8>>,
    panics: AtomicUsize,
}

impl Sage {
    pub(super) fn new(options: &Options) -> Self {
        let bytes = |question: &Option<String>| question.clone().map(String::into_bytes);
        Self {
            delay: options.delay,
            burn: options.burn,
            panic_on: bytes(&options.panic_on),
            abort_on: bytes(&options.abort_on),
            panics: AtomicUsize::new(0),
        }
    }

    /// The answer to `question`, which may take a while. `None` if thinking panicked: that is the end
    /// of one conversation and not of the server.
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        let answer = catch_unwind(AssertUnwindSafe(|| self.think(question))).ok();
        match answer {
            Some(answer) => log::trace!("{} {}", Excerpt(question), answer.as_str()),
            None => _ = self.panics.fetch_add(1, Ordering::Relaxed),
        }
        answer
    }

    /// How often thinking has panicked.
    pub(super) fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    fn think(&self, question: &[u8]) -> Answer {
        if let Some(delay) = self.delay {
            std::thread::sleep(delay);
        }
        if let Some(burn) = self.burn {
            let begin = Instant::now();
            while begin.elapsed() < burn {
                std::hint::spin_loop();
            }
        }
        if self.abort_on.as_deref() == Some(question) {
            abort();
        }
        assert!(self.panic_on.as_deref() != Some(question), "--panic-on {}", Excerpt(question));
        answer_to(question)
    }
}
