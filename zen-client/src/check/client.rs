//! The client of the cases: it sends, compares what it receives, and never waits beyond the deadline.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::transcript::{Transcript, What};
use crate::connect::connect_to;
use crate::text::quoted;

/// The expected bytes, and those received instead.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) saw: String,
    /// The first byte that differs, where bytes were compared.
    pub(super) difference: Option<String>,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<String>, saw: impl Into<String>) -> Self {
        Self { expected: expected.into(), saw: saw.into(), difference: None }
    }

    /// Adds the circumstances of the expectation.
    pub(super) fn when(mut self, circumstances: &str) -> Self {
        self.expected = format!("{} {circumstances}", self.expected);
        self
    }
}

/// The outcome of a case, or of one step of it.
pub(super) type Outcome = Result<(), Mismatch>;

/// The server under test, for one case.
pub(super) struct Target {
    address: SocketAddr,
    timeout: Duration,
    deadline: Instant,
    transcript: Transcript,
}

impl Target {
    /// Returns a target for one case, which may take at most `timeout` from now on.
    pub(super) fn new(address: SocketAddr, timeout: Duration, on_failure: Option<String>) -> Self {
        Self { address, timeout, deadline: Instant::now() + timeout, transcript: Transcript::new(on_failure) }
    }

    /// Connects a new client. Only `clients-at-once` has more than one at a time.
    pub(super) fn connect(&self) -> Result<Client<'_>, Mismatch> {
        Client::connect(self).map_err(|error| {
            self.transcript.observe();
            Mismatch::new("a connection", error.to_string())
        })
    }

    /// Returns the transcript and the observations.
    pub(super) fn transcript(self) -> Transcript {
        self.transcript
    }
}

/// One connection. Its socket does not block, and the target's deadline bounds all its waits.
pub(super) struct Client<'t> {
    stream: TcpStream,
    target: &'t Target,
    number: usize,
    /// Whether a write has failed. The kernel reports a reset only once: after that, a read returns end of file.
    is_reset: bool,
}

/// The result of a read.
enum Found {
    Bytes,
    EndOfFile,
    Reset,
    Nothing,
}

impl<'t> Client<'t> {
    fn connect(target: &'t Target) -> io::Result<Self> {
        let left = target.deadline.saturating_duration_since(Instant::now());
        let stream = connect_to(target.address, Some(left.max(Duration::from_millis(1))))?;
        stream.set_nonblocking(true)?;
        let client = Self { stream, target, number: target.transcript.next_client(), is_reset: false };
        client.note(What::Connects, b"");
        Ok(client)
    }

