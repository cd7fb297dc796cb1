//! The clients that the page adds. Each behaves in its own way, connects again after every ending, and goes on until
//! it is removed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::harness::client::{APHORISMS, refuse_self};
use crate::trace::model::{Event, Kind};
use crate::trace::scenario::{Visit, now};
use crate::trace::strace::{Micros, NOT_YET};

/// What a client does on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Behaviour {
    /// Asks, reads the answer, thinks, and asks again.
    Honest,
    /// Sends nothing.
    Silent,
    /// Sends a question so slowly that the question timeout passes.
    Dripping,
    /// Asks without end and reads no answer.
    NeverReading,
    /// Sends many questions in one go and reads all answers.
    Pipelining,
    /// Sends half a question and closes.
    HalfQuestion,
}

impl Behaviour {
    /// Returns its name, as in a recording.
    pub(super) fn name(self) -> &'static str {
        match self {
            Behaviour::Honest => "honest",
            Behaviour::Silent => "silent",
            Behaviour::Dripping => "dripping",
            Behaviour::NeverReading => "never-reading",
            Behaviour::Pipelining => "pipelining",
            Behaviour::HalfQuestion => "half-question",
        }
    }
}

/// One client. Dropped, it closes its connection.
pub(super) struct Client {
    pub(super) number: usize,
    behaviour: Behaviour,
    seen: Rc<RefCell<Seen>>,
    connections: Option<JoinHandle<()>>,
}

/// What a client did and saw.
#[derive(Default)]
struct Seen {
    answers: u64,
    /// Its newest connections.
    visits: VecDeque<Visit>,
}

impl Client {
    /// Returns a client that is not connected yet.
    pub(super) fn new(number: usize, behaviour: Behaviour) -> Client {
        Client { number, behaviour, seen: Rc::default(), connections: None }
    }

    /// Begins to connect to a server, and forgets its connections to the previous one.
    pub(super) fn connect(&mut self, server: SocketAddr) {
        self.seen.borrow_mut().visits.clear();
        let (number, behaviour, seen) = (self.number, self.behaviour, Rc::clone(&self.seen));
        let connections = async move {
            loop {
                let mut connection = Connection { number, behaviour, seen: &seen };
                connection.begin();
                let Err(ending) = connection.last(server).await;
                connection.end(ending);
                sleep(AWAY).await;
            }
        };
        self.connections = Some(spawn_local(connections));
    }

    /// Closes its connection and does not connect again.
    pub(super) fn disconnect(&mut self) {
        if let Some(connections) = self.connections.take() {
            connections.abort();
        }
    }

    /// Returns how many answers it has had.
    pub(super) fn answers(&self) -> u64 {
        self.seen.borrow().answers
    }

    /// Returns its connections since `start`. One that is still open is returned as if it ended `now`.
    pub(super) fn visits(&self, start: Micros, now: Micros) -> Vec<Visit> {
        let mut seen = self.seen.borrow_mut();
        seen.forget(start);
        seen.visits.iter().map(|visit| Visit { left: visit.left.min(now), ..visit.clone() }).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl Seen {
    /// Forgets connections that ended before `start`. Of the others it keeps the connect, and all events from the last
    /// answer before `start` on.
    fn forget(&mut self, start: Micros) {
        // The last one stays, so that the page can say how it ended.
        while self.visits.len() > 1 && self.visits[0].left < start {
            self.visits.pop_front();
        }
        for visit in &mut self.visits {
            let is_old_answer = |event: &Event| event.kind == Kind::Answered && event.at < start;
            // The first event is that it connected.
            if let Some(last) = visit.events.iter().rposition(is_old_answer) {
                visit.events.drain(1..last);
            }
        }
    }
}

/// A connection of a client.
struct Connection<'a> {
    number: usize,
    behaviour: Behaviour,
    seen: &'a RefCell<Seen>,
}

impl Connection<'_> {
    fn begin(&mut self) {
        self.seen.borrow_mut().visits.push_back(Visit {
            client: self.number,
            behaviour: self.behaviour.name(),
            is_subject: false,
            port: 0,
            came: now(),
            events: Vec::new(),
            left: NOT_YET,
        });
    }

    fn end(&mut self, ending: Kind) {
        self.saw(ending, 0);
        self.change(|visit| visit.left = now());
    }

