//! The question-and-answer protocol of zen: a state machine without I/O, and the chassis its servers share.
//!
//! # Run
//!
//! ```console
//! $ cargo test --quiet --package zen-proto
//! $ cargo doc --open --package zen-proto --features server
//! ```
//!
//! # How it works
//!
//! 1. [`Framing`] cuts what the network brings into questions: up to and including the first `?`.
//! 2. A sage answers each question; [`answer_to`] knows three [`APHORISMS`].
//! 3. [`Conversation`] is the whole protocol with one client. Facts go in (`received`, `sent`,
//!    `timed_out`), one wish comes out ([`Want`]). It does no I/O and reads no clock, so every
//!    architecture drives the same one, and a test drives it without a network.
//! 4. The feature `server` adds `server`, the chassis: options, listener, limits, stopping, logging
//!    and supervision. Without the feature this crate depends on memchr alone.
//!
//! # Predict
//!
//! The README asks three questions and names the command that settles each.
//!
//! # Limits
//!
//! A question is at most [`MAX_QUESTION`] bytes. Answers are fixed texts. Only Linux is tested.

#![forbid(unsafe_code)]

mod aphorisms;
mod conversation;
mod ending;
mod framing;
mod limits;
#[cfg(feature = "server")]
pub mod server;
mod version;

pub use aphorisms::{APHORISMS, Answer, Aphorism, TOO_LONG, TOO_MANY, UNKNOWN, answer_to};
pub use conversation::{Conversation, Want};
pub use ending::{Ending, Excerpt};
pub use framing::{Frame, Framing, MAX_QUESTION};
pub use limits::Limits;
pub use version::{COMMIT, VERSION};
