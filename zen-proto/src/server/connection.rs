//! One client, from accept to close.

use std::fmt::Arguments;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::constants::READ_SIZE;
use super::counters::{Counter, count, count_question, uncount};
use super::shared::Server;
use super::watchdog;
use crate::{Answer, Conversation, Ending, Excerpt, Frame, TOO_MANY, Want};

/// An accepted client: its conversation, its permit, its log lines.
///
/// Its methods are those of [`Conversation`] with a server's duties added. [`next`](Self::next) checks the stop flag.
/// [`answer`](Self::answer) counts the question and records a heartbeat. [`close`](Self::close) logs, counts and
/// releases the permit. A connection that is dropped without `close` counts as lost.
#[derive(Debug)]
pub struct Connection {
    server: &'static Server,
    address: SocketAddr,
    conversation: Conversation,
}

impl Connection {
    /// Creates a connection. The caller has taken a permit for it.
    pub(super) fn new(server: &'static Server, address: SocketAddr) -> Self {
        if !server.is_child {
            count(Counter::Accepted);
            log::debug!("{address} accepted");
        }
        Self { server, address, conversation: conversation(server) }
    }

    /// Restarts the conversation's timeouts, for a client that has waited in a queue of the server.
    pub fn begin(&mut self) {
        self.conversation = conversation(self.server);
    }

    /// Returns the server that accepted the client.
    #[inline]
    pub fn server(&self) -> &'static Server {
        self.server
    }

    /// Returns what to do next; see [`Conversation::wants`]. If a stop was requested, this first begins to
    /// [`drain`](Conversation::drain) the client.
    #[inline]
    pub fn next(&mut self, now: Instant) -> Want {
        if self.server.stop.is_requested() {
            self.conversation.drain(now);
        }
        self.conversation.wants()
    }

    /// Works like [`Conversation::next_question`], and logs the question with `-vv`.
    #[inline(always)]
    pub fn next_question<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], now: Instant) -> Option<&'s [u8]> {
        loop {
            if let Frame::Last(last) = self.next_frame(input, now)? {
                return Some(self.conversation.question(last));
            }
        }
    }

    /// Calls [`Conversation::next_frame`], and logs a whole question with `-vv`.
    #[inline(always)]
    pub fn next_frame<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Frame<'i>> {
        let frame = self.conversation.next_frame(input, now)?;
        match frame {
            Frame::Last(last) if log::log_enabled!(log::Level::Trace) => {
                self.trace(format_args!("asks {}", Excerpt(self.conversation.question(last))));
            }
            _ => {}
        }
        Some(frame)
    }

    /// Calls [`Conversation::answer`].
    #[inline(always)]
    pub fn answer(&mut self, answer: Option<Answer>) {
        watchdog::beat_between_answers();
        if answer.is_some() {
            count_question();
        }
        if log::log_enabled!(log::Level::Trace) {
            self.trace(format_args!("is answered {}", answer.as_ref().map_or("nothing", Answer::as_str)));
        }
        self.conversation.answer(answer);
    }

    /// Calls [`Conversation::received_eof`].
    pub fn received_eof(&mut self) {
        self.conversation.received_eof();
    }

    /// Calls [`Conversation::read_blocked`].
    pub fn read_blocked(&mut self, began: Instant) {
        self.conversation.read_blocked(began);
    }

    /// Calls [`Conversation::outgoing`].
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.conversation.outgoing()
    }

    /// Calls [`Conversation::sent`].
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.conversation.sent(n, now);
    }

    /// Calls [`Conversation::write_blocked`].
    pub fn write_blocked(&mut self, began: Instant) {
        self.conversation.write_blocked(began);
    }

    /// Calls [`Conversation::ended_sending`].
    pub fn ended_sending(&mut self, now: Instant) {
        self.conversation.ended_sending(now);
    }

    /// Calls [`Conversation::deadline`].
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.conversation.deadline()
    }

    /// Calls [`Conversation::is_expired`].
    #[inline]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.conversation.is_expired(now)
    }

    /// Closes the connection after the end of the conversation or a socket error: logs, counts and releases the permit.
    /// The caller drops the stream.
    pub fn close(mut self, result: io::Result<()>) {
        self.conversation.closed();
        let (address, ending) = (self.address, self.conversation.ending());
        let is_lost = result.is_err() && ending.is_none_or(Ending::is_usual);
        count(if is_lost { Counter::Lost } else { ending.map_or(Counter::Finished, Counter::from) });
        match (result, ending) {
            // If the server ended the conversation, its reason is logged instead of a later socket error.
            (_, Some(ending)) if !ending.is_usual() => log::info!("{address} {ending}"),
            (Err(error), _) if self.conversation.has_asked() => log::info!("{address} connection error: {error}"),
            (Err(error), _) => log::debug!("{address} connection error: {error}"),
            (Ok(()), Some(ending)) => log::debug!("{address} {ending}"),
            (Ok(()), None) => log::debug!("{address} closed"),
        }
    }

    #[cold]
    fn trace(&self, text: Arguments<'_>) {
        log::trace!("{} {text}", self.address);
    }

    /// Rejects a client for which no thread can be started (rule 7). The caller drops the stream.
    pub fn reject(self, stream: impl AsFd) {
        self.reject_because(stream, "no thread can be started for it; raise the limit of threads");
    }

    /// Rejects a client, and logs `cause`.
    pub(super) fn reject_because(mut self, stream: impl AsFd, cause: &str) {
        self.conversation.closed();
        uncount(Counter::Accepted);
        log::warn!("{} rejected: {cause}", self.address);
        reject(stream);
    }

    /// Forgets a client that another process serves now. Nothing is logged or counted. The permit stays taken until the
    /// reaper releases it, when that process has ended.
    pub(super) fn hand_over(self) {
        std::mem::forget(self);
    }
}

/// Returns a conversation that begins now.
fn conversation(server: &Server) -> Conversation {
    // A draining server serves its backlog, and reads from each of those clients without waiting. A server that leaves
    // the backlog to other processes accepts no client while it drains, so this one was accepted just before the drain.
    let from_backlog = server.stop.is_requested() && !server.leaves_backlog();
    let begin = if from_backlog { Conversation::new_draining } else { Conversation::new };
    begin(server.timeouts, Instant::now())
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.conversation.is_closed() {
            count(Counter::Lost);
            log::debug!("{} lost", self.address);
        }
        self.server.permits.release();
    }
}

/// Rejects a client (rule 7): sends the error without blocking, sends FIN, and discards the bytes of one read. The
/// caller drops the stream.
pub(super) fn reject(stream: impl AsFd) {
    count(Counter::Rejected);
    // Errors are ignored, because the client is rejected anyway.
    let _ = rustix::net::send(&stream, TOO_MANY.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(&stream, Shutdown::Write);
    let _ = rustix::net::recv(&stream, &mut [0; READ_SIZE][..], RecvFlags::DONTWAIT);
}
