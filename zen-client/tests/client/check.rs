//! `zen-client check` against servers that keep the protocol, and against each way of breaking it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Output;

use serde_json::Value;

use crate::running::{Died, client, client_of, serve, serve_on, text};
use crate::sage::{Fault, converse};

/// A server that takes one client at a time, wrong in one way.
fn one_at_a_time(fault: Fault) -> SocketAddr {
    serve(1, move |mut stream| match converse(&mut stream, fault) {
        Err(error) if fault == Fault::DiesOfReset && is_reset(&error) => Err(Died),
        _ => Ok(()),
    })
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// The names of the failed cases with their rules, as `--json` gives them.
fn failures(output: &Output) -> Vec<(String, u64)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    let failed: Vec<_> = cases.iter().filter(|case| case["passed"] == false).collect();
    assert_eq!(report["failed"], failed.len());
    assert_eq!(report["passed"], cases.len() - failed.len());
    assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())));
    failed.iter().map(|case| (case["name"].as_str().unwrap().to_owned(), case["rule"].as_u64().unwrap())).collect()
}

/// Asserts that exactly the `expected` cases fail, each written as `RULE NAME`.
fn blames(fault: Fault, expected: &str) {
    let timeout = match fault {
        Fault::NeverAnswers => "200ms",   // nearly every case takes all of it
        Fault::ClosesAtHalfClose => "5s", // it thinks before each answer, and no case runs into the time-out
        _ => "500ms",
    };
    let output = client_of(one_at_a_time(fault), &format!("check --json --timeout {timeout}"));
    let mut failed = failures(&output);
    // Bytes that are sent apart may still be read together, and then this fault does not show there.
    failed.retain(|(name, _)| fault != Fault::FramesByLastByte || name != "one-byte-at-a-time");
    let failed: Vec<_> = failed.iter().map(|(name, rule)| format!("{rule} {name}")).collect();
    assert_eq!(failed.join(", "), expected, "{fault:?}\n{}", text(&output.stdout));
}

#[test]
fn a_server_for_one_client_at_a_time_passes() {
    let output = client_of(one_at_a_time(Fault::None), "check");
    assert!(text(&output.stdout).ends_with("\n27 passed, 0 failed\n"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).starts_with("ok known-questions\nok unknown-then-known\n"));
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_server_with_four_workers_passes() {
    let server = serve(4, |mut stream| {
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    });
    assert_eq!(failures(&client_of(server, "check --json")), []);
}

#[test]
fn a_server_on_ipv6_passes() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("not tested: this machine has no IPv6 loopback");
    };
    let server = serve_on(listener, 1, |mut stream| {
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    });
    for host in ["::1", "[::1]"] {
        let output = client_of(server, &format!("check {host} --quick"));
        assert!(text(&output.stdout).ends_with("\n4 passed, 0 failed\n"), "{output:?}");
    }
}

// What each fault costs, in the order in which the cases run. A server that is wrong in one thing is blamed for what
// shows of it, and for nothing else.

#[test]
fn questions_cut_wrongly() {
    blames(
        Fault::FramesByLastByte,
        "1 cut-everywhere, 2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, 2 whole-then-part, \
         3 white-space-before, 5 too-long-after-known, 6 half-close-after-questions, 6 half-close-behind-whole",
    );
    blames(
        Fault::FramesByRead,
        "1 one-byte-at-a-time, 1 cut-everywhere, 2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, \
         2 whole-then-part, 3 white-space-before, 5 too-long-after-known, 5 256-cut-short, \
         6 half-close-after-questions, 6 half-close-cut-short, 6 half-close-behind-whole",
    );
}

#[test]
fn answers_in_disorder() {
    blames(
        Fault::AnswersLastFirst,
        "1 cut-everywhere, 2 two-in-one-segment, 2 thousand-in-one-send, 6 half-close-after-questions",
    );
    blames(
        Fault::DropsPipelined,
        "1 cut-everywhere, 2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, \
         6 half-close-after-questions",
    );
    blames(
        Fault::AnswersTwice,
        "4 known-questions, 4 unknown-then-known, 4 near-misses, 4 any-bytes, 1 one-byte-at-a-time, 1 cut-everywhere, \
         2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, 2 whole-then-part, \
         3 white-space-before, 3 white-space-does-not-count, 3 other-blanks-count, 5 question-of-256, \
         5 too-long-after-known, 6 half-close-after-questions, 6 half-close-behind-whole, 1 clients-at-once",
    );
}

#[test]
fn wrong_answers() {
    blames(
        Fault::ErrorWithoutFullStop,
        "4 unknown-then-known, 4 near-misses, 4 any-bytes, 2 thousand-in-one-send, 2 bare-question-marks, \
         3 white-space-does-not-count, 3 other-blanks-count, 5 question-of-256, 6 half-close-after-questions",
    );
    blames(
        Fault::ClosesAfterUnknown,
        "4 unknown-then-known, 4 near-misses, 4 any-bytes, 2 thousand-in-one-send, 2 bare-question-marks, \
         3 white-space-does-not-count, 3 other-blanks-count, 5 question-of-256",
    );
    blames(Fault::IgnoresCase, "4 near-misses");
}

