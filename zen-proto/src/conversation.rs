//! The whole protocol with one client, as a state machine that only hears of what happened.

use std::time::{Duration, Instant};

use crate::limits::after;
use crate::{Answer, Ending, Frame, Framing, Limits, TOO_LONG};

/// What a conversation asks of its server next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// To read from the client.
    Read,
    /// To write [`Conversation::outgoing`] to it.
    Write,
    /// To shut the sending side down; what the client still sends is read then.
    EndSending,
    /// To close the connection.
    Close,
    /// To reset the connection, so that the kernel keeps nothing for this client.
    Reset,
}

/// One client's conversation.
///
/// How to drive it:
///
/// 1. Ask [`wants`](Self::wants) and do that.
/// 2. Tell what came of it: [`received`](Self::received), [`received_eof`](Self::received_eof),
///    [`sent`](Self::sent) or [`ended_sending`](Self::ended_sending).
/// 3. When [`expires_at`](Self::expires_at) has passed, read (or write) once more; if that finds
///    nothing (or no room), say [`timed_out`](Self::timed_out). A server that was itself asleep does
///    not punish its clients that way.
/// 4. When the server stops, say [`drain`](Self::drain): as soon as nothing is owed it is due (one who has just come
///    has a moment more), so step 3 ends it.
/// 5. Go on until it wants [`Want::Close`] or [`Want::Reset`].
///
/// While an answer is owed it never wants to read: that is all the back-pressure there is, and
/// it bounds the memory, since one read of `n` bytes owes at most 24 × `n`.
///
/// The form is that of the sans-IO libraries h11 and quinn-proto.
#[derive(Debug)]
pub struct Conversation {
    limits: &'static Limits,
    framing: Framing,
    /// The beginning of a question whose end has not come; empty: none has begun.
    question: Vec<u8>,
    /// Answers; the first `taken` bytes are with the network already.
    owed: Vec<u8>,
    taken: usize,
    state: State,
    deadline: Option<Instant>,
    came: Instant,
    has_spoken: bool,
    is_draining: bool,
    ending: Option<Box<Ending>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Questions are taken. When draining, at most so many more bytes of them.
    Talking { room: u32 },
    /// No further question is taken; what is owed goes out, then the sending side is ended.
    Concluding,
    /// The sending side is ended; so many bytes more are read and thrown away.
    Lingering { room: u32 },
    /// What is owed goes out, then the connection is closed.
    Closing,
    /// Nothing goes out any more.
    Resetting,
}

impl Conversation {
    /// A conversation with a client that has just come.
    pub fn new(limits: &'static Limits, now: Instant) -> Self {
        Self {
            limits,
            framing: Framing::default(),
            question: Vec::new(),
            owed: Vec::new(),
            taken: 0,
            state: State::Talking { room: u32::MAX },
            deadline: after(now, limits.idle),
            came: now,
            has_spoken: false,
            is_draining: false,
            ending: None,
        }
    }

    /// A conversation with a client who was still waiting when the server had begun to drain: it is read once.
    pub fn late(limits: &'static Limits, now: Instant) -> Self {
        let mut conversation = Self::new(limits, now);
        conversation.drain(now);
        conversation.deadline = Some(now);
        conversation
    }

    /// The client sent `bytes`. Whole questions are answered here, by `sage`; `None` from it ends the
    /// conversation without that answer.
    pub fn received(&mut self, bytes: &[u8], now: Instant, sage: &mut impl FnMut(&[u8]) -> Option<Answer>) {
        let mut framing = std::mem::take(&mut self.framing);
        let mut rest = bytes;
        while self.takes_questions() {
            match framing.next(&mut rest) {
                Some(Frame::Data(data)) => self.collected(data, now),
                Some(Frame::Last(question)) if self.question.is_empty() => {
                    self.owed.reserve(rest.len() / 2); // questions are longer than answers
                    self.answered(sage(question));
                }
                Some(Frame::Last(data)) => {
                    self.collected(data, now);
                    self.found_terminator(sage);
                }
                Some(Frame::TooLong) => self.found_no_terminator(),
                None => break,
            }
        }
        self.framing = framing;
        self.used_up(bytes.len(), now);
    }

    /// For a server that does its own [`Framing`]: `data` belongs to a question.
    pub fn collected(&mut self, data: &[u8], now: Instant) {
        let begins = self.question.is_empty();
        self.question.extend_from_slice(data);
        self.has_spoken = true;
        if begins && self.owed.is_empty() {
            self.deadline = self.next_deadline(now);
        }
    }

    /// For a server that does its own [`Framing`]: the question that was collected is whole.
    pub fn found_terminator(&mut self, sage: &mut impl FnMut(&[u8]) -> Option<Answer>) {
        let question = std::mem::take(&mut self.question);
        self.answered(sage(&question));
    }

    /// For a server that does its own [`Framing`]: the question is too long.
    pub fn found_no_terminator(&mut self) {
        self.question = Vec::new();
        self.answered(Some(TOO_LONG));
        self.conclude(Ending::TooLong);
    }

