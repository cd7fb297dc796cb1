//! A second, naive reading of the protocol, and a driver that feeds a conversation under given cuts.

use std::time::Instant;

use zen_proto::{Conversation, Ending, Timeouts, Want, answer_to};

/// The answers to `input` and how it ends after it, by splitting alone: no state, no streaming.
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

/// The same from a conversation that gets `input` in chunks of these sizes (then the rest), whose answers
/// are taken `taken` bytes at a time.
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
            Want::Reset => panic!("no client was slow"),
        }
    }
    (answers, conversation.ending().expect("it is over").clone())
}

/// What every stream of answers looks like.
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
