//! With four workers, a fifth client waits. With a thread or a process for each connection, it is served immediately.
//! A pool queues the next client, and rejects one that finds the queue full.

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
    [&first, &second, &third, &fourth].into_iter().for_each(ask_all);
    fifth.set_read_timeout(Some(QUIET)).unwrap();
    assert_eq!(fifth.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    fifth.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    drop(second);
    ask(&fifth, "", "complex.");
    server.stop();
}

#[test]
fn a_thread_or_a_process_for_each_connection_serves_the_fifth_immediately() {
    for mode in ["per-connection", "per-process"] {
        let (server, address) = Server::start(&["--mode", mode]);
        [(); 5].map(|()| connect(address)).iter().for_each(ask_all);
        server.stop();
    }
}

#[test]
fn a_pool_queues_the_second_client_and_rejects_the_third() {
    let (server, address) = Server::start(&["--mode", "pool", "--workers", "1", "--queue", "1"]);
    let [first, second, mut third] = [(); 3].map(|()| connect(address));
    ask_all(&first);
    let mut received = String::new();
    third.read_to_string(&mut received).unwrap();
    assert_eq!(received, "Error: too many clients.");
    drop(first);
    ask_all(&second);
    server.stop();
}

/// A server in a process of its own. It is killed and reaped on every path, and its log is shown when a test fails.
struct Server {
    child: Child,
    stdout: Lines<BufReader<UnixStream>>,
}

impl Server {
    /// Starts a server on a free port, and returns when it listens.
    fn start(arguments: &[&str]) -> (Self, SocketAddr) {
        let (ours, theirs) = UnixStream::pair().unwrap(); // instead of a pipe, because its reads can have a timeout
        ours.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
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
    let client = TcpStream::connect_timeout(&server, WAIT_LIMIT).unwrap();
    client.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    client
}

/// Asks the three known questions, one after the other.
fn ask_all(client: &TcpStream) {
    ask(client, "Beautiful is better than?", "ugly.");
    ask(client, "Explicit is better than?", "implicit.");
    ask(client, "Simple is better than?", "complex.");
}

/// Sends the rest of a question (empty if all of it is already sent), and asserts the answer.
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
