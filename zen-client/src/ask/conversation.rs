//! One connection to a server.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use zen_proto::answer_to;

use super::failure::Failure;
use crate::connect::read_before;
use crate::text;

/// One connection, with the bytes received over it.
pub(super) struct Conversation {
    stream: TcpStream,
    /// The server's address, for messages.
    pub(super) peer: SocketAddr,
    /// Whether a right answer has been received.
    pub(super) has_answered: bool,
    timeout: Option<Duration>,
    /// Bytes after the last answer.
    received: Vec<u8>,
}

/// The longest answer. Anything longer without a `.` is another protocol.
const LONGEST_ANSWER: usize = 4096;
/// The time for which bytes of another protocol are read, so that an error shows more than the first byte.
const REST_WAIT: Duration = Duration::from_millis(50);

impl Conversation {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, timeout: Option<Duration>) -> Self {
        Self { stream, peer, has_answered: false, timeout, received: Vec::new() }
    }

    /// Sends `question`, and reads up to the first `.`: its answer, or a server's error.
    pub(super) fn answer_to(&mut self, question: &str) -> Result<String, Failure> {
        let answer = answer_to(question.as_bytes());
        let expected = answer.as_bytes();
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // A failed write says less than what can still be read: the server may have sent a reason.
        let unsent =
            self.stream.set_write_timeout(self.timeout).and_then(|()| self.stream.write_all(question.as_bytes()));
        let mut chunk = [0; LONGEST_ANSWER];
        loop {
            if ![expected, b"Error:"].iter().any(|answer| agree(answer, &self.received)) {
                return Err(self.foreign(question));
            }
            if let Some(stop) = self.received.iter().position(|byte| *byte == b'.') {
                let answer: Vec<u8> = self.received.drain(..=stop).collect();
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            if self.received.len() >= LONGEST_ANSWER {
                return Err(self.foreign(question));
            }
            match read_before(&self.stream, deadline, &mut chunk) {
                Ok(0) => return Err(self.ended(unsent.as_ref().err())),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) => return Err(self.ended(Some(&error))),
            }
        }
    }

    /// Returns the failure for bytes that are no answer to `question`, whatever follows them.
    fn foreign(&mut self, question: &str) -> Failure {
        let until = Some(Instant::now() + REST_WAIT);
        let mut chunk = [0; LONGEST_ANSWER];
        while self.received.len() < LONGEST_ANSWER {
            let Ok(n @ 1..) = read_before(&self.stream, until, &mut chunk) else { break };
            self.received.extend_from_slice(&chunk[..n]);
        }
        let (peer, what) = (&self.peer, text::quoted(&self.received));
        Failure::Refused(anyhow!(
            "{peer} does not speak the protocol, it sent {what} as the answer to \"{question}\": is the port right?"
        ))
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

/// Returns whether one of them begins with the other.
fn agree(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(a, b)| a == b)
}
