//! What a conversation makes of time, which is handed in: nothing here waits.

use std::time::{Duration, Instant};

use zen_proto::{Answer, Conversation, Ending, Limits, Want, answer_to};

static LIMITS: Limits = Limits { idle: Some(Duration::from_secs(60)), question: Some(Duration::from_secs(10)) };

/// A conversation with its clock.
struct Test {
    conversation: Conversation,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        let start = Instant::now();
        Self { conversation: Conversation::new(&LIMITS, start), start }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn receive(&mut self, seconds: u64, bytes: &[u8]) {
        let now = self.at(seconds);
        self.conversation.received(bytes, now, &mut |question| Some(answer_to(question)));
    }

    fn send(&mut self, seconds: u64, n: usize) {
        let now = self.at(seconds);
        self.conversation.sent(n, now);
    }

    fn send_all(&mut self, seconds: u64) {
        self.send(seconds, self.conversation.outgoing().len());
    }

    fn find_nothing(&mut self, seconds: u64) -> Want {
        let now = self.at(seconds);
        self.conversation.timed_out(now);
        self.conversation.wants()
    }

    fn drain(&mut self, seconds: u64) {
        let now = self.at(seconds);
        self.conversation.drain(now);
    }

    fn expires_at(&self) -> Option<u64> {
        self.conversation.expires_at().map(|deadline| (deadline - self.start).as_secs())
    }
}

#[test]
fn silence_ends_it_at_the_idle_time_out() {
    let mut test = Test::new();
    assert_eq!(test.find_nothing(59), Want::Read);
    assert_eq!(test.find_nothing(60), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::Idle));
}

#[test]
fn white_space_renews_nothing() {
    let mut test = Test::new();
    test.receive(30, b" \r\n");
    assert_eq!(test.expires_at(), Some(60));
    test.receive(59, b"\n");
    assert_eq!(test.conversation.wants(), Want::Read);
    test.receive(60, b"\n");
    assert_eq!(test.conversation.wants(), Want::Close, "a flood of it is silence");
}

#[test]
fn a_dripping_client_is_cut_although_its_bytes_keep_coming() {
    let mut test = Test::new();
    test.receive(5, b"S");
    for second in 6..15 {
        test.receive(second, b"i");
        assert_eq!(test.find_nothing(second), Want::Read);
    }
    assert_eq!(test.find_nothing(15), Want::Close);
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
        assert_eq!(test.expires_at(), Some(begin + 66));
    }
}

#[test]
fn thinking_is_not_the_clients_fault() {
    let mut test = Test::new();
    test.receive(1, b"Simple is better than?Exp");
    assert_eq!(test.find_nothing(50), Want::Write);
    test.send_all(50);
    assert_eq!(test.expires_at(), Some(60), "the rest of the second question has its time from now");
}

#[test]
fn a_client_that_does_not_read_is_reset_and_every_byte_taken_buys_time() {
    let mut test = Test::new();
    test.receive(1, b"Simple is better than?");
    assert_eq!(test.expires_at(), None);
    test.send(2, 0);
    assert_eq!(test.expires_at(), Some(12));
    test.send(9, 0);
    assert_eq!(test.expires_at(), Some(12), "no byte, no time");
    test.send(11, 1);
    assert_eq!(test.expires_at(), Some(21));
    assert_eq!(test.find_nothing(20), Want::Write);
    assert_eq!(test.find_nothing(21), Want::Reset);
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
    assert_eq!(test.expires_at(), Some(2));
    test.receive(1, b"Simple is better than?");
    assert_eq!(test.conversation.wants(), Want::Read, "no answer any more");
    assert_eq!(test.find_nothing(2), Want::Close);
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
fn draining_closes_a_silent_client_at_once() {
    let mut test = Test::new();
    test.drain(3);
    assert_eq!(test.conversation.wants(), Want::Read, "once more");
    assert_eq!(test.find_nothing(3), Want::Close);
    assert_eq!(test.conversation.ending(), Some(&Ending::Drained));
}

#[test]
fn draining_lets_one_speak_who_has_just_come() {
    let mut test = Test::new();
    test.drain(0);
    let just_before = test.start + Duration::from_millis(99);
    test.conversation.timed_out(just_before);
    assert_eq!(test.conversation.wants(), Want::Read);
    test.conversation.received(b"Simple is better than?", just_before, &mut |question| Some(answer_to(question)));
    test.send_all(1);
    assert_eq!(test.find_nothing(1), Want::EndSending);
}

#[test]
fn draining_answers_what_has_come_and_drops_the_half() {
    let mut test = Test::new();
    test.receive(1, b"Simple is");
    test.drain(3);
    test.receive(3, b" better than?Expl");
    test.send_all(3);
    assert_eq!(test.find_nothing(3), Want::EndSending);
    test.conversation.ended_sending(test.at(3));
    assert_eq!(test.conversation.expires_at(), Some(test.at(3) + Duration::from_millis(250)));
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
fn a_sage_that_fails_ends_the_conversation_after_the_answers_before_it() {
    let mut test = Test::new();
    let now = test.at(1);
    test.conversation.received(b"1?2?3?", now, &mut |question| (question != b"2?").then_some(Answer::new("fine.")));
    assert_eq!(test.conversation.outgoing(), b"fine.");
    test.send_all(1);
    assert_eq!(test.conversation.wants(), Want::EndSending);
    assert_eq!(test.conversation.ending(), Some(&Ending::Unanswered));
}

#[test]
fn no_time_out_means_never_and_an_enormous_one_too() {
    static NEVER: Limits = Limits { idle: None, question: Some(Duration::MAX) };
    let now = Instant::now();
    let mut conversation = Conversation::new(&NEVER, now);
    assert_eq!(conversation.expires_at(), None);
    conversation.received(b"S", now, &mut |_| None);
    assert_eq!(conversation.expires_at(), None);
}

#[test]
fn memory_is_given_back_and_bounded() {
    let mut test = Test::new();
    test.receive(1, &[b'?'; 4096]);
    assert_eq!(test.conversation.outgoing().len(), 98_304);
    assert!(size_of::<Conversation>() <= 120, "{} bytes for every idle client", size_of::<Conversation>());
}