    /// For a server that does its own [`Framing`]: all frames of a chunk of `length` bytes are told.
    pub fn used_up(&mut self, length: usize, now: Instant) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match &mut self.state {
            // White space without end is nothing too.
            State::Talking { .. } if !self.is_draining && self.owed.is_empty() && self.question.is_empty() => {
                self.timed_out(now);
            }
            State::Talking { room } if self.is_draining => {
                *room = room.saturating_sub(length);
                if *room == 0 {
                    self.conclude(Ending::Drained);
                }
            }
            State::Lingering { room } => {
                *room = room.saturating_sub(length);
                if *room == 0 {
                    self.state = State::Closing;
                }
            }
            _ => {}
        }
    }

    /// The client will send no more.
    pub fn received_eof(&mut self) {
        if self.takes_questions() {
            let question = std::mem::take(&mut self.question);
            let ending = if question.is_empty() { Ending::Finished } else { Ending::CutShort(question.into()) };
            self.ending = Some(Box::new(ending));
        }
        self.state = State::Closing;
    }

    /// The network took the first `n` bytes of [`outgoing`](Self::outgoing); 0: it takes none now.
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.taken += n;
        if self.taken < self.owed.len() {
            // No room: from now on the client has time to make some, and all of it again for every byte.
            if n > 0 || self.deadline.is_none() {
                self.deadline = after(now, self.limits.question);
            }
            return;
        }
        self.taken = 0;
        if self.owed.capacity() > KEPT_CAPACITY {
            self.owed = Vec::new();
        } else {
            self.owed.clear();
        }
        self.deadline = self.next_deadline(now);
    }

    /// The sending side is shut down.
    pub fn ended_sending(&mut self, now: Instant) {
        let linger = if self.is_draining { DRAINING_LINGER } else { LINGER };
        self.state = State::Lingering { room: LINGER_BYTES };
        self.deadline = after(now, Some(linger));
    }

    /// A read that began at `now` found nothing, or a write no room. Before
    /// [`expires_at`](Self::expires_at) that means nothing.
    pub fn timed_out(&mut self, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        match self.state {
            _ if !self.owed.is_empty() => {
                self.ending = Some(Box::new(Ending::NotReading));
                self.state = State::Resetting;
            }
            State::Talking { .. } if self.is_draining => {
                self.conclude(Ending::Drained);
                if !self.has_spoken {
                    self.state = State::Closing;
                }
            }
            State::Talking { .. } => {
                let question = std::mem::take(&mut self.question);
                let ending = if question.is_empty() { Ending::Idle } else { Ending::TooSlow(question.into()) };
                self.ending = Some(Box::new(ending));
                self.state = State::Closing;
            }
            State::Lingering { .. } => self.state = State::Closing,
            State::Concluding | State::Closing | State::Resetting => {}
        }
    }

    /// The server is stopping: what the client has sent is still answered, and one who has just come may
    /// still speak. Saying it again changes nothing.
    pub fn drain(&mut self, now: Instant) {
        if self.is_draining {
            return;
        }
        self.is_draining = true;
        match &mut self.state {
            State::Talking { room } => {
                *room = DRAIN_BYTES;
                if self.owed.is_empty() {
                    // The first question of one who has just come may be right behind.
                    self.deadline = Some(if self.has_spoken { now } else { now.max(self.came + FRESH) });
                }
            }
            State::Lingering { .. } => self.deadline = self.deadline.min(after(now, Some(DRAINING_LINGER))),
            State::Concluding | State::Closing | State::Resetting => {}
        }
    }

    /// What to do next. Asking changes nothing.
    pub fn wants(&self) -> Want {
        match self.state {
            State::Resetting => Want::Reset,
            _ if !self.owed.is_empty() => Want::Write,
            State::Talking { .. } | State::Lingering { .. } => Want::Read,
            State::Concluding => Want::EndSending,
            State::Closing => Want::Close,
        }
    }

    /// The bytes to write next.
    pub fn outgoing(&self) -> &[u8] {
        &self.owed[self.taken..]
    }

    /// When the client's time is up; `None`: never.
    pub fn expires_at(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the client's time is up: a read may not wait then.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Why it is over; `None` while questions are taken.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_deref()
    }

    /// Whether the client has ever begun a question. One that has not may be a probe.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Whether questions are still taken.
    pub fn takes_questions(&self) -> bool {
        matches!(self.state, State::Talking { .. })
    }

    fn answered(&mut self, answer: Option<Answer>) {
        self.has_spoken = true;
        match answer {
            Some(answer) => {
                self.owed.extend_from_slice(answer.as_bytes());
                // While the server owes, the client's time stands still.
                self.deadline = None;
            }
            None => self.conclude(Ending::Unanswered),
        }
    }

    fn conclude(&mut self, ending: Ending) {
        self.question = Vec::new();
        self.ending = Some(Box::new(ending));
        self.state = State::Concluding;
    }

    /// The end of the time that begins now, in which the client is to speak.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Talking { .. } if self.is_draining => Some(now),
            State::Talking { .. } if self.question.is_empty() => after(now, self.limits.idle),
            State::Talking { .. } => after(now, self.limits.question),
            _ => None,
        }
    }
}

/// How long a client may take to end its side after the server has: rule 8.
const LINGER: Duration = Duration::from_secs(1);

/// The same while the server drains, when everyone waits for the slowest.
const DRAINING_LINGER: Duration = Duration::from_millis(250);

/// For so long a client has just come. It is not closed before it could speak.
const FRESH: Duration = Duration::from_millis(100);

/// What is read and thrown away at most while lingering.
const LINGER_BYTES: u32 = 64 * 1024;

/// What is read at most after the server began to drain.
const DRAIN_BYTES: u32 = 64 * 1024;

/// A longer buffer is given back when it is empty: an idle client should cost next to nothing.
const KEPT_CAPACITY: usize = 24;
