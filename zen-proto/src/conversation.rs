//! The whole protocol with one client, as a state machine that does no I/O and reads no clock.

use std::time::{Duration, Instant};

use crate::{Answer, Ending, Frame, Framing, QuestionTooLong, TOO_LONG, Timeouts};

/// What a conversation asks of its server next.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Read from the client.
    Read,
    /// Write [`Conversation::outgoing`] to the client.
    Write,
    /// Shut down the sending side; what the client still sends is read then.
    EndSending,
    /// Close the connection.
    Close,
    /// Reset the connection, so that the kernel keeps nothing for this client.
    Reset,
}

/// The conversation with one client: rules 1 to 6 and 8 of the protocol.
///
/// How to drive it:
///
/// 1. Do what [`wants`](Self::wants) says, and report what happened.
/// 2. Bytes have come: ask for each [`next_question`](Self::next_question) in them and [`answer`](Self::answer) it,
///    until there is none. The end of file is [`received_eof`](Self::received_eof).
/// 3. Bytes have gone: [`sent`](Self::sent). The sending side is shut down: [`ended_sending`](Self::ended_sending).
/// 4. A read found nothing, or a write no room: [`read_blocked`](Self::read_blocked),
///    [`write_blocked`](Self::write_blocked). When [`deadline`](Self::deadline) has passed, read or write once more
///    without waiting. A deadline counts only if a call after it blocked, so a server that was itself suspended does
///    not punish its clients.
/// 5. The server stops: [`drain`](Self::drain). The deadline is then now, or soon, and step 4 ends the conversation.
/// 6. Go on until it wants [`Want::Close`] or [`Want::Reset`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use zen_proto::{Conversation, Ending, Timeouts, Want, answer_to};
///
/// let now = Instant::now();
/// let mut conversation = Conversation::new(Timeouts::new(Duration::from_secs(60), Duration::from_secs(10)), now);
/// let mut network = [&b"Simple is bet"[..], b"ter than? Expl", b""].into_iter(); // the last is the end of file
/// let mut sent = Vec::new();
/// loop {
///     match conversation.wants() {
///         Want::Read => match network.next() {
///             None | Some(b"") => conversation.received_eof(),
///             Some(mut input) => {
///                 while let Some(question) = conversation.next_question(&mut input, now) {
///                     let answer = answer_to(question);
///                     conversation.answer(Some(answer));
///                 }
///             }
///         },
///         Want::Write => {
///             sent.extend_from_slice(conversation.outgoing());
///             conversation.sent(conversation.outgoing().len(), now);
///         }
///         Want::EndSending => conversation.ended_sending(now),
///         Want::Close | Want::Reset => break,
///     }
/// }
/// assert_eq!(sent, b"complex.");
/// assert_eq!(conversation.ending(), Some(&Ending::CutShort(b"Expl"[..].into())));
/// ```
///
/// While an answer is pending it never wants to read. That is all the back-pressure there is, and it bounds the
/// memory: one read of `n` bytes makes at most `n` answers.
///
/// The form is that of the sans-IO libraries h11 and quinn-proto.
#[derive(Debug)]
pub struct Conversation {
    timeouts: Timeouts,
    /// The pieces of a question whose end has not come, or that is being answered; empty: none has begun.
    question: Vec<u8>,
    /// Answers to send; the first `written` bytes are with the network already.
    pending: Vec<u8>,
    written: u32,
    /// Bytes that are taken while draining, or while lingering.
    room: u32,
    deadline: Option<Instant>,
    accepted: Instant,
    ending: Option<Box<Ending>>,
    framing: Framing,
    state: State,
    has_asked: bool,
    is_draining: bool,
    is_answering: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Questions are taken.
    Open,
    /// No further question is taken; pending answers go out, then the sending side is shut down.
    Finishing,
    /// The sending side is shut down; what comes is discarded.
    Lingering,
    /// Pending answers go out, then the connection is closed.
    Closing,
    /// Nothing goes out any more.
    Resetting,
    /// The connection is closed.
    Closed,
}

