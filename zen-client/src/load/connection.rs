//! One connection: the questions in flight, and the comparison of every byte received.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use zen_proto::{APHORISMS, TOO_MANY};

use super::clock::Nanos;
use super::failures::Failure;
use super::mix::Kind;
use super::tally::Asked;

/// A slot for one connection after another. The slot stays when a connection fails.
pub(super) struct Connection {
    pub(super) kind: Kind,
    pub(super) stream: Option<OwnedFd>,
    pub(super) is_connected: bool,
    /// When connecting began.
    pub(super) opened: Nanos,
    /// The next address: an index that grows, and is taken modulo the number of addresses.
    pub(super) address_index: usize,
    /// When it may be opened again at the earliest.
    pub(super) not_before: Nanos,
    /// The questions in flight, the oldest first; after a failure, those to be asked again.
    pub(super) asked: VecDeque<Asked>,
    /// The number of bytes received of the first question's answer.
    matched: usize,
    /// Bytes that the kernel had no room for.
    unsent: Vec<u8>,
    /// The number of questions asked in this slot.
    pub(super) round: u64,
    /// Whether at least one answer was received in this slot.
    pub(super) is_served: bool,
    /// Whether something has failed in this slot, and was not tried again.
    pub(super) has_failed: bool,
    /// The number of connections of this slot in a row that failed without an answer.
    pub(super) failed_in_a_row: u32,
    /// Whether at least one answer was received over this very connection.
    was_answered: bool,
    /// A question that is sent byte by byte: which one, and how many of its bytes are sent.
    dripped: Option<(u8, usize)>,
}

/// The result of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The rest follows when the kernel has room.
    Part,
}

impl Connection {
    /// Returns a slot for connections that never have more than `pipeline` questions in flight. `address_index` selects
    /// its first address.
    pub(super) fn new(kind: Kind, pipeline: usize, address_index: usize) -> Self {
        Self {
            kind,
            stream: None,
            is_connected: false,
            opened: 0,
            address_index,
            not_before: 0,
            asked: VecDeque::with_capacity(if kind == Kind::Good { pipeline } else { 0 }),
            matched: 0,
            unsent: Vec::new(),
            round: 0,
            is_served: false,
            has_failed: false,
            failed_in_a_row: 0,
            was_answered: false,
            dripped: None,
        }
    }

    pub(super) fn open(&mut self, stream: OwnedFd, now: Nanos) {
        self.stream = Some(stream);
        self.opened = now;
        self.is_connected = false;
        self.matched = 0;
    }

