//! A descriptor that is registered with a poller until it is dropped. This is the only `unsafe` code of the server.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use polling::{Event, PollMode, Poller};

/// A source of events, such as a socket, which is registered with a poller for as long as this value exists.
#[derive(Debug)]
pub(crate) struct Registration<S: AsFd> {
    poller: &'static Poller,
    source: S,
}

impl<S: AsFd> Registration<S> {
    /// Registers `source` in level mode: a source that is still ready at the next wait is reported again.
    #[allow(unsafe_code)]
    pub(crate) fn new(poller: &'static Poller, source: S, interest: Event) -> io::Result<Self> {
        // SAFETY: a source must be deleted from its poller before it is closed. This guard owns the source,
        // lends it by shared reference only, and deletes it in `drop`, which comes before the drop of its fields.
        unsafe { poller.add_with_mode(source.as_fd().as_raw_fd(), interest, PollMode::Level)? };
        Ok(Self { poller, source })
    }

    /// Changes the events to wait for. `interest` also contains the key.
    pub(crate) fn modify(&self, interest: Event) -> io::Result<()> {
        self.poller.modify_with_mode(&self.source, interest, PollMode::Level)
    }

    /// Returns the source.
    pub(crate) fn source(&self) -> &S {
        &self.source
    }
}

impl<S: AsFd> Drop for Registration<S> {
    fn drop(&mut self) {
        // This fails only if the kernel has already removed the descriptor.
        let _ = self.poller.delete(&self.source);
    }
}
