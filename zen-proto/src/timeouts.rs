//! The timeouts of a conversation.

use std::time::{Duration, Instant};

/// The two timeouts of a conversation.
///
/// Each is a number of milliseconds, of which 0 means no timeout. They take only eight bytes, because every idle client
/// has a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    idle: u32,
    question: u32,
}

impl Timeouts {
    /// No timeouts: the conversation waits for its client without limit.
    pub const NEVER: Self = Self { idle: 0, question: 0 };

    /// Creates timeouts with a precision of a millisecond. A duration of zero, or of more than 49 days, is no timeout.
    ///
    /// `idle` runs from accept, or from the last answer sent, until a question begins. `question` runs from the first
    /// byte of a question to its `?`, or from the sending of the answers before it. It also runs from the first write
    /// that is not accepted as a whole, and restarts whenever the kernel accepts bytes.
    pub fn new(idle: Duration, question: Duration) -> Self {
        Self { idle: milliseconds(idle), question: milliseconds(question) }
    }

    pub(crate) fn idle_deadline(self, now: Instant) -> Option<Instant> {
        after(now, self.idle)
    }

    pub(crate) fn question_deadline(self, now: Instant) -> Option<Instant> {
        after(now, self.question)
    }
}

/// Returns whole milliseconds, rounded up, because 0 means no timeout.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(0)
}

fn after(now: Instant, milliseconds: u32) -> Option<Instant> {
    (milliseconds > 0).then(|| now + Duration::from_millis(milliseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_exact_to_the_millisecond_and_never_early() {
        let now = Instant::now();
        let deadline = |idle| Timeouts::new(idle, Duration::ZERO).idle_deadline(now).map(|deadline| deadline - now);
        assert_eq!(deadline(Duration::from_millis(1500)), Some(Duration::from_millis(1500)));
        assert_eq!(deadline(Duration::from_micros(1)), Some(Duration::from_millis(1)));
        assert_eq!(deadline(Duration::ZERO), None);
        assert_eq!(deadline(Duration::MAX), None);
    }
}
