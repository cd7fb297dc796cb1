//! The cases: each tests one thing that the protocol demands of a server.

mod asking;
mod ending;
mod several_clients;

use super::client::{Outcome, Target};

/// One promise of the protocol, with the function that tests it.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The number of the protocol's rule that is checked.
    pub(super) rule: u8,
    /// The line for `--list`.
    pub(super) about: &'static str,
    pub(super) run: fn(&Target) -> Outcome,
    /// Whether it is part of the health check.
    pub(super) is_quick: bool,
    /// The time limit, in multiples of `--timeout`.
    pub(super) times: u32,
}

impl Case {
    const fn new(rule: u8, name: &'static str, run: fn(&Target) -> Outcome, about: &'static str) -> Self {
        Self { name, rule, about, run, is_quick: false, times: 1 }
    }

    const fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    const fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }
}

/// All cases, in the order in which they run.
#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    Case::new(4, "known-questions", asking::known_questions,
        "each of the three questions has its answer").quick(),
    Case::new(4, "unknown-then-known", asking::unknown_then_known,
        "an unknown question does not end the conversation").quick(),
    Case::new(4, "near-misses", asking::near_misses,
        "a question that nearly equals a known one is unknown"),
    Case::new(4, "any-bytes", asking::any_bytes,
        "a question may contain any byte"),
    Case::new(1, "one-byte-at-a-time", asking::one_byte_at_a_time,
        "three questions, each byte in a send of its own"),
    Case::new(1, "cut-everywhere", asking::cut_everywhere,
        "three questions, cut in two at every place"),
    Case::new(2, "two-in-one-segment", asking::two_in_one_segment,
        "two questions in one send").quick(),
    Case::new(2, "thousand-in-one-send", asking::thousand_in_one_send,
        "1,000 questions in one send, answered in order"),
    Case::new(2, "bare-question-marks", asking::bare_question_marks,
        "65,536 bare ?, while their answers are read"),
    Case::new(2, "whole-then-part", asking::whole_then_part,
        "a whole question is answered before the next is complete"),
    Case::new(3, "white-space-before", asking::white_space_before,
        "space, tab, CR and LF before a question are skipped"),
    Case::new(3, "white-space-does-not-count", asking::white_space_does_not_count,
        "300 blanks before a question of 256 bytes"),
    Case::new(3, "other-blanks-count", asking::other_blanks_count,
        "VT, FF, NUL and the like belong to the question"),
    Case::new(3, "white-space-alone", asking::white_space_alone,
        "white space, then end of file: no answer"),
    Case::new(5, "question-of-256", ending::question_of_256,
        "a question of 256 bytes, its ? included, is answered"),
    Case::new(5, "question-of-257", ending::question_of_257,
        "a question of 257 bytes, its ? included, is too long: error and close"),
    Case::new(5, "257-without-mark", ending::too_long_without_mark,
        "the error is sent at the 257th byte, without waiting for a ?"),
    Case::new(5, "too-long-after-known", ending::too_long_after_known,
        "pending answers are sent before the error"),
    Case::new(5, "256-cut-short", ending::cut_short_at_256,
        "256 bytes without ?, then end of file: cut short, not too long"),
    Case::new(6, "half-close-after-questions", ending::half_close_after_questions,
        "1, 10 and 1,000 questions, then end of file").quick(),
    Case::new(6, "half-close-at-once", ending::half_close_at_once,
        "end of file before any question"),
    Case::new(6, "half-close-cut-short", ending::half_close_cut_short,
        "end of file inside the first question: no answer"),
    Case::new(6, "half-close-behind-whole", ending::half_close_behind_whole,
        "end of file inside the second question: one answer"),
    Case::new(8, "too-long-keeps-coming", ending::too_long_keeps_coming,
        "the error arrives although the client sends 40,000 bytes more"),
    Case::new(1, "after-a-reset", several_clients::after_a_reset,
        "after a client resets its connection, others are still served"),
    Case::new(1, "hundred-in-turn", several_clients::hundred_in_turn,
        "100 clients, one after another"),
    Case::new(1, "clients-at-once", several_clients::clients_at_once,
        "8 clients that connect together, ask, read and leave").times(4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_rule() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{} is there twice", case.name);
            assert!(case.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')), "{}", case.name);
            assert!((1..=8).contains(&case.rule), "{}", case.name);
        }
    }
}