#[test]
fn wrong_white_space() {
    blames(Fault::TrimsUnicode, "3 other-blanks-count");
    blames(Fault::KeepsWhiteSpace, "3 white-space-before, 3 white-space-does-not-count");
    blames(Fault::CountsWhiteSpace, "3 white-space-does-not-count");
}

#[test]
fn a_wrong_limit() {
    blames(Fault::NoLimit, "5 question-of-257, 5 257-without-mark, 5 too-long-after-known, 8 too-long-keeps-coming");
    blames(Fault::LimitWithoutMark, "5 257-without-mark, 5 too-long-after-known, 8 too-long-keeps-coming");
    blames(Fault::LimitIncludesNoMark, "5 question-of-257, 5 257-without-mark, 5 too-long-after-known");
}

#[test]
fn a_wrong_end_after_a_long_question() {
    blames(Fault::TooLongForgetsAnswers, "5 too-long-after-known");
    blames(
        Fault::StaysAfterTooLong,
        "5 question-of-257, 5 257-without-mark, 5 too-long-after-known, 8 too-long-keeps-coming",
    );
    blames(
        Fault::ResetsAfterTooLong,
        "5 question-of-257, 5 257-without-mark, 5 too-long-after-known, 8 too-long-keeps-coming",
    );
    blames(Fault::ClosesUnread, "8 too-long-keeps-coming");
    blames(Fault::ClosesUnreadAfterShutdown, "8 too-long-keeps-coming");
}

#[test]
fn a_wrong_end_after_a_half_close() {
    blames(Fault::ClosesAtHalfClose, "6 half-close-after-questions, 6 half-close-behind-whole");
    blames(Fault::AnswersWhatIsCutShort, "5 256-cut-short, 6 half-close-cut-short, 6 half-close-behind-whole");
}

#[test]
fn a_server_that_never_answers() {
    blames(
        Fault::NeverAnswers,
        "4 known-questions, 4 unknown-then-known, 4 near-misses, 4 any-bytes, 1 one-byte-at-a-time, 1 cut-everywhere, \
         2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, 2 whole-then-part, \
         3 white-space-before, 3 white-space-does-not-count, 3 other-blanks-count, 5 question-of-256, \
         5 question-of-257, 5 257-without-mark, 5 too-long-after-known, 6 half-close-after-questions, \
         6 half-close-behind-whole, 8 too-long-keeps-coming, 1 after-a-reset, 1 hundred-in-turn, 1 clients-at-once",
    );
}

#[test]
fn a_server_that_never_stops_answering() {
    blames(
        Fault::NeverStopsAnswering,
        "4 known-questions, 4 unknown-then-known, 4 near-misses, 4 any-bytes, 1 one-byte-at-a-time, 1 cut-everywhere, \
         2 two-in-one-segment, 2 thousand-in-one-send, 2 bare-question-marks, 2 whole-then-part, \
         3 white-space-before, 3 white-space-does-not-count, 3 other-blanks-count, 5 question-of-256, \
         5 too-long-after-known, 6 half-close-after-questions, 6 half-close-behind-whole, 1 after-a-reset, \
         1 hundred-in-turn, 1 clients-at-once",
    );
}

#[test]
fn a_server_that_dies_of_a_reset() {
    blames(Fault::DiesOfReset, "1 after-a-reset, 1 hundred-in-turn, 1 clients-at-once");
}

#[test]
fn a_server_that_stays_after_the_end_of_file() {
    // It stays for as long as a case lasts, so each case needs a server of its own.
    for case in ["white-space-alone", "half-close-after-questions", "half-close-at-once", "half-close-cut-short"] {
        let server = one_at_a_time(Fault::StaysAfterEndOfFile);
        let output = client_of(server, &format!("check --json --timeout 300ms --case {case}"));
        assert_eq!(failures(&output)[0].0, case);
    }
}

#[test]
fn a_failure_names_the_rule_and_shows_the_bytes() {
    let output =
        client_of(one_at_a_time(Fault::ErrorWithoutFullStop), "check --timeout 300ms --case unknown-then-known");
    let expected = "FAILED unknown-then-known: rule 4 (three questions are known, any other is an unknown aphorism): \
        expected \"Error: unknown aphorism.\", saw \"Error: unknown aphorism\" and then nothing within 300ms\n\
        0 passed, 1 failed\n";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn cases_are_chosen_by_name() {
    let server = one_at_a_time(Fault::None);
    let expected = "ok two-in-one-segment\nok any-bytes\n2 passed, 0 failed\n";
    for arguments in [
        "check two-in-one-segment any-bytes",
        "check 127.0.0.1 two-in-one-segment any-bytes",
        "check --case two-in-one-segment --case any-bytes",
    ] {
        assert_eq!(text(&client_of(server, arguments).stdout), expected, "{arguments}");
    }
}

#[test]
fn the_list_needs_no_server() {
    let output = client("check --list");
    assert_eq!(text(&output.stdout).lines().count(), 27);
    assert!(text(&output.stdout).starts_with("known-questions               rule 4  each of the three"), "{output:?}");
}

#[test]
fn without_a_server_there_is_nothing_to_judge() {
    let deserted = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = client_of(deserted, "check --json");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).starts_with(&format!("error: connection refused by {deserted}: ")), "{output:?}");
}
