//! Times and sizes that several modules use.

use std::time::Duration;

/// The longest sleep of a blocking call, and the time between two checks of all deadlines. A deadline may be noticed up
/// to one tick late.
pub const TICK: Duration = Duration::from_millis(250);

/// The pause before a retry when no descriptor or memory is left.
pub const BACK_OFF: Duration = Duration::from_millis(100);

/// The size of a read in bytes.
pub const READ_SIZE: usize = 4096;
