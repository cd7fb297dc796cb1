//! `zen-client check` against servers that keep the protocol, and against each way of breaking it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::fake_server::{Fault, converse};
use crate::running::{Died, client, client_of, serve, serve_on, text};

/// Starts a server that serves one client at a time, with a fault.
fn one_at_a_time(fault: Fault) -> SocketAddr {
    serve(1, move |mut stream| match converse(&mut stream, fault) {
        Err(error) if fault == Fault::DiesOfReset && is_reset(&error) => Err(Died),
        _ => Ok(()),
    })
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Returns the names of the failed cases with their rules, from the output of `--json`.
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
        Fault::ClosesAtHalfClose => "5s", // it waits before each answer, and no case reaches the timeout
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

// The cases that each fault fails, in the order in which they run. A server with one fault fails no other case.

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
    blames(Fault::LimitOnlyAtMark, "5 257-without-mark, 5 too-long-after-known, 8 too-long-keeps-coming");
    blames(Fault::LimitExcludesMark, "5 question-of-257, 5 257-without-mark, 5 too-long-after-known");
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

/// Returns the lines about one failed case, without the times.
fn explanation(fault: Fault, arguments: &str) -> String {
    let output = client_of(one_at_a_time(fault), &format!("check --timeout 300ms {arguments}"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = text(&output.stdout).lines().map(|line| match line.split_once(" ms  ") {
        Some((time, event)) if time.trim().parse::<f64>().is_ok() => format!("    {event}"),
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

#[test]
fn a_failure_is_explained() {
    let expected = r#"FAILED unknown-then-known: rule 4 (three questions are known, any other is an unknown aphorism, and the conversation continues): expected "Error: unknown aphorism.", saw "Error: unknown aphorism" and then nothing within 300ms
    case: an unknown question does not end the conversation
    client 1 connects
    client 1 sends "Complicated is better than?"
    client 1 receives "Error: unknown aphorism"
    client 1 sees nothing more
    first difference: byte 24: expected ".", saw nothing within 300ms
0 passed, 1 failed
"#;
    assert_eq!(explanation(Fault::ErrorWithoutFullStop, "--case unknown-then-known"), expected);
}

#[test]
fn the_explanation_shows_what_is_wrong() {
    for (fault, case, shown) in [
        (
            Fault::FramesByLastByte,
            "two-in-one-segment",
            &[
                r#"client 1 sends "Simple is better than?Beautiful is better than?""#,
                r#"client 1 receives "Error: unknown aphorism.""#,
                r#"first difference: byte 1: expected "c", saw "E""#,
            ][..],
        ),
        (
            Fault::FramesByRead,
            "cut-everywhere",
            &[
                r#"client 1 sends "B""#,
                r#"client 1 sends "eautiful is better than?Explicit is better than?Simple is better"… (70 bytes)"#,
            ],
        ),
        (Fault::AnswersLastFirst, "two-in-one-segment", &[r#"first difference: byte 1: expected "c", saw "u""#]),
        (
            Fault::IgnoresCase,
            "near-misses",
            &[r#"client 1 sends "simple is better than?""#, r#"client 1 receives "complex.""#],
        ),
        (
            Fault::ClosesUnread,
            "too-long-keeps-coming",
            &[
                r#"client 1 receives "Error: question too long.""#,
                "client 1 is reset",
                "first difference: after the last answer: expected end of file, saw a reset",
            ],
        ),
        (
            Fault::ClosesAfterUnknown,
            "unknown-then-known",
            &["client 1 sees end of file", r#"first difference: byte 1: expected "c", saw end of file"#],
        ),
        (
            Fault::NeverAnswers,
            "half-close-behind-whole",
            &["client 1 ends its sending side", r#"first difference: byte 1: expected "u", saw end of file"#],
        ),
    ] {
        let explanation = explanation(fault, case);
        let lines: Vec<_> = explanation.lines().map(str::trim).collect();
        let at = shown.iter().map(|wanted| lines.iter().position(|line| line == wanted));
        let at: Option<Vec<_>> = at.collect();
        assert!(at.is_some_and(|at| at.is_sorted()), "{fault:?}: {shown:?} in this order, of\n{explanation}");
    }
}

#[test]
fn a_command_runs_at_the_moment_of_the_failure() {
    let server = one_at_a_time(Fault::IgnoresCase);
    let mut check = Command::new(env!("CARGO_BIN_EXE_zen-client"));
    check.args(["check", "-p", &server.port().to_string(), "--json", "--case", "near-misses", "--case", "any-bytes"]);
    // The failed client is still connected.
    let connected = format!("grep -c '0100007F:{:04X} .* 01 ' /proc/net/tcp; echo seen >&2", server.port());
    let output = check.args(["--on-failure", &connected]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["cases"][0]["observed"], Value::from(vec!["1", "seen"]), "{report}");
    assert_eq!(report["cases"][1]["observed"], Value::from(Vec::<Value>::new()), "{report}");
}

/// Returns the report on a server with one fault, in this format.
fn formatted(format: &str) -> String {
    let output =
        client_of(one_at_a_time(Fault::IgnoresCase), &format!("check --format {format} near-misses any-bytes"));
    assert!(output.status.code() == Some(1) && output.stderr.is_empty(), "{output:?}");
    text(&output.stdout).to_owned()
}

#[test]
fn junit_has_the_elements_and_attributes_of_its_schema() {
    // Of https://github.com/jenkinsci/xunit-plugin, junit-10.xsd: element, parent, attributes, of which some are
    // required.
    let schema: [(&str, &str, &[&str], &[&str]); 4] = [
        ("testsuites", "", &["name", "time", "tests", "failures", "errors"], &[]),
        (
            "testsuite",
            "testsuites",
            &["name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"],
            &["name", "tests", "failures", "errors"],
        ),
        ("testcase", "testsuite", &["name", "classname", "time", "assertions", "status"], &["name", "classname"]),
        ("failure", "testcase", &["type", "message"], &[]),
    ];
    let xml = formatted("junit");
    let document = roxmltree::Document::parse(&xml).unwrap();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        let parent = node.parent_element().map_or("", |parent| parent.tag_name().name());
        let (.., allowed, required) = schema.iter().find(|(known, of, ..)| (*known, *of) == (name, parent)).unwrap();
        assert!(node.attributes().all(|attribute| allowed.contains(&attribute.name())), "{node:?}");
        assert!(required.iter().all(|required| node.has_attribute(*required)), "{node:?}");
    }
    let all = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).collect::<Vec<_>>();
    let [suite] = all("testsuite")[..] else { panic!("{xml}") };
    assert_eq!(["tests", "failures", "errors"].map(|name| suite.attribute(name).unwrap()), ["2", "1", "0"]);
    let timestamp = suite.attribute("timestamp").unwrap();
    let is_like = |(byte, pattern): (u8, u8)| byte == pattern || pattern == b'0' && byte.is_ascii_digit();
    assert!(timestamp.len() == 19 && timestamp.bytes().zip(*b"0000-00-00T00:00:00").all(is_like), "{timestamp}");
    let [failure] = all("failure")[..] else { panic!("{xml}") };
    assert_eq!(failure.parent().unwrap().attribute("name"), Some("near-misses"));
    assert!(failure.attribute("message").unwrap().starts_with("FAILED near-misses: rule 4 "), "{xml}");
    assert!(failure.text().unwrap().contains(r#"client 1 receives "complex.""#), "what XML reserves is escaped: {xml}");
}

#[test]
fn gradescope_has_the_fields_of_its_specification() {
    // Of https://gradescope-autograders.readthedocs.io/en/latest/specs/: the names, and what a test must have.
    let (top, test) = (
        [
            "score",
            "execution_time",
            "output",
            "output_format",
            "visibility",
            "stdout_visibility",
            "extra_data",
            "tests",
        ],
        ["score", "max_score", "status", "name", "number", "output", "output_format", "tags", "visibility"],
    );
    let results: Value = serde_json::from_str(&formatted("gradescope")).unwrap();
    let is_known =
        |value: &Value, known: &[&str]| value.as_object().unwrap().keys().all(|key| known.contains(&key.as_str()));
    let tests = results["tests"].as_array().unwrap();
    assert!(is_known(&results, &top) && tests.iter().all(|one| is_known(one, &test)), "{results}");
    assert!(results["execution_time"].is_number(), "{results}");
    let scores: Vec<_> =
        tests.iter().map(|one| [&one["score"], &one["max_score"]].map(|n| n.as_f64().unwrap())).collect();
    assert_eq!(scores, [[0.0, 1.0], [1.0, 1.0]]);
    assert_eq!([&tests[0]["status"], &tests[1]["status"]], ["failed", "passed"]);
    assert!(tests[0]["output"].as_str().unwrap().contains("first difference: "), "{results}");
}

#[test]
fn a_report_is_rendered_in_any_format() {
    let report = r#"{"server": "a <server>", "passed": 0, "failed": 1, "cases": [{"name": "drains", "rule": null,
        "passed": false, "expected": null, "saw": "a reset & nothing", "milliseconds": 5, "points": 2.5}]}"#;
    for (format, shown) in [
        ("text", "FAILED drains: saw a reset & nothing\n0 passed, 1 failed\n"),
        ("junit", "<testsuite name=\"a &lt;server&gt;\" tests=\"1\" failures=\"1\""),
        ("gradescope", "\"max_score\": 2.5"),
        ("json", "\"rule\": null"),
    ] {
        let mut render = Command::new(env!("CARGO_BIN_EXE_zen-client"));
        render.args(["render", "--format", format]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut render = render.spawn().unwrap();
        render.stdin.take().unwrap().write_all(report.as_bytes()).unwrap();
        let output = render.wait_with_output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains(shown), "{format}: {output:?}");
    }
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
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = client_of(unused, "check --json");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).starts_with(&format!("error: connection refused by {unused}: ")), "{output:?}");
}
