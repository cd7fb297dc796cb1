//! The example `dictionary` answers over TCP, survives a panic in its answer function, and drains.

#![allow(clippy::unwrap_used)]

use std::env::current_exe;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_question_is_looked_up_and_its_cost_logged() {
    let (server, address) = Server::start();
    assert_eq!(
        said(&connect(address), b"mutex?zen?"),
        "a lock that one thread holds at a time.not in this dictionary."
    );
    let log = server.stop();
    assert!(log.contains(r#""mutex?" took "#) && log.contains(r#""zen?" took "#), "{log}");
}

#[test]
fn a_panic_costs_one_client() {
    let (server, address) = Server::start();
    let (first, second) = (connect(address), connect(address));
    assert_eq!(said(&first, b"mutex?\xff?mutex?"), "a lock that one thread holds at a time.");
    assert_eq!(said(&second, b"mutex?"), "a lock that one thread holds at a time.");
    let log = server.stop();
    assert!(log.contains("stopped after 2 clients and 1 panics"), "{log}");
}

#[test]
fn draining_answers_what_has_been_asked() {
    let (server, address) = Server::start();
    let (mut first, mut second) = (connect(address), connect(address));
    second.write_all(b"poll?").unwrap();
    first.write_all(b"mutex?mu").unwrap();
    let log = server.stop();
    assert_eq!(rest(&first), "a lock that one thread holds at a time.");
    assert_eq!(rest(&second), "a call that waits until one of many descriptors is ready.");
    assert!(log.contains("stopped after 2 clients and 0 panics"), "{log}");
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
        // `cargo test` builds the examples, too, but `cargo test --test dictionary` does not.
        let mut command = Command::new(current_exe().unwrap().with_file_name("../examples/dictionary"));
        command.args(["-p", "0"]).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let mut server = Self { child: command.spawn().unwrap(), stdout: BufReader::new(ours).lines() };
        let ready_line = server.stdout.next().unwrap().unwrap();
        (server, ready_line.strip_prefix("listening on ").unwrap().parse().unwrap())
    }

    /// Ends the server by SIGTERM, and asserts that it prints nothing more and exits with status 0. Returns its log.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.stdout.next().is_none());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        io::read_to_string(self.child.stderr.as_mut().unwrap()).unwrap()
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
    TcpStream::connect_timeout(&server, WAIT_LIMIT).unwrap()
}

/// Sends `questions`, shuts down the sending side, and returns everything that arrives.
fn said(mut client: &TcpStream, questions: &[u8]) -> String {
    client.write_all(questions).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rest(client)
}

/// Returns everything that arrives until the end of file. A reset is an error.
fn rest(client: &TcpStream) -> String {
    client.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    io::read_to_string(client).unwrap()
}

/// The limit for each wait. What a test waits for happens within milliseconds.
const WAIT_LIMIT: Duration = Duration::from_secs(20);
