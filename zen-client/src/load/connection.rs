//! One connection: what is on its way, and whether every byte that comes is the right one.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use zen_proto::{APHORISMS, TOO_MANY};

use super::clock::Nanos;
use super::failures::Failure;
use super::mix::Kind;
use super::tally::Asked;

/// A connection, or the place of one that is to be opened.
pub(super) struct Connection {
    pub(super) kind: Kind,
    pub(super) stream: Option<OwnedFd>,
    pub(super) is_connected: bool,
    /// When connecting began.
    pub(super) opened: Nanos,
    /// Where it is opened next: a place among the addresses, counted on and on.
    pub(super) turn: usize,
    /// It is not opened again before.
    pub(super) not_before: Nanos,
    /// The questions on their way, the oldest first; of a connection that has failed, those to be asked again.
    pub(super) asked: VecDeque<Asked>,
    /// How much of the first one's answer has come.
    matched: usize,
    /// What the network had no room for.
    unsent: Vec<u8>,
    /// How many questions were asked, over all connections that had this place.
    pub(super) round: u64,
    /// At least one answer has come in this place.
    pub(super) is_served: bool,
    /// Something has gone wrong in this place, and was not tried again.
    pub(super) has_failed: bool,
    /// How many connections in a row have failed in this place without an answer.
    pub(super) failed_in_a_row: u32,
    /// At least one answer has come over this very connection.
    was_answered: bool,
    /// A question that goes out byte by byte: which one, and how much of it has gone.
    dripped: Option<(u8, usize)>,
}

/// What became of bytes that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The rest follows when the network has room.
    Part,
}

impl Connection {
    /// The place of a connection that never has more than `pipeline` questions on their way. Whose `turn` it is at the
    /// addresses is said by the caller.
    pub(super) fn new(kind: Kind, pipeline: usize, turn: usize) -> Self {
        Self {
            kind,
            stream: None,
            is_connected: false,
            opened: 0,
            turn,
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

    /// The place is free again. The questions on their way are left to the caller.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.is_connected = false;
        if std::mem::take(&mut self.was_answered) {
            self.failed_in_a_row = 0;
        }
        self.unsent.clear();
        self.dripped = None;
    }

    /// Sends `bytes` behind what is still unsent.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<Sent, Failure> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(Sent::Part);
        }
        let Some(stream) = &self.stream else { return Err(Failure::NotOpened) };
        let sent = match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            // Also while the connection is not yet there.
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(failure_of(error)),
        };
        if sent == bytes.len() {
            return Ok(Sent::All);
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(Sent::Part)
    }

    /// The network may have room again.
    pub(super) fn send_rest(&mut self) -> Result<(), Failure> {
        if !self.unsent.is_empty() {
            let rest = std::mem::take(&mut self.unsent);
            self.send(&rest)?;
        }
        Ok(())
    }

    /// Compares what has come with what must come, and calls `answered` for each whole answer.
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

    /// Sends the next byte of a question; true: it was the last.
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

    /// Since when it waits for something that has a time-out.
    pub(super) fn waits_since(&self) -> Option<Nanos> {
        match (&self.stream, self.asked.front()) {
            (Some(_), Some(asked)) => Some(asked.sent),
            (Some(_), None) if !self.is_connected => Some(self.opened),
            _ => None,
        }
    }

    /// Bytes that are no answer: wrong, unless they say that the server is full.
    fn failure_for(&self, bytes: &[u8]) -> Failure {
        let full = TOO_MANY.as_bytes();
        let is_full = !self.was_answered && self.matched == 0 && (bytes.starts_with(full) || full.starts_with(bytes));
        if is_full { Failure::Refused } else { Failure::Wrong }
    }
}

/// What an error of a socket says about its connection.
pub(super) fn failure_of(error: Errno) -> Failure {
    match error {
        Errno::CONNREFUSED => Failure::Refused,
        Errno::TIMEDOUT => Failure::TimedOut,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => Failure::Reset,
        _ => Failure::NotOpened,
    }
}

/// The bytes of a question, by its place among the three.
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

    /// A connection that has asked the three questions, and how many answers `bytes` are, cut as given.
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
