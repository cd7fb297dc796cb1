//! Computing an answer: simulated work, as the command line asks for, then the table of aphorisms.

use std::thread;
use std::time::Duration;

use super::shared::Server;
use crate::{Answer, answer_to};

impl Server {
    /// Returns the answer to `question`. With `--delay` the calling thread sleeps first. With `--burn` it computes
    /// first. `None` means that a panic was caught, which ends this conversation only.
    #[inline]
    pub fn answer(&self, question: &[u8]) -> Option<Answer> {
        if let Some(delay) = self.delay() {
            thread::sleep(delay);
        }
        self.answer_now(question)
    }

    /// Returns the time of `--delay`, for a server that does not wait by sleeping.
    #[inline]
    pub fn delay(&self) -> Option<Duration> {
        self.work.as_ref()?.delay
    }

    /// Returns the answer to `question` without the delay, or `None` after a panic.
    #[inline]
    pub fn answer_now(&self, question: &[u8]) -> Option<Answer> {
        if let Some(work) = &self.work {
            work.run(question)?;
        }
        Some(answer_to(question))
    }
}
