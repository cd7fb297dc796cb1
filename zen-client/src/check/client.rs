//! The client that the cases play: it sends, compares what comes, and is never late.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::connect::connect_to;
use crate::text::quoted;

/// What was promised, and what came instead.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) saw: String,
}

impl Mismatch {
    /// Adds under which circumstances this was expected.
    pub(super) fn when(mut self, circumstances: &str) -> Self {
        self.expected = format!("{} {circumstances}", self.expected);
        self
    }
}

/// The outcome of a case, or of one step of it.
pub(super) type Outcome = Result<(), Mismatch>;

/// The server under judgement, for one case.
pub(super) struct Target {
    address: SocketAddr,
    timeout: Duration,
    deadline: Instant,
}

impl Target {
    /// `timeout` is the longest that the case may take; it begins now.
    pub(super) fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, deadline: Instant::now() + timeout }
    }

    /// A new client. Only `clients-at-once` has more than one at a time.
    pub(super) fn connect(&self) -> Result<Client, Mismatch> {
        Client::connect(self).map_err(|error| Mismatch { expected: "a connection".to_owned(), saw: error.to_string() })
    }
}

/// One connection. Its socket does not block, and `deadline` bounds all that it waits for.
pub(super) struct Client {
    stream: TcpStream,
    deadline: Instant,
    timeout: Duration,
    /// A write has failed. The kernel tells only once that a connection was reset: then a read sees an end of file.
    is_reset: bool,
}

/// What a read found.
enum Found {
    Bytes,
    EndOfFile,
    Reset,
    Nothing,
}

/// How long a mismatch is watched, so that it shows a whole answer and not its first byte.
const AFTERMATH: Duration = Duration::from_millis(50);
/// How long a reset may lag behind an end of file.
const AFTERSHOCK: Duration = Duration::from_millis(50);
/// How much of a mismatch is read.
const ENOUGH_TO_SEE: usize = 64;

impl Client {
    fn connect(target: &Target) -> io::Result<Self> {
        let left = target.deadline.saturating_duration_since(Instant::now());
        let stream = connect_to(target.address, Some(left.max(Duration::from_millis(1))))?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, deadline: target.deadline, timeout: target.timeout, is_reset: false })
    }

    /// Sends all of `bytes`, but reads nothing meanwhile: for what surely fits into the network.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.exchange(bytes, b"")
    }

    /// Reads exactly `answers`.
    pub(super) fn expect(&mut self, answers: &[u8]) -> Outcome {
        self.exchange(b"", answers)
    }

    /// Sends `questions` and reads exactly `answers`, both at the same time: rule 2 lets a server stop reading
    /// until its answers are taken.
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
                    let mut wish = PollFlags::empty();
                    wish.set(PollFlags::IN, received.len() < answers.len());
                    wish.set(PollFlags::OUT, !unsent.is_empty());
                    if !self.wait(wish, self.deadline) {
                        return Err(self.describe(answers, received, Found::Nothing));
                    }
                }
                Found::Nothing | Found::Bytes => {}
                end @ (Found::EndOfFile | Found::Reset) => return Err(self.describe(answers, received, end)),
            }
        }
        Ok(())
    }

    /// Ends the sending side: the server reads an end of file.
    pub(super) fn end_sending(&mut self) {
        // Fails only where the server has reset us, which the next read tells better.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads an end of file, and not a reset.
    pub(super) fn expect_end(&mut self) -> Outcome {
        let mut received = Vec::new();
        loop {
            match self.read(&mut received, ENOUGH_TO_SEE) {
                Found::EndOfFile => return Ok(()),
                Found::Nothing if self.wait(PollFlags::IN, self.deadline) => {}
                found => return Err(self.describe(b"", received, found)),
            }
        }
    }

    /// After an end of file: no reset follows. The sending side must still be open.
    pub(super) fn expect_no_reset(&mut self) -> Outcome {
        // With nothing asked for, poll reports errors and hang-ups only.
        if self.wait(PollFlags::empty(), Instant::now() + AFTERSHOCK) {
            let saw = "a reset behind it".to_owned();
            return Err(Mismatch { expected: "end of file and no reset".to_owned(), saw });
        }
        Ok(())
    }

    /// Leaves without a goodbye: the server's next read or write fails with ECONNRESET.
    pub(super) fn reset(self) -> Outcome {
        // A linger time of zero makes close() send a reset.
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| Mismatch { expected: "to reset the connection".to_owned(), saw: error.to_string() })
    }

    /// How many bytes the kernel took.
    fn write(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        match self.stream.write(bytes) {
            Ok(n) => n,
            Err(error) if is_passing(&error) => 0,
            Err(_) => {
                self.is_reset = true;
                // The rest is not wanted; what can still be read says more than this error.
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
            Ok(0) if self.is_reset => Found::Reset,
            Ok(0) => Found::EndOfFile,
            Ok(n) => {
                received.extend_from_slice(&chunk[..n]);
                Found::Bytes
            }
            Err(error) if is_passing(&error) => Found::Nothing,
            Err(_) => Found::Reset,
        }
    }

    /// Sleeps until the socket is ready; false: `until` has come first.
    fn wait(&self, wish: PollFlags, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut sockets = [PollFd::new(&self.stream, wish)];
            match poll(&mut sockets, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(_) => return false,
            }
        }
    }

    /// The difference between `answers` and `received`, at its first byte.
    fn describe(&mut self, answers: &[u8], mut received: Vec<u8>, mut found: Found) -> Mismatch {
        let same = answers.iter().zip(&received).take_while(|(a, b)| a == b).count();
        if matches!(found, Found::Bytes) {
            let until = self.deadline.min(Instant::now() + AFTERMATH);
            while received.len() < same + ENOUGH_TO_SEE && matches!(found, Found::Bytes | Found::Nothing) {
                found = self.read(&mut received, ENOUGH_TO_SEE);
                if matches!(found, Found::Nothing) && !self.wait(PollFlags::IN, until) {
                    found = Found::Bytes;
                    break;
                }
            }
        }
        // Of a long exchange show the answers before and after the first wrong byte.
        let start = if same > ENOUGH_TO_SEE / 2 { same - ENOUGH_TO_SEE / 4 } else { 0 };
        let place = if start == 0 { String::new() } else { format!(" from byte {start} on") };
        let expected = if answers.is_empty() { "end of file".to_owned() } else { quoted(&answers[start..]) + &place };
        let bytes = if received.is_empty() { None } else { Some(quoted(&received[start..])) };
        let end = match found {
            Found::Bytes => None,
            Found::EndOfFile => Some("end of file".to_owned()),
            Found::Reset => Some("a reset".to_owned()),
            Found::Nothing => Some(format!("nothing within {}", humantime::format_duration(self.timeout))),
        };
        let saw = bytes.into_iter().chain(end).collect::<Vec<_>>().join(" and then ");
        Mismatch { expected, saw }
    }
}

/// Neither an end nor an error: try again when `poll` says so.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