    /// Sends all of `bytes`, and reads nothing meanwhile: for what certainly fits into the kernel's buffers.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.exchange(bytes, b"")
    }

    /// Reads exactly `answers`.
    pub(super) fn expect(&mut self, answers: &[u8]) -> Outcome {
        self.exchange(b"", answers)
    }

    /// Sends `questions` and reads exactly `answers`, both at the same time: rule 2 lets a server stop reading until
    /// its answers are taken.
    pub(super) fn exchange(&mut self, questions: &[u8], answers: &[u8]) -> Outcome {
        let mut unsent = questions;
        let mut received = Vec::with_capacity(answers.len());
        while !unsent.is_empty() || received.len() < answers.len() {
            let sent = self.write(unsent);
            unsent = &unsent[sent..];
            let before = received.len();
            let found = self.read(&mut received, answers.len() - before);
            if received[before..] != answers[before..received.len()] {
                return Err(self.describe(answers, received, Found::Bytes));
            }
            match found {
                Found::Nothing if sent == 0 => {
                    let mut interest = PollFlags::empty();
                    interest.set(PollFlags::IN, received.len() < answers.len());
                    interest.set(PollFlags::OUT, !unsent.is_empty());
                    if !self.wait(interest, self.target.deadline) {
                        return Err(self.describe(answers, received, Found::Nothing));
                    }
                }
                Found::Nothing | Found::Bytes => {}
                end @ (Found::EndOfFile | Found::Reset) => return Err(self.describe(answers, received, end)),
            }
        }
        Ok(())
    }

    /// Shuts down the sending side: the server reads an end of file.
    pub(super) fn end_sending(&mut self) {
        // Fails only if the server has reset the connection, which the next read shows better.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.note(What::EndsSending, b"");
    }

    /// Expects an end of file, and no reset.
    pub(super) fn expect_end(&mut self) -> Outcome {
        let mut received = Vec::new();
        loop {
            match self.read(&mut received, SHOWN_BYTES) {
                Found::EndOfFile => return Ok(()),
                Found::Nothing if self.wait(PollFlags::IN, self.target.deadline) => {}
                found => return Err(self.describe(b"", received, found)),
            }
        }
    }

    /// Expects no reset after an end of file. The sending side must still be open.
    pub(super) fn expect_no_reset(&mut self) -> Outcome {
        // Without requested events, poll reports only errors and hang-ups.
        if self.wait(PollFlags::empty(), Instant::now() + RESET_WAIT) {
            self.note(What::SeesReset, b"");
            self.target.transcript.observe();
            return Err(Mismatch::new("end of file and no reset", "a reset after it"));
        }
        Ok(())
    }

    /// Resets the connection: the server's next read or write fails with ECONNRESET.
    pub(super) fn reset(self) -> Outcome {
        self.note(What::Resets, b"");
        // A linger time of zero makes close() send a reset.
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| Mismatch::new("to reset the connection", error.to_string()))
    }

    /// Returns how many bytes the kernel took.
    fn write(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        match self.stream.write(bytes) {
            Ok(n) => {
                self.note(What::Sends, &bytes[..n]);
                n
            }
            Err(error) if is_temporary(&error) => 0,
            Err(_) => {
                self.is_reset = true;
                // The server takes no more; what can still be read says more than this error.
                bytes.len()
            }
        }
    }

    /// Appends at most `limit` bytes to `received`.
    fn read(&mut self, received: &mut Vec<u8>, limit: usize) -> Found {
        if limit == 0 {
            return Found::Nothing;
        }
        let mut chunk = [0; 65_536];
        let limit = limit.min(chunk.len());
        match self.stream.read(&mut chunk[..limit]) {
            Ok(0) if self.is_reset => self.found(What::SeesReset),
            Ok(0) => self.found(What::SeesEnd),
            Ok(n) => {
                self.note(What::Receives, &chunk[..n]);
                received.extend_from_slice(&chunk[..n]);
                Found::Bytes
            }
            Err(error) if is_temporary(&error) => Found::Nothing,
            Err(_) => self.found(What::SeesReset),
        }
    }

    fn found(&self, what: What) -> Found {
        self.note(what, b"");
        if what == What::SeesEnd { Found::EndOfFile } else { Found::Reset }
    }

    fn note(&self, what: What, bytes: &[u8]) {
        self.target.transcript.note(self.number, what, bytes);
    }

    /// Sleeps until the socket is ready, at most until `until`. Returns whether it is ready.
    fn wait(&self, interest: PollFlags, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut sockets = [PollFd::new(&self.stream, interest)];
            match poll(&mut sockets, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(_) => return false,
            }
        }
    }

    /// Returns the difference between `answers` and `received`, at its first byte.
    fn describe(&mut self, answers: &[u8], mut received: Vec<u8>, mut found: Found) -> Mismatch {
        let same = answers.iter().zip(&received).take_while(|(a, b)| a == b).count();
        if matches!(found, Found::Bytes) {
            let until = self.target.deadline.min(Instant::now() + REST_WAIT);
            while received.len() < same + SHOWN_BYTES && matches!(found, Found::Bytes | Found::Nothing) {
                found = self.read(&mut received, SHOWN_BYTES);
                if matches!(found, Found::Nothing) && !self.wait(PollFlags::IN, until) {
                    found = Found::Bytes;
                    break;
                }
            }
        }
        if matches!(found, Found::Nothing) {
            self.note(What::SeesNothing, b"");
        }
        self.target.transcript.observe();
        // Of a long exchange, the answers around the first wrong byte are shown.
        let start = if same > SHOWN_BYTES / 2 { same - SHOWN_BYTES / 4 } else { 0 };
        let place = if start == 0 { String::new() } else { format!(" from byte {start} on") };
        let expected = if answers.is_empty() { "end of file".to_owned() } else { quoted(&answers[start..]) + &place };
        let bytes = if received.is_empty() { None } else { Some(quoted(&received[start..])) };
        let end = match found {
            Found::Bytes => None,
            Found::EndOfFile => Some("end of file".to_owned()),
            Found::Reset => Some("a reset".to_owned()),
            Found::Nothing => Some(format!("nothing within {}", humantime::format_duration(self.target.timeout))),
        };
        let difference = match (answers.get(same), received.get(same)) {
            (None, None) => end.as_ref().map(|end| format!("after the last answer: expected end of file, saw {end}")),
            (wanted, got) => {
                let end = end.as_deref().unwrap_or("nothing");
                Some(format!("byte {}: expected {}, saw {}", same + 1, shown(wanted, "end of file"), shown(got, end)))
            }
        };
        let saw = bytes.into_iter().chain(end).collect::<Vec<_>>().join(" and then ");
        Mismatch { expected, saw, difference }
    }
}

fn shown(byte: Option<&u8>, otherwise: &str) -> String {
    byte.map_or(otherwise.to_owned(), |byte| quoted(&[*byte]))
}

/// Returns whether the call should be made again when `poll` reports readiness.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The time for which bytes after a mismatch are read, so that the report shows a whole answer.
const REST_WAIT: Duration = Duration::from_millis(50);
/// The longest time between an end of file and a reset that follows it.
const RESET_WAIT: Duration = Duration::from_millis(50);
/// The most bytes of a mismatch that are read.
const SHOWN_BYTES: usize = 64;
