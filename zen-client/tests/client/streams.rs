//! Standard streams that do not block, as a parent such as Node makes them.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::ioctl_fionbio;

use crate::fake_server::Fault;
use crate::load::server;
use crate::running::text;

/// Runs the client with a full, non-blocking socket as its stdout (or stderr), and reads the socket a moment later.
/// Returns what the client wrote, and its exit status.
fn through_a_full_socket(arguments: &str, is_stderr: bool) -> (String, Option<i32>) {
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    let mut filler = 0;
    while let Ok(n) = writer.write(&[b'.'; 4096]) {
        filler += n;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-client"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    let writer = OwnedFd::from(writer);
    if is_stderr {
        command.stderr(writer)
    } else {
        command.stdout(writer)
    };
    let mut child = command.spawn().unwrap();
    drop(command); // it holds the writer
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    let bytes = receiver.recv_timeout(Duration::from_secs(60));
    if bytes.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    (text(&bytes.unwrap()[filler..]).to_owned(), status.code())
}

#[test]
fn no_line_is_lost() {
    let port = server(4, Fault::None).port();
    for (arguments, lines, last) in [
        ("-n 5000", 5000, ""),
        ("check --quick", 5, "4 passed, 0 failed"),
        ("check --json", 200, "}"),
        ("load -d 100ms --warmup 0 -c 1", 10, ""),
        ("load -d 100ms --warmup 0 -c 1 --json --histogram", 60, "}"),
        ("say ?", 1, "Error: unknown aphorism."),
    ] {
        let (said, status) = through_a_full_socket(&format!("{arguments} -p {port}"), false);
        assert!(said.lines().count() >= lines && said.ends_with(&format!("{last}\n")) || last.ends_with('.'), "{said}");
        assert_eq!(status, Some(0), "{arguments}");
    }
    let (said, status) = through_a_full_socket("--help", false);
    assert!(said.contains("--retries") && status == Some(0), "{said}");
}

#[test]
fn the_error_is_not_lost_either() {
    let (said, status) = through_a_full_socket("-p 1", true);
    assert!(said.starts_with("error: connection refused by 127.0.0.1:1: ") && said.ends_with('\n'), "{said}");
    assert_eq!(status, Some(1));
}
