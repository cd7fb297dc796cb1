//! The model of a recording, from which the terminal, the pictures, the poster and the pages draw.
//!
//! As JSON it is one object. `schema` changes when a field changes its meaning or is removed. Times are microseconds
//! since the first client connected. Fields without a value are left out.
//!
//! | field | meaning |
//! | --- | --- |
//! | `schema` | `"zen recording 1"` |
//! | `server`, `command` | the name in the list of servers, and the command line |
//! | `scenario` | what the clients do, as `cargo xtask trace --help` names it |
//! | `length` | the end of all lanes |
//! | `work` | how long the server works on an answer (`--delay`) |
//! | `seats` | how many connections the kernel keeps until accept() takes them: `--backlog` and one |
//! | `drained` | when the server was told to drain |
//! | `subjects` | the clients that a question can be about |
//! | `threads` | for each: `name`, `process`, `thread` and `intervals` without a gap |
//! | `intervals` of a thread | `from`, `until`, `activity`, `client` (which it serves), `source` (an index) |
//! | `call`, `calls` | the longest of an interval's system calls, and how many there are |
//! | `activity` | asleep: `accept`, `recv`, `poll`, `thread`, `other` or `waits-to-send`; else `send` or `work` |
//! | `clients` | for each: `client` (its number), `behaviour`, `intervals`, `events` and `outcome` |
//! | `intervals` of a client | `from`, `until`, `stay` |
//! | `stay` | `connecting`, `backlog`, `answer`, `sending`, `idle` or `not-reading` |
//! | `events` | `at`, `kind`, `count` (of questions or answers) and `text` |
//! | `sources` | `file` in the workspace, `line`, and the line's `text` |

use serde::{Serialize, Serializer};

use super::strace::Micros;

/// One server under one scenario: all that a picture is drawn from.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Model {
    pub(crate) schema: &'static str,
    pub(crate) server: &'static str,
    pub(crate) command: String,
    pub(crate) scenario: &'static str,
    pub(crate) length: Micros,
    pub(crate) work: Micros,
    pub(crate) seats: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drained: Option<Micros>,
    pub(crate) subjects: Vec<usize>,
    #[serde(serialize_with = "shown")]
    pub(crate) threads: Vec<Lane>,
    pub(crate) clients: Vec<ClientLane>,
    pub(crate) sources: Vec<Source>,
}

/// What a thread does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Activity {
    /// Asleep in accept() until any client connects.
    Accept,
    /// Asleep in recv() until this one client sends.
    Recv,
    /// Asleep in epoll_wait(), poll() or io_uring_enter() until anything is ready, or done.
    Poll,
    /// Asleep until another thread or process wakes it.
    Thread,
    /// Asleep until a time, or in some other call.
    Other,
    /// Asleep in send() until this one client reads.
    WaitsToSend,
    /// In send().
    Send,
    /// Neither asleep nor in send(), or asleep to simulate work on an answer.
    Work,
}

/// A piece of a thread's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Interval {
    pub(crate) from: Micros,
    pub(crate) until: Micros,
    pub(crate) activity: Activity,
    /// The client that it works or waits for; `None` if it is no particular one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<usize>,
    /// The longest of its system calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<String>,
    pub(crate) calls: usize,
    /// The index in [`Model::sources`] of the line that belongs to this interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<usize>,
}

/// One thread.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) process: i32,
    pub(crate) thread: i32,
    pub(crate) intervals: Vec<Interval>,
    /// Whether it served a client, or waited for one to serve. The others are not drawn.
    #[serde(skip)]
    pub(crate) matters: bool,
}

/// What a client does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientState {
    /// The kernel has not completed its connection, because the backlog is full.
    Connecting,
    /// It is connected, but the server has not accepted it: it waits in the backlog.
    Backlog,
    /// It has asked and has no answer yet.
    Answer,
    /// It has sent a part of a question.
    Sending,
    /// It waits for nothing: it thinks, or says nothing at all.
    Idle,
    /// It asks, and reads no answer.
    NotReading,
}

/// A piece of a client's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ClientInterval {
    pub(crate) from: Micros,
    pub(crate) until: Micros,
    pub(crate) stay: ClientState,
}

/// One client.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClientLane {
    pub(crate) client: usize,
    pub(crate) behaviour: &'static str,
    pub(crate) intervals: Vec<ClientInterval>,
    pub(crate) events: Vec<Event>,
    pub(crate) outcome: Outcome,
}

/// Something that a client did or saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) at: Micros,
    pub(crate) kind: Kind,
    /// How many whole questions or answers it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) count: usize,
    /// The bytes, escaped and cut.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
}

/// What kind of thing a client did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Connected,
    /// The connection was refused: nothing listens.
    Refused,
    /// Sent a part of a question.
    Sent,
    /// Sent the end of a question, or several questions.
    Asked,
    /// Sends, and does not read from now on.
    StoppedReading,
    EndedSending,
    Answered,
    /// Received `Error: …`, which is no answer to a question.
    Rejected,
    /// The server ended its sending side.
    Ended,
    Reset,
    Left,
}

/// The outcome for a client, which a question of `play` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    AnsweredAtOnce,
    /// Its first answer took longer than the work on it.
    AnsweredLate,
    /// Several answers came at the same time.
    AnsweredTogether,
    /// Its whole questions were answered; then the server closed.
    AnsweredThenClosed,
    Rejected,
    /// The server closed without an answer.
    Closed,
    Reset,
    Refused,
    Nothing,
}

/// A line of a server's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Interval {
    pub(crate) fn length(&self) -> Micros {
        self.until - self.from
    }
}

impl Activity {
    /// Returns whether the thread sleeps.
    pub(crate) fn is_waiting(self) -> bool {
        !matches!(self, Activity::Send | Activity::Work)
    }
}

impl Model {
    /// Returns the lanes that are drawn.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Lane> {
        self.threads.iter().filter(|lane| lane.matters)
    }

    /// Returns the lane of a client.
    pub(crate) fn client(&self, number: usize) -> Option<&ClientLane> {
        self.clients.iter().find(|lane| lane.client == number)
    }
}

impl ClientLane {
    /// Returns when it began to connect.
    pub(crate) fn came(&self) -> Micros {
        self.intervals.first().map_or(0, |interval| interval.from)
    }

    /// Returns the times at which it received answers.
    pub(crate) fn answered(&self) -> impl Iterator<Item = Micros> {
        self.events.iter().filter(|event| event.kind == Kind::Answered).map(|event| event.at)
    }
}

/// Writes only the lanes that are drawn.
fn shown<S: Serializer>(threads: &[Lane], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(threads.iter().filter(|lane| lane.matters))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The schema that this program writes.
pub(crate) const SCHEMA: &str = "zen recording 1";