    fn saw(&self, kind: Kind, count: usize) {
        self.change(|visit| visit.events.push(Event { at: now(), kind, count, text: String::new() }));
    }

    fn change(&self, change: impl FnOnce(&mut Visit)) {
        self.seen.borrow_mut().visits.back_mut().map(change);
    }

    /// Connects, and does what its behaviour demands until the connection ends. Returns how it ended.
    async fn last(&mut self, server: SocketAddr) -> Result<Infallible, Kind> {
        let socket = TcpSocket::new_v4().map_err(kind)?;
        if self.behaviour == Behaviour::NeverReading {
            // Before connecting, as the window is announced with the first segment.
            socket.set_recv_buffer_size(SMALL_BUFFER).map_err(kind)?;
        }
        let mut stream = socket.connect(server).await.map_err(kind)?;
        refuse_self(&stream, server).map_err(kind)?;
        stream.set_nodelay(true).map_err(kind)?;
        let port = stream.local_addr().map_err(kind)?.port();
        self.change(|visit| visit.port = port);
        self.saw(Kind::Connected, 0);
        match self.behaviour {
            Behaviour::Honest => self.ask(&mut stream, 1).await,
            Behaviour::Pipelining => self.ask(&mut stream, AT_ONCE).await,
            Behaviour::Silent => loop {
                self.pause(&mut stream, THINKING).await?;
            },
            Behaviour::Dripping => loop {
                for byte in APHORISMS[0].0 {
                    self.send(&mut stream, &[*byte]).await?;
                    self.pause(&mut stream, DRIP).await?;
                }
            },
            Behaviour::NeverReading => {
                self.saw(Kind::StoppedReading, 0);
                loop {
                    stream.write_all(&[b'?'; 4096]).await.map_err(kind)?;
                }
            }
            Behaviour::HalfQuestion => {
                self.send(&mut stream, b"Beautiful is").await?;
                self.pause(&mut stream, THINKING).await?;
                Err(Kind::Left)
            }
        }
    }

    /// Asks this number of questions in one go, reads the answers, thinks, and begins again.
    async fn ask(&self, stream: &mut TcpStream, at_once: usize) -> Result<Infallible, Kind> {
        loop {
            for (question, _) in APHORISMS {
                self.send(stream, &question.repeat(at_once)).await?;
                let mut answers = 0;
                while answers < at_once {
                    answers += self.read(stream).await?;
                }
                self.pause(stream, THINKING).await?;
            }
        }
    }

    async fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Kind> {
        let questions = bytes.iter().filter(|&&byte| byte == b'?').count();
        self.saw(if questions > 0 { Kind::Asked } else { Kind::Sent }, questions);
        stream.write_all(bytes).await.map_err(kind)
    }

    /// Waits for `time`, and notices if the server ends the connection meanwhile.
    async fn pause(&self, stream: &mut TcpStream, time: Duration) -> Result<(), Kind> {
        let until_it_ends = async {
            loop {
                self.read(stream).await?;
            }
        };
        timeout(time, until_it_ends).await.unwrap_or(Ok(()))
    }

    /// Waits for bytes and returns how many answers end in them.
    async fn read(&self, stream: &mut TcpStream) -> Result<usize, Kind> {
        let mut buffer = [0; 4096];
        let bytes = match stream.read(&mut buffer).await.map_err(kind)? {
            0 => return Err(Kind::Ended),
            n => &buffer[..n],
        };
        if bytes.starts_with(b"Error: too many clients.") {
            return Err(Kind::Rejected);
        }
        let answers = bytes.iter().filter(|&&byte| byte == b'.').count();
        if answers > 0 {
            self.saw(Kind::Answered, answers);
        }
        self.seen.borrow_mut().answers += answers as u64;
        Ok(answers)
    }
}

/// Returns how a connection ended that failed with this error.
fn kind(error: io::Error) -> Kind {
    match error.kind() {
        ErrorKind::ConnectionRefused => Kind::Refused,
        _ => Kind::Reset,
    }
}

/// How long a client thinks about the next question, or waits before it connects again.
const THINKING: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(1);
/// The time between two bytes, so that a question takes twice as long as the server allows.
const DRIP: Duration = Duration::from_millis(400);
/// How many questions a pipelining client sends in one go.
const AT_ONCE: usize = 20;
/// The size of a receive buffer that is soon full, in bytes.
const SMALL_BUFFER: u32 = 4096;
