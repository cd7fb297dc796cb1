//! Times and sizes that several modules of the chassis share.

use std::time::Duration;

/// The longest sleep of a blocking call: the deadlines of a blocking server are exact to this.
pub const TICK: Duration = Duration::from_millis(250);

/// The pause after which a server tries again when it has no descriptor or memory left.
pub const BACK_OFF: Duration = Duration::from_millis(100);

/// The most bytes that one read takes.
pub const READ_SIZE: usize = 4096;
