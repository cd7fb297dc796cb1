//! A second, naive implementation of the protocol, and a driver that feeds a conversation with chunks of given sizes.

use std::time::Instant;

use zen_proto::{Conversation, Ending, Timeouts, Want, answer_to};

/// Returns the answers to `input` and the ending, by splitting the complete input at each `?`.
pub(crate) fn model(input: &[u8]) -> (Vec<u8>, Ending) {
    let white = |byte: &u8| b" \t\r\n".contains(byte);
    let mut answers = Vec::new();
    let mut pieces = input.split_inclusive(|byte| *byte == b'?').peekable();
    while let Some(piece) = pieces.next() {
        let question = &piece[piece.iter().take_while(|byte| white(byte)).count()..];
        if question.len() > 256 {
            answers.extend(b"Error: question too long.");
            return (answers, Ending::TooLong);
        }
        if question.ends_with(b"?") {
            answers.extend(answer_to(question).as_bytes());
        } else if pieces.peek().is_none() && !question.is_empty() {
            return (answers, Ending::CutShort(question.into()));
        }
    }
    (answers, Ending::Finished)
}

/// Returns the answers and the ending of a conversation. It receives `input` in chunks of the sizes `cuts`, then the
/// rest. Its answers are written `taken` bytes at a time.
pub(crate) fn converse(input: &[u8], cuts: &[usize], taken: usize) -> (Vec<u8>, Ending) {
    let now = Instant::now();
    let mut conversation = Conversation::new(Timeouts::NEVER, now);
    let mut answers = Vec::new();
    let mut rest = input;
    let mut cuts = cuts.iter().copied().filter(|cut| *cut > 0);
    loop {
        match conversation.wants() {
            Want::Read if rest.is_empty() => conversation.received_eof(),
            Want::Read => {
                let (mut chunk, later) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
                while let Some(question) = conversation.next_question(&mut chunk, now) {
                    let answer = answer_to(question);
                    conversation.answer(Some(answer));
                }
                assert!(chunk.is_empty(), "all of it is taken");
                rest = later;
            }
            Want::Write => {
                let n = conversation.outgoing().len().min(taken.max(1));
                answers.extend(&conversation.outgoing()[..n]);
                conversation.sent(n, now);
            }
            Want::EndSending => conversation.ended_sending(now),
            Want::Close => break,
            Want::Reset => panic!("a reset without timeouts"),
        }
    }
    (answers, conversation.ending().expect("it is over").clone())
}

/// Asserts that `answers` consists of whole known answers.
pub(crate) fn assert_well_formed(answers: &[u8]) {
    assert!(answers.is_empty() || answers.ends_with(b"."), "an answer without its end");
    for answer in answers.split_inclusive(|byte| *byte == b'.') {
        assert!(
            [&b"ugly."[..], b"implicit.", b"complex.", b"Error: unknown aphorism.", b"Error: question too long."]
                .contains(&answer),
            "not an answer: {}",
            answer.escape_ascii()
        );
    }
}
