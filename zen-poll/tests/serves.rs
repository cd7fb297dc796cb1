//! One thread serves all clients at once, whichever style and number of loops.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn the_second_client_is_served_at_once() {
    assert_served_at_once(&[]);
}

#[test]
fn the_second_client_is_served_at_once_in_chat_style() {
    assert_served_at_once(&["--style", "chat"]);
}

#[test]
fn the_second_client_is_served_at_once_by_two_loops() {
    assert_served_at_once(&["--loops", "2"]);
}

/// Asks three questions while another client is in the middle of one.
fn assert_served_at_once(arguments: &[&str]) {
    let (server, address) = Server::start(arguments);
    let (mut slow, quick) = (connect(address), connect(address));
    slow.write_all(b"Simple is ").unwrap();
    ask(&quick, "Beautiful is better than?", "ugly.");
    ask(&quick, "Explicit is better than?", "implicit.");
    ask(&quick, "Simple is better than?", "complex.");
    ask(&slow, "better than?", "complex.");
    server.stop();
}

/// A server in a process of its own, which is killed and reaped on every path. Its log is shown when a test fails.
struct Server {
    child: Child,
    stdout: Lines<BufReader<UnixStream>>,
}

impl Server {
    /// Starts a server on a free port, and returns when it listens.
    fn start(arguments: &[&str]) -> (Self, SocketAddr) {
        let (ours, theirs) = UnixStream::pair().unwrap(); // unlike those of a pipe, its reads can be bounded
        ours.set_read_timeout(Some(BOUND)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-poll"));
        command.args(["-v", "-p", "0"]).args(arguments).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let mut server = Self { child: command.spawn().unwrap(), stdout: BufReader::new(ours).lines() };
        let ready_line = server.stdout.next().unwrap().unwrap();
        (server, ready_line.strip_prefix("listening on ").unwrap().parse().unwrap())
    }

    /// Ends the server by SIGTERM, and asserts that it prints nothing more and exits with status 0.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.stdout.next().is_none());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        eprint!("{}", io::read_to_string(self.child.stderr.take().unwrap()).unwrap());
    }
}

fn connect(server: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&server, BOUND).unwrap()
}

fn ask(mut client: &TcpStream, question: &str, answer: &str) {
    client.write_all(question.as_bytes()).unwrap();
    receive(client, answer);
}

fn receive(mut client: &TcpStream, answer: &str) {
    let mut bytes = vec![0; answer.len()];
    client.set_read_timeout(Some(BOUND)).unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), answer);
}

/// The longest wait for bytes that must arrive. They arrive within milliseconds.
const BOUND: Duration = Duration::from_secs(20);
