//! One accepted client, from accept to close.

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
/// Its methods are those of [`Conversation`], with what a server owes every client added: [`next`](Self::next) looks
/// at the stop flag, [`answer`](Self::answer) counts and reports that this thread is alive, [`close`](Self::close)
/// logs, counts and frees the permit. A connection that is dropped without `close` counts as lost.
#[derive(Debug)]
pub struct Connection {
    server: &'static Server,
    address: SocketAddr,
    conversation: Conversation,
}

impl Connection {
    /// A connection that has one of the server's permits.
    pub(super) fn new(server: &'static Server, address: SocketAddr) -> Self {
        count(Counter::Accepted);
        log::debug!("{address} accepted");
        Self { server, address, conversation: conversation(server) }
    }

    /// Begins the conversation now, for a client that has waited in a queue of the server's own: that time does not
    /// count against it.
    pub fn begin(&mut self) {
        self.conversation = conversation(self.server);
    }

    /// Returns the server that accepted it.
    #[inline]
    pub fn server(&self) -> &'static Server {
        self.server
    }

    /// Returns what to do next: [`Conversation::wants`], after a look at the stop flag.
    #[inline]
    pub fn next(&mut self, now: Instant) -> Want {
        if self.server.stop.is_requested() {
            self.conversation.drain(now);
        }
        self.conversation.wants()
    }

    /// As [`Conversation::next_question`].
    #[inline(always)]
    pub fn next_question<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], now: Instant) -> Option<&'s [u8]> {
        loop {
            if let Frame::Last(last) = self.next_frame(input, now)? {
                return Some(self.conversation.question(last));
            }
        }
    }

    /// As [`Conversation::next_frame`].
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

    /// As [`Conversation::answer`].
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

    /// As [`Conversation::received_eof`].
    pub fn received_eof(&mut self) {
        self.conversation.received_eof();
    }

    /// As [`Conversation::read_blocked`].
    pub fn read_blocked(&mut self, began: Instant) {
        self.conversation.read_blocked(began);
    }

    /// As [`Conversation::outgoing`].
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        self.conversation.outgoing()
    }

    /// As [`Conversation::sent`].
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.conversation.sent(n, now);
    }

    /// As [`Conversation::write_blocked`].
    pub fn write_blocked(&mut self, began: Instant) {
        self.conversation.write_blocked(began);
    }

    /// As [`Conversation::ended_sending`].
    pub fn ended_sending(&mut self, now: Instant) {
        self.conversation.ended_sending(now);
    }

    /// As [`Conversation::deadline`].
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.conversation.deadline()
    }

    /// As [`Conversation::is_expired`].
    #[inline]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.conversation.is_expired(now)
    }

    /// Ends it: the conversation is over, or its socket failed. The caller drops the stream.
    pub fn close(mut self, result: io::Result<()>) {
        self.conversation.closed();
        let (address, ending) = (self.address, self.conversation.ending());
        let is_lost = result.is_err() && ending.is_none_or(Ending::is_usual);
        count(if is_lost { Counter::Lost } else { ending.map_or(Counter::Finished, Counter::from) });
        match (result, ending) {
            // Why the server ended it says more than that the client did not wait for the end.
            (_, Some(ending)) if !ending.is_usual() => log::info!("{address} {ending}"),
            (Err(error), _) if self.conversation.has_asked() => log::info!("{address} connection error: {error}"),
            (Err(error), _) => log::debug!("{address} connection error: {error}"),
            (Ok(()), Some(ending)) => log::debug!("{address} {ending}"),
            (Ok(()), None) => log::debug!("{address} closed"),
        }
    }

    #[cold]
    fn trace(&self, text: std::fmt::Arguments<'_>) {
        log::trace!("{} {text}", self.address);
    }

    /// Rejects a client for which no thread or process can be had (rule 7). The caller drops the stream.
    pub fn reject(mut self, stream: impl AsFd) {
        self.conversation.closed();
        uncount(Counter::Accepted);
        log::warn!("{} rejected: no thread can be started for it; raise the limit of threads", self.address);
        reject(stream);
    }
}

/// A conversation that begins now.
fn conversation(server: &Server) -> Conversation {
    // Where the backlog is left to others, a client here was accepted just before the stop.
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

/// Rule 7: one write that cannot block, FIN, one read discarded. The caller drops the stream.
pub(super) fn reject(stream: impl AsFd) {
    count(Counter::Rejected);
    // What fails here fails for a client that is being rejected.
    let _ = rustix::net::send(&stream, TOO_MANY.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(&stream, Shutdown::Write);
    let _ = rustix::net::recv(&stream, &mut [0; READ_SIZE][..], RecvFlags::DONTWAIT);
}
