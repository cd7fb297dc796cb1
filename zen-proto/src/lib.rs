//! The question-and-answer protocol of zen without I/O, and, with the feature `server`, the code that its servers
//! share.
//!
//! [`Conversation`] is a state machine for the protocol with one client. It tells the server what to do next
//! ([`Want`]), receives the result, and returns each whole question, which the server answers. See its example for a
//! whole conversation. It reads no clock and does no I/O, so that every architecture uses the same one.
//!
//! The module `server` has what every server needs in addition to its way of waiting: options, listener, connection
//! limit, log, draining, supervision, metrics. Its documentation shows a whole server. Without that feature this crate
//! depends on memchr only.
//!
//! # The protocol
//!
//! 1. The client speaks first. A question is the bytes up to and including the first `?`. The server sends exactly one
//!    answer per question, in order. Every answer ends in `.` and contains no other `.` ([`Answer`]).
//! 2. Questions may follow each other, and a client may send the next before the last is answered. Answers that are
//!    pending at the same time are sent together. While an answer is pending the server does not read: a client that
//!    pipelines must read while it sends, or it is reset for not reading.
//! 3. White space (bytes 0x20 09 0D 0A) before a question is skipped. It starts no question and renews no deadline;
//!    white space alone before the end of file is a clean end.
//! 4. The [`APHORISMS`] are the known questions. Any other question is answered with [`UNKNOWN`], and the conversation
//!    continues.
//! 5. A question has at most [`MAX_QUESTION`] bytes, its `?` included. When one byte more arrives the server sends
//!    pending answers, then [`TOO_LONG`], discards the rest, and closes.
//! 6. When the client shuts down its sending side, every whole question already sent is answered, then the server
//!    closes. An incomplete question is dropped and logged.
//! 7. A server over its connection limit rejects a client within milliseconds: it sends [`TOO_MANY`] in one
//!    non-blocking write, sends FIN, discards the bytes of one read, and closes.
//! 8. A close loses no answer, unless the client goes on sending after it. In a lingering close the server sends FIN,
//!    reads and discards until the end of file, 64 KiB or 1 s (250 ms while draining), and closes.
//!
//! How each conversation can end is the table at [`Ending`].

#![forbid(unsafe_code)]

mod answer;
mod aphorisms;
mod conversation;
mod ending;
mod framing;
#[cfg(feature = "server")]
pub mod server;
mod timeouts;
mod version;

pub use answer::{Answer, InvalidAnswer};
pub use aphorisms::{APHORISMS, Aphorism, TOO_LONG, TOO_MANY, UNKNOWN, answer_to};
pub use conversation::{Conversation, Want};
pub use ending::{Ending, Excerpt};
pub use framing::{Frame, Framing, MAX_QUESTION, QuestionTooLong};
pub use timeouts::Timeouts;
pub use version::{COMMIT, VERSION};
