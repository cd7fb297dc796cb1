//! How a conversation ended.

use std::fmt;

/// The reason why a conversation is over, or about to be.
///
/// The table also contains what ends a connection from outside the conversation. `…` is any text. Lines marked *-v*
/// appear only with `-v`. All but `panicked at …` and `--grace is over: …` begin with the client's address.
///
/// | cause | the client receives | then | log line |
/// | --- | --- | --- | --- |
/// | client's end of file | all answers | close | `closed: finished` (*-v*) |
/// | end of file within a question | answers to whole questions | close | `closed: question cut short: "…"` |
/// | question too long | pending answers, `Error: question too long.` | lingering close | `closed: question too long` |
/// | idle timeout | nothing | close | `closed: idle timeout` |
/// | question timeout | nothing | close | `closed: question timeout: "…"` |
/// | answers not read within the question timeout | – | reset | `reset: answers not read` |
/// | answer failed (panic) | answers before it | lingering close | `panicked at …`, `closed: answer failed` (*-v*) |
/// | draining | answers to whole questions | lingering close | `closed: drained` (*-v*) |
/// | draining, before the client has asked | nothing | close | `closed: drained` (*-v*) |
/// | `--grace` over | – | reset | `--grace is over: … clients are reset` |
/// | over the limit | `Error: too many clients.` | close | `rejected: … clients are connected (--max-connections)` |
/// | client's reset | – | – | `connection error: …` |
/// | client's reset, before it has asked | – | – | `connection error: …` (*-v*) |
///
/// A close sends FIN. A lingering close sends FIN, then reads and discards until the client's end of file, 64 KiB or
/// 1 s (250 ms while draining). A reset sends RST and discards what is pending. A client for which no thread or
/// process can be started is rejected like one over the limit; its log line gives the reason.
/// The log line of a client that a pool rejects ends in `(--workers, --queue)`, unless `--max-connections` sets the
/// limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client shut down its sending side after a whole question, or without having asked.
    Finished,
    /// The client shut down its sending side within this question, which is dropped.
    CutShort(Box<[u8]>),
    /// A question had more than [`crate::MAX_QUESTION`] bytes.
    TooLong,
    /// No question began within the idle timeout.
    Idle,
    /// This question had no end within the question timeout.
    TooSlow(Box<[u8]>),
    /// The client did not read its answers within the question timeout.
    NotReading,
    /// A question could not be answered.
    Failed,
    /// The server stops.
    Drained,
}

impl Ending {
    /// Returns whether this ending is logged only with `-v`: the client was done, the server stops, or an answer
    /// failed. A panic is already in the log; another failure is logged by the code that failed.
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Finished | Self::Drained | Self::Failed)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("closed: finished"),
            Self::CutShort(question) => write!(f, "closed: question cut short: {}", Excerpt(question)),
            Self::TooLong => f.write_str("closed: question too long"),
            Self::Idle => f.write_str("closed: idle timeout"),
            Self::TooSlow(question) => write!(f, "closed: question timeout: {}", Excerpt(question)),
            Self::NotReading => f.write_str("reset: answers not read"),
            Self::Failed => f.write_str("closed: answer failed"),
            Self::Drained => f.write_str("closed: drained"),
        }
    }
}

/// A client's bytes as a log line shows them: in quotes, cut to [`Excerpt::MAX`] bytes, printable ASCII only.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a [u8]);

impl Excerpt<'_> {
    /// The most bytes of a client in a log line, before escaping.
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
        assert_eq!(hostile.to_string(), r#"closed: question cut short: "\x1b[31m\n\x00\xff\"""#);
        assert_eq!(Excerpt(&[b'x'; 65]).to_string(), format!("\"{}\"…", "x".repeat(64)));
        assert_eq!(Excerpt(&[b'x'; 64]).to_string(), format!("\"{}\"", "x".repeat(64)));
    }
}
