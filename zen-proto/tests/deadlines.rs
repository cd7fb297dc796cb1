//! Deadlines, draining and lingering: time is handed in, so nothing here waits.

use std::time::{Duration, Instant};

use zen_proto::{Answer, Conversation, Ending, Frame, Timeouts, Want, answer_to};

/// A conversation with its clock.
struct Test {
    conversation: Conversation,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        let start = Instant::now();
        let timeouts = Timeouts::new(Duration::from_secs(60), Duration::from_secs(10));
        Self { conversation: Conversation::new(timeouts, start), start }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn receive(&mut self, seconds: u64, bytes: &[u8]) {
        let now = self.at(seconds);
        receive(&mut self.conversation, bytes, now, |question| Some(answer_to(question)));
    }

    fn send(&mut self, seconds: u64, n: usize) {
        let now = self.at(seconds);
        self.conversation.sent(n, now);
    }

    fn send_all(&mut self, seconds: u64) {
        self.send(seconds, self.conversation.outgoing().len());
    }

    fn read_blocks(&mut self, seconds: u64) -> Want {
        let now = self.at(seconds);
        self.conversation.read_blocked(now);
        self.conversation.wants()
    }

    fn write_blocks(&mut self, seconds: u64) -> Want {
        let now = self.at(seconds);
        self.conversation.write_blocked(now);
        self.conversation.wants()
    }

    fn drain(&mut self, seconds: u64) {
        let now = self.at(seconds);
        self.conversation.drain(now);
    }

    fn deadline(&self) -> Option<u64> {
        self.conversation.deadline().map(|deadline| (deadline - self.start).as_secs())
    }
}

fn receive(conversation: &mut Conversation, mut input: &[u8], now: Instant, answer: impl Fn(&[u8]) -> Option<Answer>) {
    while let Some(question) = conversation.next_question(&mut input, now) {
        let answer = answer(question);
        conversation.answer(answer);
    }
    assert_eq!(input, b"", "all of it is taken");
}

#[test]
fn silence_ends_it_at_the_idle_timeout() {
    let mut test = Test::new();
    assert_eq!(test.read_blocks(59), Want::Read);
    assert_eq!(test.read_blocks(60), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::Idle));
}

#[test]
fn white_space_renews_nothing() {
    let mut test = Test::new();
    test.receive(30, b" \r\n");
    assert_eq!(test.deadline(), Some(60));
    test.receive(59, b"\n");
    assert_eq!(test.conversation.wants(), Want::Read);
    test.receive(60, b"\n");
    assert_eq!(test.conversation.wants(), Want::Close, "white space alone does not renew the idle timeout");
}

#[test]
fn a_dripping_client_is_cut_although_its_bytes_keep_coming() {
    let mut test = Test::new();
    test.receive(5, b"S");
    for second in 6..15 {
        test.receive(second, b"i");
        assert_eq!(test.read_blocks(second), Want::Read);
    }
    assert_eq!(test.read_blocks(15), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::TooSlow(b"Siiiiiiiii"[..].into())));
}

#[test]
fn each_question_has_its_own_time() {
    let mut test = Test::new();
    for begin in [0, 7, 14] {
        test.receive(begin, b"Simple is");
        test.receive(begin + 6, b" better than?");
        assert_eq!(test.conversation.outgoing(), b"complex.");
        test.send_all(begin + 6);
        assert_eq!(test.deadline(), Some(begin + 66));
    }
}

#[test]
fn time_spent_on_an_answer_does_not_count_against_the_client() {
    let mut test = Test::new();
    test.receive(1, b"Simple is better than?Exp");
    assert_eq!(test.conversation.wants(), Want::Write);
    assert_eq!(test.deadline(), None);
    test.send_all(50);
    assert_eq!(test.deadline(), Some(60), "the timeout of the second question starts now");
}

#[test]
fn a_client_that_does_not_read_is_reset_and_every_byte_taken_buys_time() {
    let mut test = Test::new();
    test.receive(1, b"Simple is better than?");
    assert_eq!(test.deadline(), None);
    assert_eq!(test.write_blocks(2), Want::Write);
    assert_eq!(test.deadline(), Some(12));
    assert_eq!(test.write_blocks(9), Want::Write);
    assert_eq!(test.deadline(), Some(12), "a write that sends nothing does not renew the deadline");
    test.send(11, 1);
    assert_eq!(test.deadline(), Some(21));
    assert_eq!(test.write_blocks(20), Want::Write);
    assert_eq!(test.write_blocks(21), Want::Reset);
    assert_eq!(test.conversation.ending(), Some(&Ending::NotReading));
}

#[test]
fn after_a_question_too_long_it_lingers_for_a_second() {
    let mut test = Test::new();
    test.receive(1, &[&b"Simple is better than?"[..], &[b'x'; 257]].concat());
    assert_eq!(test.conversation.outgoing(), b"complex.Error: question too long.");
    test.send_all(1);
    assert_eq!(test.conversation.wants(), Want::EndSending);
    test.conversation.ended_sending(test.at(1));
    assert_eq!(test.deadline(), Some(2));
    test.receive(1, b"Simple is better than?");
    assert_eq!(test.conversation.wants(), Want::Read, "the question is discarded");
    assert_eq!(test.read_blocks(2), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::TooLong));
}

