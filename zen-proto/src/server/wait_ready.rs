//! Waiting until one of several descriptors is ready.

use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use super::constants::BACK_OFF;

/// Sleeps until one of `descriptors` is ready, for at most `timeout` (`None`: no limit).
///
/// It may return early, and does not return which are ready: the caller tries each without blocking.
pub(super) fn wait_ready(mut descriptors: Vec<PollFd<'_>>, timeout: Option<Duration>) {
    let timespec = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    if poll(&mut descriptors, timespec.as_ref()).is_err_and(|error| error != Errno::INTR) {
        // Out of memory, or EINVAL: RLIMIT_NOFILE was lowered below the number of descriptors. An immediate retry
        // would keep a processor busy.
        thread::sleep(timeout.map_or(BACK_OFF, |timeout| timeout.min(BACK_OFF)));
    }
}
