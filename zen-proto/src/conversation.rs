//! The conversation with one client, as a state machine that does no I/O and reads no clock.

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
    /// Shut down the sending side. The client's remaining bytes are read and discarded afterwards.
    EndSending,
    /// Close the connection.
    Close,
    /// Reset the connection, so that the kernel discards unsent answers.
    Reset,
}

/// The conversation with one client: rules 1 to 6 and 8 of the protocol.
///
/// How to drive it:
///
/// 1. Do what [`wants`](Self::wants) returns, and report the result.
/// 2. After a read, call [`next_question`](Self::next_question) until it returns `None`, and [`answer`](Self::answer)
///    each question. At the end of file call [`received_eof`](Self::received_eof).
/// 3. After a write call [`sent`](Self::sent). After a shutdown of the sending side call
///    [`ended_sending`](Self::ended_sending).
/// 4. If a read or write would block, call [`read_blocked`](Self::read_blocked) or
///    [`write_blocked`](Self::write_blocked). When [`deadline`](Self::deadline) has passed, try once more without
///    waiting. The deadline takes effect only if that attempt would block, or if a read contains no whole question.
///    So bytes that arrived while the server itself was suspended are considered first.
/// 5. When the server drains, call [`drain`](Self::drain). Pending answers keep their deadline. Then the server reads
///    without waiting until a read would block, at most 64 KiB. Only a client that has not asked is waited for, until
///    100 ms after its accept.
/// 6. Continue until `wants` returns [`Want::Close`] or [`Want::Reset`].
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
/// While an answer is pending, `wants` never returns [`Want::Read`]. This is the back-pressure. It also bounds the
/// memory: a read of `n` bytes contains at most `n` questions, so at most `n` answers are pending.
///
/// The design follows the sans-IO libraries h11 and quinn-proto.
#[derive(Debug)]
pub struct Conversation {
    timeouts: Timeouts,
    /// The received bytes of an unfinished question, or of one that is being answered. Empty if there is none, or if
    /// the question is in the input as a whole.
    question: Vec<u8>,
    /// Answers to send. The first `written` bytes are already written.
    pending: Vec<u8>,
    written: u32,
    /// The number of bytes that are still accepted while draining or lingering.
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
    /// Questions are accepted.
    Open,
    /// No more questions are accepted. Pending answers are sent, then the sending side is shut down.
    Finishing,
    /// The sending side is shut down, and received bytes are discarded.
    Lingering,
    /// Pending answers are sent, then the connection is closed.
    Closing,
    /// The connection must be reset.
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

    /// Begins the conversation with a client that is accepted during a drain. The server reads from it without waiting.
    pub fn new_draining(timeouts: Timeouts, now: Instant) -> Self {
        let mut conversation = Self::new(timeouts, now);
        conversation.drain(now);
        conversation.deadline = Some(now);
        conversation
    }