impl Conversation {
    /// Begins the conversation with a client that was accepted at `now`.
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self {
            timeouts,
            question: Vec::new(),
            pending: Vec::new(),
            written: 0,
            room: 0,
            deadline: timeouts.idle_deadline(now),
            accepted: now,
            ending: None,
            framing: Framing::default(),
            state: State::Open,
            has_asked: false,
            is_draining: false,
            is_answering: false,
        }
    }

    /// Begins the conversation with a client from the backlog of a server that drains already: it is read once.
    pub fn new_draining(timeouts: Timeouts, now: Instant) -> Self {
        let mut conversation = Self::new(timeouts, now);
        conversation.drain(now);
        conversation.deadline = Some(now);
        conversation
    }

    /// Returns the next whole question in `input`, whose bytes it takes; `None` when no other is there.
    ///
    /// Each question gets one [`answer`](Self::answer) before the next is asked for. After a question that is too
    /// long, beyond the limit while draining, and while lingering, all of `input` is discarded.
    #[inline(always)]
    pub fn next_question<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], now: Instant) -> Option<&'s [u8]> {
        loop {
            if let Frame::Last(last) = self.next_frame(input, now)? {
                return Some(self.question(last));
            }
        }
    }

    /// Returns the next frame in `input`, whose bytes it takes: a piece of a question, or its last piece.
    ///
    /// For a server that collects questions itself; otherwise as [`next_question`](Self::next_question).
    #[inline(always)]
    pub fn next_frame<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Frame<'i>> {
        debug_assert!(!self.is_answering, "the question before this one has no answer yet");
        match self.state {
            State::Open if self.is_draining => self.next_frame_draining(input, now),
            State::Open => self.next_frame_open(input, now),
            _ => {
                self.discard(std::mem::take(input).len());
                None
            }
        }
    }

    /// Takes the answer to the question. `None`: it failed, and the conversation ends after the answers before it.
    #[inline(always)]
    pub fn answer(&mut self, answer: Option<Answer>) {
        debug_assert!(self.is_answering, "there is no question to answer");
        self.is_answering = false;
        if !self.question.is_empty() {
            self.question = Vec::new();
        }
        match answer {
            Some(answer) => self.push(&answer),
            None => self.finish(Ending::Failed),
        }
    }

    /// The client has shut down its sending side.
    pub fn received_eof(&mut self) {
        if self.state == State::Open {
            let question = std::mem::take(&mut self.question);
            let ending = if question.is_empty() { Ending::Finished } else { Ending::CutShort(question.into()) };
            self.ending = Some(Box::new(ending));
        }
        self.state = State::Closing;
    }

    /// The network took the first `n` bytes of [`outgoing`](Self::outgoing), at `now`.
    pub fn sent(&mut self, n: usize, now: Instant) {
        if n < self.outgoing().len() {
            self.written += n as u32; // it fits: it is less than what is pending
            self.deadline = self.timeouts.question_deadline(now);
            return;
        }
        self.written = 0;
        if self.pending.capacity() > KEPT_CAPACITY {
            self.pending = Vec::new();
        } else {
            self.pending.clear();
        }
        self.deadline = match self.state {
            State::Open if self.is_draining => Some(now),
            State::Open if self.question.is_empty() => self.timeouts.idle_deadline(now),
            State::Open => self.timeouts.question_deadline(now),
            _ => None,
        };
    }

    /// A read that began at `began` found nothing. Before the [`deadline`](Self::deadline) that means nothing.
    pub fn read_blocked(&mut self, began: Instant) {
        self.expire(began);
    }

    /// A write that began at `began` found no room. The client's time to make some begins, or is over.
    pub fn write_blocked(&mut self, began: Instant) {
        if self.deadline.is_none() {
            self.deadline = self.timeouts.question_deadline(began);
        } else {
            self.expire(began);
        }
    }

    /// The sending side is shut down, at `now`.
    pub fn ended_sending(&mut self, now: Instant) {
        self.state = State::Lingering;
        self.room = LINGER_BYTES;
        self.deadline = Some(now + if self.is_draining { DRAINING_LINGER } else { LINGER });
    }

    /// The server drains: what the client has sent is still answered, and a client that was just accepted may still
    /// ask. Only the first call counts.
    pub fn drain(&mut self, now: Instant) {
        if self.is_draining {
            return;
        }
        self.is_draining = true;
        match self.state {
            State::Open => {
                self.room = DRAIN_BYTES;
                if self.pending.is_empty() {
                    // The first question of a client that was just accepted may be right behind.
                    self.deadline = Some(if self.has_asked { now } else { now.max(self.accepted + FRESH) });
                }
            }
            State::Lingering => self.deadline = self.deadline.min(Some(now + DRAINING_LINGER)),
            State::Finishing | State::Closing | State::Resetting | State::Closed => {}
        }
    }

    /// Returns what to do next. Asking changes nothing.
    #[inline]
    pub fn wants(&self) -> Want {
        match self.state {
            State::Resetting => Want::Reset,
            _ if !self.pending.is_empty() => Want::Write,
            State::Open | State::Lingering => Want::Read,
            State::Finishing => Want::EndSending,
            State::Closing | State::Closed => Want::Close,
        }
    }

    /// Returns the bytes to write next.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        &self.pending[self.written as usize..]
    }

    /// Returns the next time at which a read or write must not wait; `None`: it may wait for ever.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether the deadline has passed at `now`.
    #[inline]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Returns why the conversation is over; `None` while questions are taken.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_deref()
    }

    /// Returns whether the client has ever begun a question. One that has not may be a probe.
    pub fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// Returns the whole question whose last frame is `last`.
    #[inline]
    pub(crate) fn question<'s>(&'s self, last: &'s [u8]) -> &'s [u8] {
        if self.question.is_empty() { last } else { &self.question }
    }

    /// The connection is closed, for whatever reason.
    pub fn closed(&mut self) {
        self.state = State::Closed;
    }

    /// Returns whether [`closed`](Self::closed) was called.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    #[inline(always)]
    fn next_frame_open<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Frame<'i>> {
        let frame = match self.framing.next(input) {
            Some(frame) => frame,
            None => {
                self.used_up(now);
                return None;
            }
        };
        self.has_asked = true;
        match frame {
            Ok(Frame::Last(last)) => {
                if !self.question.is_empty() {
                    self.question.extend_from_slice(last);
                } else if self.pending.is_empty() {
                    self.pending.reserve(input.len() / 2); // questions are longer than answers
                }
                self.is_answering = true;
            }
            Ok(Frame::Data(data)) => self.collect(data, now),
            Err(QuestionTooLong) => {
                self.push(&TOO_LONG);
                self.finish(Ending::TooLong);
            }
        }
        frame.ok()
    }

    /// Nothing is left of what was read.
    fn used_up(&mut self, now: Instant) {
        // A flood of white space is silence.
        if self.pending.is_empty() && !self.is_draining {
            self.expire(now);
        }
    }

    #[inline(never)]
    fn next_frame_draining<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Frame<'i>> {
        let length = input.len();
        let frame = self.next_frame_open(input, now);
        if self.state == State::Open && !self.take_room(length - input.len()) {
            self.finish(Ending::Drained);
        }
        frame
    }

    fn collect(&mut self, data: &[u8], now: Instant) {
        // While an answer is pending the client's time stands still.
        if self.question.is_empty() && self.pending.is_empty() {
            self.deadline = if self.is_draining { Some(now) } else { self.timeouts.question_deadline(now) };
        }
        self.question.extend_from_slice(data);
    }

    #[inline]
    fn push(&mut self, answer: &Answer) {
        self.pending.extend_from_slice(answer.as_bytes());
        self.deadline = None;
    }

    fn finish(&mut self, ending: Ending) {
        if !self.is_answering {
            self.question = Vec::new();
        }
        self.ending = Some(Box::new(ending));
        self.state = State::Finishing;
    }

    /// Discards bytes that are no questions any more.
    fn discard(&mut self, length: usize) {
        if self.state == State::Lingering && !self.take_room(length) {
            self.state = State::Closing;
        }
    }

    /// Returns whether there is room for more after these.
    fn take_room(&mut self, length: usize) -> bool {
        self.room = self.room.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
        self.room > 0
    }

    /// Ends what the client has no more time for.
    fn expire(&mut self, now: Instant) {
        if !self.is_expired(now) {
            return;
        }
        match self.state {
            _ if !self.pending.is_empty() => {
                self.ending = Some(Box::new(Ending::NotReading));
                self.state = State::Resetting;
            }
            State::Open if self.is_draining => {
                self.finish(Ending::Drained);
                if !self.has_asked {
                    self.state = State::Closing;
                }
            }
            State::Open => {
                let question = std::mem::take(&mut self.question);
                let ending = if question.is_empty() { Ending::Idle } else { Ending::TooSlow(question.into()) };
                self.ending = Some(Box::new(ending));
                self.state = State::Closing;
            }
            State::Lingering => self.state = State::Closing,
            State::Finishing | State::Closing | State::Resetting | State::Closed => {}
        }
    }
}

/// How long a client may take to end its sending side after the server has ended its own (rule 8).
const LINGER: Duration = Duration::from_secs(1);

/// As [`LINGER`], while the server drains and all wait for the slowest client.
const DRAINING_LINGER: Duration = Duration::from_millis(250);

/// How long after accept a silent client is not closed by draining.
const FRESH: Duration = Duration::from_millis(100);

/// Bytes that are read and discarded while lingering.
const LINGER_BYTES: u32 = 64 * 1024;

/// Bytes that are read after the server began to drain.
const DRAIN_BYTES: u32 = 64 * 1024;

/// A buffer of more bytes is freed when it is empty: an idle client should cost next to nothing.
const KEPT_CAPACITY: usize = 24;
