//! `zen-client load --retries`: what fails is tried again, and counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::fake_server::{Fault, converse};
use crate::load::{fails_by, load, server, verdict};
use crate::running::{client_of, serve, text};

/// Starts a server for 16 clients at a time. It calls `unkind` with the number of each client, and serves the client
/// afterwards if that returned true.
fn unreliable(unkind: impl Fn(usize, &mut TcpStream) -> bool + Send + Sync + 'static) -> SocketAddr {
    let clients = AtomicUsize::new(0);
    serve(16, move |mut stream| {
        if unkind(clients.fetch_add(1, Ordering::SeqCst), &mut stream) {
            let _ = converse(&mut stream, Fault::None);
        }
        Ok(())
    })
}

/// Returns how many connections were opened again, and how many questions were asked again, answered, given up.
fn retries(report: &Value) -> [u64; 4] {
    ["connections", "questions", "answered", "given_up"].map(|name| report["retries"][name].as_u64().unwrap())
}

#[test]
fn unanswered_questions_are_asked_again_in_every_mode() {
    for arguments in ["", "-P 4", "-r 200", "-r 200 -P 4", "--churn", "--churn -r 200", "--threads 2 -r 200"] {
        // The tenth question of a client gets no answer, and every fifth client gets none at all.
        let server = unreliable(|number, stream| {
            for _ in 0..if number % 5 == 4 { 0 } else { 9 } {
                let mut question = [0; 256];
                let Ok(n @ 1..) = stream.read(&mut question) else { return false };
                for question in question[..n].split_inclusive(|byte| *byte == b'?') {
                    let _ = stream.write_all(zen_proto::answer_to(question).as_bytes());
                }
            }
            let _ = stream.read(&mut [0; 256]);
            false
        });
        let (report, output) = load(server, &format!("{arguments} --retries 10"));
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments} {output:?}");
        let [connections, questions, answered, given_up] = retries(&report);
        assert!(connections > 0 && questions > 0, "{arguments} {report}");
        assert_eq!((answered, given_up), (questions, 0), "{arguments} {report}");
        assert_eq!(verdict(&report, "littles_law")["ok"], true, "{arguments} {report}");
        if arguments.contains("-r 200") {
            let sum = report["answers"].as_u64().unwrap() + report["missed"].as_u64().unwrap();
            assert_eq!(sum, 60, "{arguments} {report}");
        }
        let times = ["service_time_us", "response_time_us"].map(|name| report[name]["max"].as_f64().unwrap());
        assert!(times[1] >= 25_000.0, "a pause shows in the response time: {arguments} {report}");
    }
}

#[test]
fn rejected_clients_connect_again() {
    let rejected = |number| number % 3 != 2;
    let server = unreliable(move |number, stream| {
        if rejected(number) {
            let _ = stream.write_all(b"Error: too many clients.");
            let _ = std::io::copy(stream, &mut std::io::sink());
        }
        !rejected(number)
    });
    let (report, output) = load(server, "--retries 20");
    assert!(output.status.success(), "{output:?}");
    let [connections, questions, answered, _] = retries(&report);
    assert!(connections > 0 && answered == questions, "{report}");
    assert_eq!(report["retries"]["by_kind"]["refused"], connections, "{report}");
}

#[test]
fn what_is_never_answered_is_given_up() {
    let silent = server(64, Fault::NeverAnswers);
    let result = load(silent, "--churn -c 2 --timeout 50ms --retries 1");
    let failures = fails_by("timed_out", &result);
    let [connections, questions, answered, given_up] = retries(&result.0);
    assert_eq!((connections, answered, given_up), (questions, 0, questions), "{}", result.0);
    assert_eq!(failures, given_up);
}

#[test]
fn a_wrong_answer_is_not_asked_for_again() {
    let liar = serve(8, |mut stream| {
        let _ = stream.read(&mut [0; 256]);
        let _ = stream.write_all(b"Error: unknown aphorism.");
        let _ = stream.read(&mut [0; 256]);
        Ok(())
    });
    let result = load(liar, "--retries 5");
    fails_by("wrong", &result);
    assert_eq!(retries(&result.0), [0; 4], "{}", result.0);
}

#[test]
fn without_a_server_the_retries_end_with_one_error_line() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = client_of(unused, "load --retries 2");
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with(&format!("error: connection refused by {unused}: ")), "{stderr}");
}
