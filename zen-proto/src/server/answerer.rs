//! Working out an answer: the aphorisms, after the simulated work that the command line asks for.

use std::thread;
use std::time::Duration;

use super::shared::Server;
use crate::{Answer, answer_to};

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

    /// Returns the time that `--delay` puts before each answer, for a server that waits in another way than by
    /// sleeping.
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