    /// Closes the connection. The questions in flight are left to the caller.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.is_connected = false;
        if std::mem::take(&mut self.was_answered) {
            self.failed_in_a_row = 0;
        }
        self.unsent.clear();
        self.dripped = None;
    }

    /// Sends `bytes` after what is still unsent.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<Sent, Failure> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(Sent::Part);
        }
        let Some(stream) = &self.stream else { return Err(Failure::NotOpened) };
        let sent = match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            // Also while the connection is not established.
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(failure_of(error)),
        };
        if sent == bytes.len() {
            return Ok(Sent::All);
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(Sent::Part)
    }

    /// Sends the rest, when the kernel may have room again.
    pub(super) fn send_rest(&mut self) -> Result<(), Failure> {
        if !self.unsent.is_empty() {
            let rest = std::mem::take(&mut self.unsent);
            self.send(&rest)?;
        }
        Ok(())
    }

    /// Compares the received bytes with the expected ones, and calls `answered` for each whole answer.
    pub(super) fn received(&mut self, mut bytes: &[u8], mut answered: impl FnMut(Asked)) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let expected = match self.asked.front() {
                Some(asked) => &answer(asked.aphorism)[self.matched..],
                None => return Err(self.failure_for(bytes)),
            };
            let n = expected.len().min(bytes.len());
            if bytes[..n] != expected[..n] {
                return Err(self.failure_for(bytes));
            }
            if n < expected.len() {
                self.matched += n;
                return Ok(());
            }
            bytes = &bytes[n..];
            self.matched = 0;
            (self.is_served, self.was_answered) = (true, true);
            if let Some(asked) = self.asked.pop_front() {
                answered(asked);
            }
        }
        Ok(())
    }

    /// Sends the next byte of a question; returns the question after its last byte.
    pub(super) fn drip(&mut self, next: impl FnOnce() -> u8) -> Result<Option<u8>, Failure> {
        if !self.is_connected || !self.asked.is_empty() {
            return Ok(None);
        }
        let (aphorism, gone) = self.dripped.unwrap_or_else(|| (next(), 0));
        let bytes = question(aphorism);
        self.send(&bytes[gone..=gone])?;
        self.dripped = (gone + 1 < bytes.len()).then_some((aphorism, gone + 1));
        Ok(self.dripped.is_none().then_some(aphorism))
    }

    /// Returns since when it waits for something that has a timeout.
    pub(super) fn waits_since(&self) -> Option<Nanos> {
        match (&self.stream, self.asked.front()) {
            (Some(_), Some(asked)) => Some(asked.sent),
            (Some(_), None) if !self.is_connected => Some(self.opened),
            _ => None,
        }
    }

    /// Returns the failure for bytes that are no answer: wrong, unless they say that the server is full.
    fn failure_for(&self, bytes: &[u8]) -> Failure {
        let full = TOO_MANY.as_bytes();
        let is_full = !self.was_answered && self.matched == 0 && (bytes.starts_with(full) || full.starts_with(bytes));
        if is_full { Failure::Refused } else { Failure::Wrong }
    }
}

/// Returns the failure for an error of a socket.
pub(super) fn failure_of(error: Errno) -> Failure {
    match error {
        Errno::CONNREFUSED => Failure::Refused,
        Errno::TIMEDOUT => Failure::TimedOut,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => Failure::Reset,
        _ => Failure::NotOpened,
    }
}

/// Returns the bytes of a question, by its index.
pub(super) fn question(aphorism: u8) -> &'static [u8] {
    APHORISMS[usize::from(aphorism)].question.as_bytes()
}

fn answer(aphorism: u8) -> &'static [u8] {
    APHORISMS[usize::from(aphorism)].answer.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::Tally;

    /// Asks the three questions and returns how many answers `chunks` are.
    fn answers(chunks: &[&[u8]]) -> (usize, Result<(), Failure>) {
        let mut connection = Connection::new(Kind::Good, 3, 0);
        let mut tally = Tally::new(false);
        connection.asked.extend((0..3).map(|aphorism| tally.asked(0, 0, aphorism)));
        let mut count = 0;
        for chunk in chunks {
            if let Err(failure) = connection.received(chunk, |_| count += 1) {
                return (count, Err(failure));
            }
        }
        (count, Ok(()))
    }

    #[test]
    fn answers_may_come_in_any_pieces() {
        let whole = b"ugly.implicit.complex.";
        for cut in 0..whole.len() {
            assert_eq!(answers(&[&whole[..cut], &whole[cut..]]), (3, Ok(())));
        }
        assert_eq!(answers(&[b"ugly.impli"]), (1, Ok(())));
    }

    #[test]
    fn every_byte_is_compared() {
        assert_eq!(answers(&[b"ugly.implicit.complex,"]), (2, Err(Failure::Wrong)));
        assert_eq!(answers(&[b"ugly.complex.implicit."]), (1, Err(Failure::Wrong)));
        assert_eq!(answers(&[b"ugly.implicit.complex.", b"u"]), (3, Err(Failure::Wrong)));
    }

    #[test]
    fn a_full_server_refuses_and_is_not_wrong() {
        assert_eq!(answers(&[b"Error: too many clients."]), (0, Err(Failure::Refused)));
        assert_eq!(answers(&[b"ugly.", b"Error: too many clients."]), (1, Err(Failure::Wrong)));
        assert_eq!(answers(&[b"Error: unknown aphorism."]), (0, Err(Failure::Wrong)));
    }
}
