//! `zen-client say`: what it sends, what it prints, and how it ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::fake_server::{Fault, converse};
use crate::running::{Died, client_of, serve, text};

/// Starts a server that reports what a client sends until its end of file, and then sends `bytes`.
fn listening(bytes: &'static [u8]) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel();
    let server = serve(1, move |mut stream| {
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        sender.send(sent).unwrap();
        stream.write_all(bytes).unwrap();
        Ok(())
    });
    (server, receiver)
}

fn honest() -> SocketAddr {
    serve(1, |mut stream| {
        let _ = converse(&mut stream, Fault::None);
        Ok(())
    })
}

#[test]
fn escapes_are_replaced_and_an_end_of_file_follows() {
    for (text, bytes) in
        [("a?b", &b"a?b"[..]), (r"\x20\r\n\0\\\77", b" \r\n\0\\?"), ("-- -x?", b"-x?"), (r"\x2d", b"-")]
    {
        let (server, sent) = listening(b"");
        let port = server.port();
        let output = crate::running::client(&format!("say -p {port} {text}"));
        assert_eq!(sent.recv_timeout(Duration::from_secs(10)).unwrap(), bytes);
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn received_bytes_are_printed_unchanged() {
    let (server, _sent) = listening(b"HTTP/1.1 \x1b\xff\0\r\n");
    let output = client_of(server, "say ?");
    assert_eq!(output.stdout, b"HTTP/1.1 \x1b\xff\0\r\n");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn questions_are_answered_and_the_rest_is_dropped() {
    let output = client_of(honest(), r"say Simple\x20is\x20better\x20than?Expl");
    assert_eq!((text(&output.stdout), output.status.code()), ("complex.", Some(0)));
}

#[test]
fn an_empty_text_is_an_end_of_file_alone() {
    let (server, sent) = listening(b"Error: too many clients.");
    let client = Command::new(env!("CARGO_BIN_EXE_zen-client"))
        .args(["say", "", "-p", &server.port().to_string()])
        .output()
        .unwrap();
    assert_eq!(sent.recv_timeout(Duration::from_secs(10)).unwrap(), b"");
    assert_eq!((text(&client.stdout), client.status.code()), ("Error: too many clients.", Some(0)));
}

#[test]
fn answers_are_read_while_the_rest_is_sent() {
    // The answers are more than the network holds, and the server reads nothing while it cannot send them.
    let text = "?".repeat(100_000);
    let output = client_of(honest(), &format!("say {text}"));
    assert_eq!(output.stdout.len(), 100_000 * "Error: unknown aphorism.".len());
    assert!(output.status.success(), "{:?}", output.status);
}

#[test]
fn stdin_is_sent_as_it_comes() {
    let (sender, receiver) = mpsc::channel();
    let server = serve(1, move |mut stream| {
        let mut chunk = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            sender.send(chunk[..n].to_vec()).unwrap();
        }
        Ok(())
    });
    let mut client = Command::new(env!("CARGO_BIN_EXE_zen-client"))
        .args(["say", "-", "-p", &server.port().to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    for piece in [&b"a?"[..], b"\\n"] {
        stdin.write_all(piece).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).as_deref(), Ok(piece));
    }
    assert!(client.try_wait().unwrap().is_none(), "it waits for its stdin");
    drop(stdin);
    assert!(client.wait().unwrap().success());
}

#[test]
fn the_servers_end_of_file_is_the_end_though_stdin_is_open() {
    let server = serve(1, |mut stream| {
        let _ = stream.write_all(b"Error: too many clients.");
        let _ = stream.shutdown(Shutdown::Write);
        Ok(())
    });
    let mut client = Command::new(env!("CARGO_BIN_EXE_zen-client"))
        .args(["say", "-", "-p", &server.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _stdin = client.stdin.take().unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("Error: too many clients.", Some(0)));
}

#[test]
fn a_reset_after_an_answer_is_an_error() {
    let resetting = serve(1, |mut stream| {
        let _ = stream.write_all(b"ugly.");
        // So that the client reads the answer first.
        thread::sleep(Duration::from_millis(300));
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|_| Died)
    });
    let output = client_of(resetting, "say ?");
    assert_eq!((text(&output.stdout), output.status.code()), ("ugly.", Some(1)));
    assert_eq!(text(&output.stderr), format!("error: {resetting} reset the conversation\n"));
}

#[test]
fn a_server_that_does_not_end_runs_into_the_timeout() {
    let dripping = serve(1, |mut stream| {
        while stream.write_all(b".").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let output = client_of(dripping, "say ? --timeout 300ms");
    assert!(text(&output.stdout).starts_with('.'), "{output:?}");
    let error = format!("error: {dripping} did not end the conversation within 300ms: try a longer --timeout\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), error.as_str()));
}
