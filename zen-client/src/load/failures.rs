//! What can fail, and what was retried.

use std::fmt;

use serde::Serialize;

/// Why a connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Wrong,
    Lost,
    Reset,
    TimedOut,
    Refused,
    NotOpened,
}

/// Failures by their reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Failures {
    /// Bytes were received that are not the answer.
    pub(crate) wrong: u64,
    /// The server ended the connection before the answer.
    pub(crate) lost: u64,
    /// The connection was reset.
    pub(crate) reset: u64,
    /// There was no answer, or no connection, in time.
    pub(crate) timed_out: u64,
    /// The server refused the connection, or answered that it has too many clients.
    pub(crate) refused: u64,
    /// The connection could not be opened, for example because no port is free.
    pub(crate) not_opened: u64,
}

impl Failures {
    pub(crate) fn all(&self) -> u64 {
        self.by_kind().iter().map(|(_, n)| n).sum()
    }

    fn by_kind(&self) -> [(&'static str, u64); 6] {
        let Self { wrong, lost, reset, timed_out, refused, not_opened } = *self;
        [
            ("wrong", wrong),
            ("lost", lost),
            ("reset", reset),
            ("timed out", timed_out),
            ("refused", refused),
            ("not opened", not_opened),
        ]
    }

    pub(super) fn note(&mut self, failure: Failure, times: u64) {
        *match failure {
            Failure::Wrong => &mut self.wrong,
            Failure::Lost => &mut self.lost,
            Failure::Reset => &mut self.reset,
            Failure::TimedOut => &mut self.timed_out,
            Failure::Refused => &mut self.refused,
            Failure::NotOpened => &mut self.not_opened,
        } += times;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.reset += other.reset;
        self.timed_out += other.timed_out;
        self.refused += other.refused;
        self.not_opened += other.not_opened;
    }
}

impl fmt::Display for Failures {
    /// Lists each kind with its number, or a zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, n) in self.by_kind().into_iter().filter(|(_, n)| *n > 0) {
            write!(f, "{separator}{n} {kind}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}

/// The effect of `--retries`.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Retries {
    /// Connections that failed and were opened again.
    pub(crate) connections: u64,
    /// The reasons for which they failed.
    pub(crate) by_kind: Failures,
    /// Questions that were asked again, each counted once.
    pub(crate) questions: u64,
    /// The number of those that were answered.
    pub(crate) answered: u64,
    /// Questions whose tries are used up. They are failures as well.
    pub(crate) given_up: u64,
}

impl Retries {
    pub(super) fn note(&mut self, failure: Failure) {
        self.connections += 1;
        self.by_kind.note(failure, 1);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.by_kind.add(&other.by_kind);
        self.questions += other.questions;
        self.answered += other.answered;
        self.given_up += other.given_up;
    }
}
