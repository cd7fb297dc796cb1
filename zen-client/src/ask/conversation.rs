//! One connection to a server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::Failure;
use crate::text;

/// One connection, and what has come over it.
pub(super) struct Conversation {
    stream: TcpStream,
    /// The server's address, for messages.
    pub(super) peer: SocketAddr,
    /// A right answer has come over it.
    pub(super) has_answered: bool,
    timeout: Option<Duration>,
    /// Bytes behind the last answer.
    received: Vec<u8>,
}

/// The longest answer. What is longer and holds no `.` is not this protocol.
const LONGEST_ANSWER: usize = 4096;

impl Conversation {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, timeout: Option<Duration>) -> Self {
        Self { stream, peer, has_answered: false, timeout, received: Vec::new() }
    }

    /// Sends `question`, and reads up to the first `.`.
    pub(super) fn answer_to(&mut self, question: &str) -> Result<String, Failure> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // A failed write says less than what can still be read: perhaps we were told why.
        let unsent =
            self.stream.set_write_timeout(self.timeout).and_then(|()| self.stream.write_all(question.as_bytes()));
        let mut searched = 0;
        loop {
            if let Some(stop) = self.received[searched..].iter().position(|byte| *byte == b'.') {
                let answer: Vec<u8> = self.received.drain(..=searched + stop).collect();
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            searched = self.received.len();
            if searched >= LONGEST_ANSWER {
                let (peer, what) = (&self.peer, text::quoted(&self.received));
                let advice = "is the port right?";
                return Err(Failure::Refused(anyhow!("{peer} does not speak the protocol, it sent {what}: {advice}")));
            }
            match self.read_some(deadline) {
                Ok(0) => return Err(self.ended(unsent.as_ref().err())),
                Ok(_) => {}
                Err(error) => return Err(self.ended(Some(&error))),
            }
        }
    }

    /// Waits for bytes, but not beyond `deadline`. 0: there will be no more.
    fn read_some(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        let mut chunk = [0; LONGEST_ANSWER];
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(left)?;
            match self.stream.read(&mut chunk) {
                Ok(n) => {
                    self.received.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                // A signal, or the time-out: the top of the loop knows which.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn ended(&self, error: Option<&io::Error>) -> Failure {
        let peer = &self.peer;
        let begun = if self.received.is_empty() {
            String::new()
        } else {
            format!(" in the middle of an answer, {}", text::quoted(&self.received))
        };
        Failure::Ended(match error.map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut) if self.timeout.is_some() => {
                let timeout = humantime::format_duration(self.timeout.unwrap_or_default());
                format!("{peer} sent no answer within {timeout}{begun}: try a longer --timeout")
            }
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                format!("{peer} reset the conversation{begun}: try again, or with --retries 5")
            }
            None => format!("{peer} ended the conversation{begun}: try again, or with --retries 5"),
            Some(_) => format!("{peer} cannot be read{begun}: {}", error.map(ToString::to_string).unwrap_or_default()),
        })
    }
}
