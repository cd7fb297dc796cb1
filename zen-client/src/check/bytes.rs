//! Questions and answers as bytes.
//!
//! They are literals, and not names from `zen-proto`: a test that shared the table with the servers would share its
//! mistakes.

pub(super) const BEAUTIFUL: &[u8] = b"Beautiful is better than?";
pub(super) const EXPLICIT: &[u8] = b"Explicit is better than?";
pub(super) const SIMPLE: &[u8] = b"Simple is better than?";
pub(super) const UGLY: &[u8] = b"ugly.";
pub(super) const IMPLICIT: &[u8] = b"implicit.";
pub(super) const COMPLEX: &[u8] = b"complex.";
pub(super) const UNKNOWN: &[u8] = b"Error: unknown aphorism.";
pub(super) const TOO_LONG: &[u8] = b"Error: question too long.";

pub(super) const THREE_QUESTIONS: &[u8] = b"Beautiful is better than?Explicit is better than?Simple is better than?";
pub(super) const THREE_ANSWERS: &[u8] = b"ugly.implicit.complex.";

/// Returns `n` questions and their answers. Any four in a row differ, so that a wrong order shows.
pub(super) fn many(n: usize) -> (Vec<u8>, Vec<u8>) {
    let known = [(BEAUTIFUL, UGLY), (EXPLICIT, IMPLICIT), (SIMPLE, COMPLEX), (b"?", UNKNOWN)];
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    for (question, answer) in known.into_iter().cycle().take(n) {
        questions.extend_from_slice(question);
        answers.extend_from_slice(answer);
    }
    (questions, answers)
}
