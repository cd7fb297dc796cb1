//! What the server knows: three questions, their answers, and the error answers.
//!
//! The aphorisms are from "The Zen of Python" by Tim Peters; asking them over a socket is an idea of
//! *Foundations of Python Network Programming* by Brandon Rhodes and John Goerzen.

use crate::Answer;

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aphorism {
    /// What a client asks, its `?` included.
    pub question: &'static str,
    /// What the server answers.
    pub answer: Answer,
}

/// The questions that have an answer of their own (rule 4).
pub static APHORISMS: [Aphorism; 3] = [
    Aphorism { question: "Beautiful is better than?", answer: Answer::from_static("ugly.") },
    Aphorism { question: "Explicit is better than?", answer: Answer::from_static("implicit.") },
    Aphorism { question: "Simple is better than?", answer: Answer::from_static("complex.") },
];

/// The answer to any other question. Without its full stop, the client would wait for the rest of it.
pub static UNKNOWN: Answer = Answer::from_static("Error: unknown aphorism.");

/// The answer to a question whose 257th byte has arrived (rule 5).
pub static TOO_LONG: Answer = Answer::from_static("Error: question too long.");

/// The only answer that a client over the connection limit gets (rule 7).
pub static TOO_MANY: Answer = Answer::from_static("Error: too many clients.");

/// Returns the answer to `question`, which is compared byte for byte, its `?` included.
#[inline]
pub fn answer_to(question: &[u8]) -> Answer {
    APHORISMS
        .iter()
        .find(|aphorism| aphorism.question.as_bytes() == question)
        .map_or(&UNKNOWN, |aphorism| &aphorism.answer)
        .clone()
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
}
