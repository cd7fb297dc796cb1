//! The standard output, which a parent reads.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

/// Tells stdout, where nothing but the ready line or the help ever goes. Waits where it has no room: a parent, such as
/// Node, may have made it non-blocking.
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
