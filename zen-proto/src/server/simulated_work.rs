//! Simulated work before each answer, and faults for tests.

use std::process::abort;
use std::time::{Duration, Instant};

use super::catch::catch;
use super::options::Options;
use crate::Excerpt;

/// Simulated work before each answer. The book put a `time.sleep` into its `get_answer`; here it is a flag.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) delay: Option<Duration>,
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

    /// Computes for the time of `--burn`, and fails if a fault flag names `question`. Returns `None` after a panic.
    /// Only the panic of `--panic-outside` is not caught here.
    pub(super) fn run(&self, question: &[u8]) -> Option<()> {
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
