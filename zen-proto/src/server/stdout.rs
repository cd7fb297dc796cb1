//! Writing to the standard output, which a parent process may read.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

/// Writes the ready line or the help text. If stdout is non-blocking (a parent such as Node sets that) and full, waits
/// until it has room.
pub(super) fn announce(text: &str) -> io::Result<()> {
    let (stdout, mut rest) = (io::stdout(), text.as_bytes());
    while !rest.is_empty() {
        match retry_on_intr(|| rustix::io::write(&stdout, rest)) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::AGAIN) => {
                retry_on_intr(|| poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
