//! `zen-client` without a command: the conversation, and all its outcomes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::fake_server::{Fault, converse};
use crate::running::{client, client_of, serve, serve_on, text};

/// Starts a server that keeps the protocol.
fn honest() -> SocketAddr {
    serve(4, |mut stream| {
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    })
}

/// Starts a server that sends `answers`, one after each read, and then waits until the client closes.
fn scripted(answers: &'static [&'static [u8]]) -> SocketAddr {
    serve(1, move |mut stream| {
        for answer in answers {
            if stream.read(&mut [0; 256]).is_ok() {
                let _ = stream.write_all(answer);
            }
        }
        wait_for_end(&mut stream);
        Ok(())
    })
}

fn wait_for_end(stream: &mut TcpStream) {
    let _ = std::io::copy(stream, &mut std::io::sink());
}

fn answer_once(stream: &mut TcpStream) {
    let mut question = [0; 256];
    let n = stream.read(&mut question).unwrap_or(0);
    let _ = stream.write_all(zen_proto::answer_to(&question[..n]).as_bytes());
}

fn sorted_lines(output: &Output) -> Vec<&str> {
    let mut lines: Vec<_> = text(&output.stdout).lines().collect();
    lines.sort_unstable();
    lines
}

/// Asserts status 1 and exactly one line on stderr, with this start and end.
fn fails(output: &Output, start: &str, end: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr.starts_with(start) && stderr.ends_with(&format!("{end}\n")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// With this seed the questions are Beautiful, Simple, Explicit.
const IN_ORDER: &str = "--seed 1";

const ALL_THREE: [&str; 3] =
    ["Beautiful is better than? ugly.", "Explicit is better than? implicit.", "Simple is better than? complex."];

#[test]
fn three_questions_get_three_lines() {
    let output = client_of(honest(), "");
    assert_eq!(sorted_lines(&output), ALL_THREE);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_seed_repeats_the_order_and_n_counts_questions() {
    let server = honest();
    let first = client_of(server, "--seed 5 -n 8");
    assert_eq!(text(&first.stdout).lines().count(), 8);
    assert_eq!(first.stdout, client_of(server, "--seed 5 -n 8").stdout);
}

#[test]
fn a_name_is_resolved_and_its_addresses_are_tried() {
    // localhost may mean ::1 first, on which no server listens.
    assert_eq!(sorted_lines(&client_of(honest(), "localhost")), ALL_THREE);
}

#[test]
fn ipv6_addresses_may_stand_in_brackets() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("not tested: this machine has no IPv6 loopback");
    };
    let server = serve_on(listener, 1, |mut stream| {
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    });
    for host in ["::1", "[::1]"] {
        assert_eq!(sorted_lines(&client_of(server, host)), ALL_THREE);
    }
}

#[test]
fn an_answer_may_come_in_pieces_and_with_the_next_one() {
    let server = serve(1, |mut stream| {
        stream.set_nodelay(true).unwrap();
        for piece in [&b"ug"[..], b"ly", b".com", b"plex.", b"implici", b"t."] {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        wait_for_end(&mut stream);
        Ok(())
    });
    let output = client_of(server, IN_ORDER);
    let answers: Vec<_> = text(&output.stdout).lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(answers, ["ugly.", "complex.", "implicit."]);
}

#[test]
fn other_bytes_than_the_answer_are_shown_escaped() {
    for (bytes, shown) in [
        (&b"\x1b[31m\nugly."[..], r"\x1b[31m\nugly."),
        (b"HTTP/1.1 400 Bad Request\r\n", r"HTTP/1.1 400 Bad Request\r\n"),
        (b"220 mail ESMTP\r\n", r"220 mail ESMTP\r\n"),
        (b"complex.", "complex."),
        (b"Ugly.", "Ugly."),
        (b"ugly \xff.", r"ugly \xff."),
        (b".", "."),
    ] {
        let server = scripted(Box::leak(Box::new([bytes])));
        let output = client_of(server, IN_ORDER);
        let start =
            format!("error: {server} does not speak the protocol, it sent \"{shown}\" as the answer to \"Beaut");
        fails(&output, &start, "is the port right?");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn a_second_answer_does_not_answer_the_next_question() {
    let output = client_of(scripted(&[b"ugly.ugly."]), IN_ORDER);
    assert_eq!(text(&output.stdout), "Beautiful is better than? ugly.\n");
    assert!(
        text(&output.stderr).contains("it sent \"ugly.\" as the answer to \"Simple is better than?\""),
        "{output:?}"
    );
}

#[test]
fn cause_error_sends_half_a_question_and_leaves() {
    let (sender, receiver) = mpsc::channel();
    let server = serve(1, move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        sender.send(bytes).unwrap();
        Ok(())
    });
    for flag in ["-e", "--cause-error"] {
        let output = client_of(server, flag);
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        let sent = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(sent.ends_with(b" is better than"), "{}", sent.escape_ascii());
    }
}

#[test]
fn a_refusal_says_how_to_start_a_server() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let advice = format!("is a server running there? start one with `cargo run -p zen-poll -- -p {}`", unused.port());
    for arguments in ["", "-e"] {
        fails(&client_of(unused, arguments), &format!("error: connection refused by {unused}: "), &advice);
    }
}

#[test]
fn an_early_end_counts_what_is_missing() {
    let server = serve(1, |mut stream| {
        let _ = stream.read(&mut [0; 256]);
        let _ = stream.write_all(b"ugly.comp");
        Ok(())
    });
    let output = client_of(server, IN_ORDER);
    assert_eq!(text(&output.stdout).lines().count(), 1);
    // The second question may meet a closed socket, which resets.
    fails(&output, &format!("error: {server} "), "2 of 3 answers are missing");
    assert!(text(&output.stderr).contains(" in the middle of an answer, \"comp\": "), "{output:?}");
}

#[test]
fn a_silent_server_runs_into_the_time_out() {
    let server = scripted(&[b"ugly."]);
    let output = client_of(server, "--timeout 300ms --seed 1");
    assert_eq!(text(&output.stdout).lines().count(), 1);
    fails(&output, &format!("error: {server} sent no answer within 300ms: "), "; 2 of 3 answers are missing");
}

#[test]
fn dripping_bytes_do_not_extend_the_timeout() {
    let server = serve(1, |mut stream| {
        let _ = stream.write_all(b"Error:");
        while stream.write_all(b"u").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    fails(
        &client_of(server, "--timeout 300ms"),
        &format!("error: {server} sent no answer within 300ms"),
        "are missing",
    );
}

#[test]
fn one_note_says_why_the_user_waits() {
    let notes = |answers| {
        let output = client_of(scripted(answers), "--timeout 2500ms --seed 1");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        stderr.lines().next().unwrap().to_owned()
    };
    assert!(notes(&[]).starts_with("note: no answer for 1s: "));
    assert!(notes(&[b"ugly."]).starts_with("note: no answer for 1s, though the server has answered before: "));
}

#[test]
fn an_error_for_an_answer_is_an_error() {
    let server = scripted(&[b"Error: unknown aphorism."]);
    let start = format!("error: {server} answered \"Error: unknown aphorism.\" to \"");
    let output = client_of(server, "--retries 3");
    fails(&output, &start, "is it a zen server? `zen-client check` tests that");
    assert!(output.stdout.is_empty());
}

#[test]
fn bytes_without_a_full_stop_are_not_the_protocol() {
    let server = serve(1, |mut stream| {
        while stream.write_all(b"HTTP/1\r\n").is_ok() {}
        Ok(())
    });
    let start = format!(r#"error: {server} does not speak the protocol, it sent "HTTP/1\r\n"#);
    fails(&client_of(server, ""), &start, "is the port right?");
}

#[test]
fn failures_are_retried_as_often_as_asked() {
    // The first client is not served, the second told that there are too many, the third gets one answer, the fourth
    // all.
    let turn = AtomicUsize::new(0);
    let server = serve(1, move |mut stream| {
        match turn.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => {}
            1 => {
                let _ = stream.write_all(b"Error: too many clients.");
                wait_for_end(&mut stream);
            }
            2 => answer_once(&mut stream),
            _ => {
                let _ = converse(&mut stream, Fault::None);
            }
        }
        Ok(())
    });
    let output = client_of(server, "--retries 2");
    assert_eq!(text(&output.stdout).lines().count(), 3);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let output = client_of(server, "--retries 1");
    fails(&output, &format!("error: {server} is full (\"Error: too many clients.\"): "), "3 of 3 answers are missing");
}

#[test]
fn verbose_names_the_server_once_for_each_conversation() {
    // A client gets one answer: each question needs a conversation of its own.
    let server = serve(1, |mut stream| {
        answer_once(&mut stream);
        Ok(())
    });
    let output = client_of(server, "-v --retries 1");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), format!("{server} answers\n").repeat(3));
    let server = honest();
    assert_eq!(text(&client_of(server, "--verbose").stderr), format!("{server} answers\n"));
}

#[test]
fn a_closed_stdout_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zen-client"))
        .args(["-n", "1000000000", "-p", &honest().port().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("? "));
    // Its stdout is closed now. If it did not notice, a billion questions would take hours.
    let (sender, receiver) = mpsc::channel();
    let mut stderr = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    let stderr = receiver.recv_timeout(Duration::from_secs(20));
    if stderr.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert_eq!((status.code(), stderr.as_deref()), (Some(0), Ok(&b""[..])));
}

#[test]
fn a_wrong_command_line_is_one_line_that_names_the_flag() {
    for (arguments, named) in [
        ("--nonsense", "'--nonsense'"),
        ("-x", "'-x'"),
        ("-p 0", "--port"),
        ("-p 65536", "--port"),
        ("-p nonsense", "--port"),
        ("-n 0", "-n"),
        ("-n nonsense", "-n"),
        ("--seed nonsense", "--seed"),
        ("--timeout 10", "--timeout"),
        ("--timeout soon", "--timeout"),
        ("--retries -1", "-1"),
        ("--cause-error -n 3", "--cause-error"),
        ("127.0.0.1 1060", "1060"),
        ("8080", "use -p 8080"),
        ("check 8080", "use -p 8080"),
        ("load 8080", "use -p 8080"),
        ("say ? 8080", "use -p 8080"),
        ("1.8080", "a port goes into -p"),
        ("ff02::1", "multicast"),
        ("::1%lo", "use ::1;"),
        ("fe80::1", "append %INTERFACE"),
        ("[fe80::1]", "append %INTERFACE"),
        ("say", "<TEXT>"),
        ("say -x", "'-x'"),
        (r"say \q", r"'\q' is no escape"),
        ("say ? --timeout 5", "--timeout"),
        ("-p 1060 check", "check"),
        ("check --timeout 0", "--timeout"),
        ("check --timeout 5", "--timeout"),
        ("check --case nonsense", "nonsense"),
        ("check 127.0.0.1 nonsense", "nonsense"),
        ("check --quick --case any-bytes", "--quick"),
        ("check -n 3", "-n"),
    ] {
        let output = client(arguments);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{arguments}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.ends_with("; try --help\n"), "{arguments}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(named), "{arguments}: {stderr}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (arguments, start) in [("--help", "Asks a zen server"), ("--version", "zen-client "), ("check --help", "Judge")]
    {
        let output = client(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(text(&output.stdout).starts_with(start), "{output:?}");
    }
}

/// A write beyond RLIMIT_FSIZE raises SIGXFSZ, which must not end it.
#[test]
fn a_full_file_as_stdout_is_an_error() {
    let script = "f=$(mktemp); exec >>$f; rm $f; ulimit -f 0; exec \"$0\" -p \"$1\"";
    let port = honest().port().to_string();
    let command = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_zen-client"), &port]).output();
    fails(&command.unwrap(), "error: cannot write to stdout", "File too large (os error 27)");
}