    /// Returns the next whole question in `input`, and advances `input` past it. Returns `None` when `input` has no
    /// further whole question.
    ///
    /// If `input` had no whole question and the [`deadline`](Self::deadline) has passed, the conversation ends.
    ///
    /// Call [`answer`](Self::answer) once for each question before the next call. The rest of `input` is discarded
    /// after a question that is too long, after an answer that failed, after 64 KiB while draining, and while
    /// lingering.
    #[inline(always)]
    pub fn next_question<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], now: Instant) -> Option<&'s [u8]> {
        loop {
            if let Frame::Last(last) = self.next_frame(input, now)? {
                return Some(self.question(last));
            }
        }
    }

    /// Returns the next frame in `input`, a piece of a question or its last piece, and advances `input` past it.
    ///
    /// This is for a server that collects questions itself. Otherwise it works like
    /// [`next_question`](Self::next_question).
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

    /// Adds the answer to the pending ones. `None` means that the question could not be answered: the conversation ends
    /// after the pending answers are sent.
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

    /// Reports that the client has shut down its sending side.
    pub fn received_eof(&mut self) {
        if self.state == State::Open {
            let question = std::mem::take(&mut self.question);
            let ending = if question.is_empty() { Ending::Finished } else { Ending::CutShort(question.into()) };
            self.ending = Some(Box::new(ending));
        }
        self.state = State::Closing;
    }

    /// Reports that the first `n` bytes of [`outgoing`](Self::outgoing) were written at `now`.
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

    /// Reports that a read which began at `began` would block. Before the [`deadline`](Self::deadline) this has no
    /// effect.
    pub fn read_blocked(&mut self, began: Instant) {
        self.expire(began);
    }

    /// Reports that a write which began at `began` would block. The first time this starts the question timeout. After
    /// the [`deadline`](Self::deadline) it ends the conversation.
    pub fn write_blocked(&mut self, began: Instant) {
        if self.deadline.is_none() {
            self.deadline = self.timeouts.question_deadline(began);
        } else {
            self.expire(began);
        }
    }

    /// Reports that the sending side was shut down at `now`.
    pub fn ended_sending(&mut self, now: Instant) {
        self.state = State::Lingering;
        self.room = LINGER_BYTES;
        self.deadline = Some(now + if self.is_draining { DRAINING_LINGER } else { LINGER });
    }

    /// Reports that the server drains. Questions that the client has already sent, in at most 64 KiB, are answered. A
    /// client that has not asked yet has 100 ms from its accept to send a question. Further calls have no effect.
    pub fn drain(&mut self, now: Instant) {
        if self.is_draining {
            return;
        }
        self.is_draining = true;
        match self.state {
            State::Open => {
                self.room = DRAIN_BYTES;
                if self.pending.is_empty() {
                    // The first question of a client that was just accepted may not have arrived yet.
                    self.deadline =
                        Some(if self.has_asked { now } else { now.max(self.accepted + FIRST_QUESTION_WAIT) });
                }
            }
            State::Lingering => self.deadline = self.deadline.min(Some(now + DRAINING_LINGER)),
            State::Finishing | State::Closing | State::Resetting | State::Closed => {}
        }
    }

    /// Returns what to do next. A call has no side effects.
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

    /// Returns the time until which a read or write may wait, or `None` if there is no limit.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether the deadline has passed at `now`.
    #[inline]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Returns why the conversation has ended, or `None` while questions are accepted.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_deref()
    }

    /// Returns whether the client has ever begun a question. If not, it may be a health check or a port scan.
    pub fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// Returns the whole question whose last frame is `last`.
    #[inline]
    pub(crate) fn question<'s>(&'s self, last: &'s [u8]) -> &'s [u8] {
        if self.question.is_empty() { last } else { &self.question }
    }

    /// Reports that the connection is closed.
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
                self.check_deadline(now);
                return None;
            }
        };
        self.has_asked = true;
        match frame {
            Ok(Frame::Last(last)) => {
                if !self.question.is_empty() {
                    self.question.extend_from_slice(last);
                } else if self.pending.is_empty() {
                    self.pending.reserve(input.len() / 2); // known questions are at least twice as long as answers
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

    /// Checks the deadline when all received bytes are used up.
    fn check_deadline(&mut self, now: Instant) {
        // Reads from a client that keeps sending white space, or pieces of a question, do not block.
        // Without this check, its deadline would never take effect.
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
        // While an answer is pending, the question timeout does not run.
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
        // The question that is being answered is still needed. `answer` frees it.
        if !self.is_answering {
            self.question = Vec::new();
        }
        self.ending = Some(Box::new(ending));
        self.state = State::Finishing;
    }

    /// Discards bytes that are not part of a question.
    fn discard(&mut self, length: usize) {
        if self.state == State::Lingering && !self.take_room(length) {
            self.state = State::Closing;
        }
    }

    /// Counts `length` further bytes, and returns whether more are accepted after them.
    fn take_room(&mut self, length: usize) -> bool {
        self.room = self.room.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
        self.room > 0
    }

    /// Ends the conversation, or its lingering, if the deadline has passed at `now`.
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
                // A client that has asked nothing has no answer to lose, so the close need not linger.
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

/// The time that a client has to shut down its sending side after the server has shut down its own (rule 8).
const LINGER: Duration = Duration::from_secs(1);

/// The linger time while the server drains. It is shorter because the drain waits for the slowest client.
const DRAINING_LINGER: Duration = Duration::from_millis(250);

/// The time after accept in which a drain still waits for a client's first question.
const FIRST_QUESTION_WAIT: Duration = Duration::from_millis(100);

/// The number of bytes that are read and discarded while lingering.
const LINGER_BYTES: u32 = 64 * 1024;

/// The number of bytes that are read from a client after the drain began.
const DRAIN_BYTES: u32 = 64 * 1024;

/// The capacity in bytes above which an empty buffer is freed, so that an idle client needs little memory.
const KEPT_CAPACITY: usize = 24;