#[test]
fn lingering_is_bounded_in_bytes() {
    let mut test = Test::new();
    test.receive(1, &[b'x'; 257]);
    test.send_all(1);
    test.conversation.ended_sending(test.at(1));
    test.receive(1, &[b'x'; 65_535]);
    assert_eq!(test.conversation.wants(), Want::Read);
    test.receive(1, b"x");
    assert_eq!(test.conversation.wants(), Want::Close);
}

#[test]
fn draining_closes_a_silent_client_immediately() {
    let mut test = Test::new();
    test.drain(3);
    assert_eq!(test.conversation.wants(), Want::Read, "a drain reads once more");
    assert_eq!(test.read_blocks(3), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::Drained));
}

#[test]
fn draining_lets_a_client_ask_that_was_just_accepted() {
    let mut test = Test::new();
    test.drain(0);
    let just_before = test.start + Duration::from_millis(99);
    test.conversation.read_blocked(just_before);
    assert_eq!(test.conversation.wants(), Want::Read);
    receive(&mut test.conversation, b"Simple is better than?", just_before, |question| Some(answer_to(question)));
    test.send_all(1);
    assert_eq!(test.read_blocks(1), Want::EndSending);
}

#[test]
fn draining_answers_whole_questions_and_drops_an_incomplete_one() {
    let mut test = Test::new();
    test.receive(1, b"Simple is");
    test.drain(3);
    test.receive(3, b" better than?Expl");
    test.send_all(3);
    assert_eq!(test.read_blocks(3), Want::EndSending);
    test.conversation.ended_sending(test.at(3));
    assert_eq!(test.conversation.deadline(), Some(test.at(3) + Duration::from_millis(250)));
    test.conversation.received_eof();
    assert_eq!(test.conversation.wants(), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::Drained));
}

#[test]
fn draining_takes_no_more_than_64_kib() {
    let mut test = Test::new();
    test.drain(3);
    for _ in 0..15 {
        test.receive(3, &[b'?'; 4096]);
        test.send_all(3);
        assert_eq!(test.conversation.wants(), Want::Read);
    }
    test.receive(3, &[b'?'; 4096]);
    test.send_all(3);
    assert_eq!(test.conversation.wants(), Want::EndSending);
}

#[test]
fn an_answer_that_fails_ends_the_conversation_after_the_answers_before_it() {
    let mut test = Test::new();
    let now = test.at(1);
    let answer = |question: &[u8]| (question != b"2?").then_some(Answer::from_static("fine."));
    receive(&mut test.conversation, b"1?2?3?", now, answer);
    assert_eq!(test.conversation.outgoing(), b"fine.");
    test.send_all(1);
    assert_eq!(test.conversation.wants(), Want::EndSending);
    assert_eq!(test.conversation.ending(), Some(&Ending::Failed));
}

#[test]
fn no_timeout_means_never_and_an_enormous_one_too() {
    let now = Instant::now();
    let mut conversation = Conversation::new(Timeouts::new(Duration::ZERO, Duration::MAX), now);
    assert_eq!(conversation.deadline(), None);
    receive(&mut conversation, b"S", now, |_| None);
    assert_eq!(conversation.deadline(), None);
}

#[test]
fn a_client_from_the_backlog_of_a_draining_server_is_read_once() {
    let now = Instant::now();
    let timeouts = Timeouts::new(Duration::from_secs(60), Duration::from_secs(10));
    let mut silent = Conversation::new_draining(timeouts, now);
    assert_eq!(silent.wants(), Want::Read);
    silent.read_blocked(now);
    assert_eq!(silent.wants(), Want::Close);
    let mut half = Conversation::new_draining(timeouts, now);
    receive(&mut half, b"Simple is", now, |question| Some(answer_to(question)));
    half.read_blocked(now);
    assert_eq!(half.wants(), Want::EndSending, "lingers, so that bytes which arrive later do not cause a reset");
}

#[test]
fn an_owned_answer_goes_out_like_any_other() {
    let mut test = Test::new();
    let now = test.at(1);
    receive(&mut test.conversation, b"How many?", now, |question| Answer::new(format!("{}.", question.len())).ok());
    assert_eq!(test.conversation.outgoing(), b"9.");
}

#[test]
fn a_question_in_pieces_is_freed_by_its_answer_and_frames_come_as_they_came() {
    let now = Instant::now();
    let mut conversation = Conversation::new(Timeouts::NEVER, now);
    let mut frames = Vec::new();
    for mut input in [&b" Simple is"[..], b" better", b" than?One?"] {
        while let Some(frame) = conversation.next_frame(&mut input, now) {
            frames.push(frame);
            if let Frame::Last(_) = frame {
                conversation.answer(Some(answer_to(b"?")));
            }
        }
    }
    let expected = [Frame::Data(b"Simple is"), Frame::Data(b" better"), Frame::Last(b" than?"), Frame::Last(b"One?")];
    assert_eq!(frames, expected);
}

#[test]
fn memory_is_bounded() {
    let mut test = Test::new();
    test.receive(1, &[b'?'; 4096]);
    assert_eq!(test.conversation.outgoing().len(), 98_304);
    assert!(size_of::<Conversation>() <= 112, "{} bytes for every idle client", size_of::<Conversation>());
}
