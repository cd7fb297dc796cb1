//! One client of a scenario: its steps, and what it did and saw, with times.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::Plan;
use crate::harness::WAIT_LIMIT;
use crate::harness::client::connect;
use crate::trace::model::{Event, Kind};
use crate::trace::strace::Micros;

/// One thing that a client does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Sends a question and reads its answer.
    Ask(&'static [u8]),
    /// Sends these bytes.
    Send(&'static [u8]),
    /// Reads until this many more answers have arrived.
    Answers(usize),
    /// Reads what arrives in this time.
    Listen(Duration),
    /// Asks without reading, for this time or until it is reset.
    Flood(Duration),
    EndSending,
}

/// What one client did and saw, by the clock that strace reads too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Its number: 1, 2, 3 …
    pub(crate) client: usize,
    pub(crate) behaviour: &'static str,
    pub(crate) is_subject: bool,
    /// The client's port, by which accept() identifies it; 0 if it was refused.
    pub(crate) port: u16,
    pub(crate) came: Micros,
    pub(crate) events: Vec<Event>,
    pub(crate) left: Micros,
}

impl Visit {
    /// Returns the times of the events of this kind.
    pub(crate) fn times(&self, kind: Kind) -> impl Iterator<Item = Micros> {
        self.events.iter().filter(move |event| event.kind == kind).map(|event| event.at)
    }

    /// Returns how many answers it had.
    pub(crate) fn answers(&self) -> usize {
        self.events.iter().filter(|event| event.kind == Kind::Answered).map(|event| event.count).sum()
    }

    /// Returns the time from connecting to the first answer.
    pub(crate) fn first_wait(&self) -> Micros {
        self.times(Kind::Answered).next().unwrap_or(self.left) - self.came
    }

    /// Returns the time from each question to its answer.
    pub(crate) fn answer_times(&self) -> Vec<Micros> {
        self.times(Kind::Asked).zip(self.times(Kind::Answered)).map(|(asked, answered)| answered - asked).collect()
    }
}

/// Connects to the server and does all steps, until the server ends the connection.
pub(super) fn visit(address: SocketAddr, client: usize, plan: &Plan, begun: Option<Sender<()>>) -> Result<Visit> {
    thread::sleep(plan.after);
    let came = now();
    let visit = |port, events, left| Visit {
        client,
        behaviour: plan.behaviour,
        is_subject: plan.is_subject,
        port,
        came,
        events,
        left,
    };
    let stream = match connect(address, WAIT_LIMIT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let refused = Event { at: now(), kind: Kind::Refused, count: 0, text: String::new() };
            return Ok(visit(0, vec![refused], now()));
        }
        Err(error) => return Err(error).with_context(|| format!("client {client} cannot connect")),
    };
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    let mut talk = Talk { stream, events: Vec::new(), partial: Vec::new() };
    talk.saw(Kind::Connected, 0, b"");
    let mut begun = begun;
    for step in &plan.steps {
        if !talk.does(step).with_context(|| format!("client {client}: {step:?}"))? {
            break;
        }
        if let Some(begun) = begun.take() {
            // If the receiver has timed out, the result is not needed.
            let _ = begun.send(());
        }
    }
    // Taken before the connection closes, so that what the server does about it comes later.
    let left = now();
    if !talk.is_over() {
        talk.saw(Kind::Left, 0, b"");
    }
    Ok(visit(port, talk.events, left))
}

/// Returns the time by the clock that strace reads too.
pub(crate) fn now() -> Micros {
    // A clock before 1970 spoils only the picture.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Micros)
}

/// A client that is connected.
struct Talk {
    stream: TcpStream,
    events: Vec<Event>,
    /// The beginning of an answer.
    partial: Vec<u8>,
}

impl Talk {
    /// Does one step. Returns false if the server has ended the conversation.
    fn does(&mut self, step: &Step) -> Result<bool> {
        match *step {
            Step::Ask(question) => {
                return Ok(self.does(&Step::Send(question))? && self.does(&Step::Answers(1))?);
            }
            Step::Send(bytes) => {
                let questions = bytes.iter().filter(|&&byte| byte == b'?').count();
                let kind = if questions > 0 { Kind::Asked } else { Kind::Sent };
                self.saw(kind, questions, bytes);
                if let Err(error) = io::Write::write_all(&mut self.stream, bytes) {
                    self.broke(&error)?;
                }
            }
            Step::Answers(count) => {
                let wanted = self.answers() + count;
                self.read_for(WAIT_LIMIT, |talk| talk.answers() >= wanted)?;
            }
            Step::Listen(time) => self.read_for(time, |_| false)?,
            Step::Flood(time) => self.flood(time)?,
            Step::EndSending => {
                self.saw(Kind::EndedSending, 0, b"");
                self.stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(!self.is_over())
    }

    fn is_over(&self) -> bool {
        self.events.iter().any(|event| matches!(event.kind, Kind::Ended | Kind::Reset))
    }

    fn answers(&self) -> usize {
        self.events.iter().filter(|event| event.kind == Kind::Answered).map(|event| event.count).sum()
    }

    fn saw(&mut self, kind: Kind, count: usize, bytes: &[u8]) {
        let shown = &bytes[..bytes.len().min(LONGEST_TEXT)];
        let cut = if bytes.len() > LONGEST_TEXT { "…" } else { "" };
        self.events.push(Event { at: now(), kind, count, text: format!("{}{cut}", shown.escape_ascii()) });
    }

    fn read_for(&mut self, time: Duration, is_enough: impl Fn(&Talk) -> bool) -> Result<()> {
        let deadline = Instant::now() + time;
        let mut chunk = [0; 4096];
        while !is_enough(self) && !self.is_over() {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => self.saw(Kind::Ended, 0, b""),
                Ok(n) => self.received(&chunk[..n]),
                Err(error) => self.broke(&error)?,
            }
        }
        Ok(())
    }

    /// Records the whole answers of one read as one event. The beginning of a further answer is kept for the next read.
    fn received(&mut self, bytes: &[u8]) {
        self.partial.extend(bytes);
        let Some(end) = self.partial.iter().rposition(|&byte| byte == b'.') else { return };
        let whole: Vec<u8> = self.partial.drain(..=end).collect();
        let count = whole.iter().filter(|&&byte| byte == b'.').count();
        let kind = if whole.starts_with(b"Error: too") { Kind::Rejected } else { Kind::Answered };
        self.saw(kind, count, &whole);
    }

    /// Records a reset. A timeout or an interrupted call is no event. Returns any other error.
    fn broke(&mut self, error: &io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.saw(Kind::Reset, 0, b""),
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
            _ => anyhow::bail!("{error}"),
        }
        Ok(())
    }

    fn flood(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        self.saw(Kind::StoppedReading, 0, b"");
        let questions = [b'?'; 4096];
        self.saw(Kind::Asked, questions.len(), b"?????? and so on");
        while !self.is_over() && Instant::now() < deadline {
            match rustix::net::send(&self.stream, &questions, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => {}
                Err(Errno::AGAIN) => thread::sleep(Duration::from_millis(2)),
                Err(errno) => self.broke(&errno.into())?,
            }
        }
        Ok(())
    }
}

/// The most bytes that an event keeps.
const LONGEST_TEXT: usize = 48;
