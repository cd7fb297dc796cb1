//! What the sage knows: three questions, their answers, and what is said to all others.
//!
//! The aphorisms are from "The Zen of Python" by Tim Peters; asking them over a socket is an idea of
//! *Foundations of Python Network Programming* by Brandon Rhodes and John Goerzen.

/// A question with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aphorism {
    /// What a client asks, its `?` included.
    pub question: &'static str,
    /// What the server says.
    pub answer: Answer,
}

/// All the server knows.
pub const APHORISMS: [Aphorism; 3] = [
    Aphorism { question: "Beautiful is better than?", answer: Answer::new("ugly.") },
    Aphorism { question: "Explicit is better than?", answer: Answer::new("implicit.") },
    Aphorism { question: "Simple is better than?", answer: Answer::new("complex.") },
];

/// The answer to any other question. (The ancestor's lacked the full stop: its client then waits for ever.)
pub const UNKNOWN: Answer = Answer::new("Error: unknown aphorism.");

/// What is said when the 257th byte of a question arrives.
pub const TOO_LONG: Answer = Answer::new("Error: question too long.");

/// What a client hears that comes when all places are taken.
pub const TOO_MANY: Answer = Answer::new("Error: too many clients.");

/// The answer to `question`, which is compared byte for byte, its `?` included.
pub fn answer_to(question: &[u8]) -> Answer {
    APHORISMS
        .iter()
        .find(|aphorism| aphorism.question.as_bytes() == question)
        .map_or(UNKNOWN, |aphorism| aphorism.answer)
}

/// A text that ends in `.` and holds no other: that is how a client finds its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer(&'static str);

impl Answer {
    /// # Panics
    ///
    /// When `text` does not end in its only `.`; for a constant that is an error of the compiler.
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() && bytes[at] != b'.' {
            at += 1;
        }
        assert!(at + 1 == bytes.len(), "an answer ends in '.' and holds no other");
        Self(text)
    }

    /// The answer as it goes over the network.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The bytes of [`Answer::as_str`].
    pub const fn as_bytes(self) -> &'static [u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_question_is_known() {
        assert_eq!(answer_to(b"Simple is better than?").as_str(), "complex.");
        assert_eq!(answer_to(b"simple is better than?"), UNKNOWN);
        assert_eq!(answer_to(b"Simple is better than"), UNKNOWN);
        assert_eq!(answer_to(b"?"), UNKNOWN);
    }

    #[test]
    #[should_panic(expected = "holds no other")]
    fn an_answer_with_two_full_stops_cannot_be_made() {
        Answer::new("ugly. or not.");
    }

    #[test]
    #[should_panic(expected = "ends in '.'")]
    fn an_answer_without_a_full_stop_cannot_be_made() {
        Answer::new("Error: unknown aphorism");
    }
}
