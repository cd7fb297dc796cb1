//! How long a conversation may wait for its client.

use std::time::{Duration, Instant};

/// The two time-outs of a conversation; `None`: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// From connect, or from the last answer sent, until a question begins.
    pub idle: Option<Duration>,
    /// From a question's first byte to its `?`; and from a write that found no room to one that finds some.
    pub question: Option<Duration>,
}

/// The moment `time_out` after `now`; never, if that lies beyond what a clock can tell.
pub(crate) fn after(now: Instant, time_out: Option<Duration>) -> Option<Instant> {
    time_out.and_then(|time_out| now.checked_add(time_out))
}
