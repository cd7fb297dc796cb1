//! The type of an answer: a valid text, which ends in its only `.`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// A text that ends in `.` and contains no other `.`, so that a client finds its end (rule 1).
///
/// ```
/// use zen_proto::{Answer, InvalidAnswer};
///
/// const BUILT_IN: Answer = Answer::from_static("ugly.");
/// let from_a_database = Answer::new(format!("{} rows.", 3))?;
/// assert_eq!(from_a_database.as_str(), "3 rows.");
/// assert_eq!(Answer::new("No full stop"), Err(InvalidAnswer::NoFullStop));
/// # Ok::<(), InvalidAnswer>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Cow<'static, str>);

impl Answer {
    /// The most bytes of an answer, its `.` included. It bounds the memory for pending answers.
    pub const MAX: usize = 256;

    /// Creates an answer from a constant text.
    ///
    /// # Panics
    ///
    /// Panics if `text` is not a valid answer. In a `const`, compilation fails.
    pub const fn from_static(text: &'static str) -> Self {
        match check(text) {
            Ok(()) => Self(Cow::Borrowed(text)),
            Err(InvalidAnswer::NoFullStop) => panic!("an answer ends in '.'"),
            Err(InvalidAnswer::FullStopWithin) => panic!("an answer contains no '.' but its last byte"),
            Err(InvalidAnswer::TooLong) => panic!("an answer has at most 256 bytes"),
        }
    }

    /// Creates an answer from a computed text.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the text. A server can then send another answer, or end the conversation by passing
    /// `None` to [`Conversation::answer`](crate::Conversation::answer).
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidAnswer> {
        let text = text.into();
        check(&text)?;
        Ok(Self(Cow::Owned(text)))
    }

    /// Returns the answer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the answer as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The reason why a text is not a valid answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidAnswer {
    /// It does not end in `.`.
    NoFullStop,
    /// It contains a `.` before its last byte.
    FullStopWithin,
    /// It has more than [`Answer::MAX`] bytes.
    TooLong,
}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFullStop => "an answer ends in '.'",
            Self::FullStopWithin => "an answer contains no '.' but its last byte",
            Self::TooLong => "an answer has at most 256 bytes",
        })
    }
}

impl Error for InvalidAnswer {}

const fn check(text: &str) -> Result<(), InvalidAnswer> {
    let bytes = text.as_bytes();
    if bytes.len() > Answer::MAX {
        return Err(InvalidAnswer::TooLong);
    }
    let mut at = 0;
    while at < bytes.len() && bytes[at] != b'.' {
        at += 1;
    }
    if at == bytes.len() {
        Err(InvalidAnswer::NoFullStop)
    } else if at + 1 < bytes.len() {
        Err(InvalidAnswer::FullStopWithin)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_in_its_only_full_stop() {
        let long = format!("{}.", "x".repeat(255));
        assert_eq!(Answer::new(long.clone()).map(|answer| answer.as_str().len()), Ok(256));
        assert_eq!(Answer::new(format!("x{long}")), Err(InvalidAnswer::TooLong));
        assert_eq!(Answer::new("."), Ok(Answer::from_static(".")));
        assert_eq!(Answer::new(""), Err(InvalidAnswer::NoFullStop));
        assert_eq!(Answer::new("ugly"), Err(InvalidAnswer::NoFullStop));
        assert_eq!(Answer::new("ugly. or not."), Err(InvalidAnswer::FullStopWithin));
        assert_eq!(Answer::new("ugly.\n"), Err(InvalidAnswer::FullStopWithin));
    }

    #[test]
    #[should_panic(expected = "contains no '.'")]
    fn a_constant_that_is_no_answer_does_not_compile() {
        Answer::from_static("ugly. or not.");
    }
}
