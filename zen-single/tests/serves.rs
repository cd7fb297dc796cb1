//! One client is served at a time; the next waits in the backlog.

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
fn the_second_client_is_served_when_the_first_has_left() {
    let (server, address) = Server::start();
    let (first, mut second) = (connect(address), connect(address));
    second.write_all(b"Simple is better than?").unwrap();
    ask(&first, "Beautiful is better than?", "ugly.");
    ask(&first, "Explicit is better than?", "implicit.");
    ask(&first, "Simple is better than?", "complex.");
    second.set_read_timeout(Some(QUIET)).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    second.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    drop(first);
    ask(&second, "", "complex.");
    server.stop();
}

/// A server in a process of its own. It is killed and reaped on every path, and its log is shown when a test fails.
struct Server {
    child: Child,
    stdout: Lines<BufReader<UnixStream>>,
}

impl Server {
    /// Starts a server on a free port, and returns when it listens.
    fn start() -> (Self, SocketAddr) {
        let (ours, theirs) = UnixStream::pair().unwrap(); // instead of a pipe, because its reads can have a timeout
        ours.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-single"));
        command.args(["-v", "-p", "0"]).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
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
    let client = TcpStream::connect_timeout(&server, WAIT_LIMIT).unwrap();
    client.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    client
}

/// Sends a question, or the rest of one that was sent in part, and receives its answer.
fn ask(mut client: &TcpStream, question: &str, answer: &str) {
    client.write_all(question.as_bytes()).unwrap();
    let mut bytes = vec![0; answer.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), answer);
}

/// The limit for each wait. What a test waits for happens within milliseconds.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// The time to wait for bytes that must not arrive.
const QUIET: Duration = Duration::from_millis(300);
