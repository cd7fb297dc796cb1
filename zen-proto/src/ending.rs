//! How a conversation ended, for the log.

use std::fmt;

/// Why a conversation is over, or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client ended it after its last whole question.
    Finished,
    /// The client ended it in the middle of this question, which is dropped.
    CutShort(Box<[u8]>),
    /// A question had more than [`crate::MAX_QUESTION`] bytes.
    TooLong,
    /// No question was begun for as long as [`crate::Limits::idle`].
    Idle,
    /// This question was not finished within [`crate::Limits::question`].
    TooSlow(Box<[u8]>),
    /// The client did not take its answers within [`crate::Limits::question`].
    NotReading,
    /// The sage could not answer.
    Unanswered,
    /// The server is stopping.
    Drained,
}

impl Ending {
    /// Whether there is nothing to tell: the client was done, or the server stops. (Of a sage that failed
    /// the server has told already.)
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Finished | Self::Drained | Self::Unanswered)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::CutShort(question) => write!(f, "question cut short: {}", Excerpt(question)),
            Self::TooLong => f.write_str("question too long"),
            Self::Idle => f.write_str("idle for too long"),
            Self::TooSlow(question) => write!(f, "question too slow: {}", Excerpt(question)),
            Self::NotReading => f.write_str("did not read its answers"),
            Self::Unanswered => f.write_str("could not be answered"),
            Self::Drained => f.write_str("drained"),
        }
    }
}

/// A client's bytes for a line of a log: in quotes, cut to [`Excerpt::MAX`] bytes, printable ASCII only.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a [u8]);

impl Excerpt<'_> {
    /// As much of a client's bytes as a line of a log holds, before escaping.
    pub const MAX: usize = 64;
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(Self::MAX)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_holds_no_control_byte_and_no_end_of_bytes() {
        let hostile = Ending::CutShort(b"\x1b[31m\n\0\xff\"".to_vec().into());
        assert_eq!(hostile.to_string(), r#"question cut short: "\x1b[31m\n\x00\xff\"""#);
        assert_eq!(Excerpt(&[b'x'; 65]).to_string(), format!("\"{}\"…", "x".repeat(64)));
        assert_eq!(Excerpt(&[b'x'; 64]).to_string(), format!("\"{}\"", "x".repeat(64)));
    }
}
