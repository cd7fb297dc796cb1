//! Workers serve as many clients as there are workers; a thread for each connection serves all.

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
fn the_fifth_client_is_served_when_one_of_four_has_left() {
    let (server, address) = Server::start(&[]);
    let [first, second, third, fourth, mut fifth] = [(); 5].map(|()| connect(address));
    fifth.write_all(b"Simple is better than?").unwrap();
    for served in [&first, &second, &third, &fourth] {
        ask(served, "Beautiful is better than?", "ugly.");
        ask(served, "Explicit is better than?", "implicit.");
        ask(served, "Simple is better than?", "complex.");
    }
    fifth.set_read_timeout(Some(A_WHILE)).unwrap();
    assert_eq!(fifth.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(second);
    receive(&fifth, "complex.");
    server.stop();
}

#[test]
fn a_thread_for_each_connection_serves_the_fifth_at_once() {
    let (server, address) = Server::start(&["--mode", "per-connection"]);
    for client in &[(); 5].map(|()| connect(address)) {
        ask(client, "Beautiful is better than?", "ugly.");
        ask(client, "Explicit is better than?", "implicit.");
        ask(client, "Simple is better than?", "complex.");
    }
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-threaded"));
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

/// The time to wait for bytes that must not arrive.
const A_WHILE: Duration = Duration::from_millis(300);
