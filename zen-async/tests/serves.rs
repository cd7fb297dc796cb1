//! Tasks serve all clients at the same time, and their delays overlap when they are awaited.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn the_second_client_is_served_immediately() {
    for runtime in RUNTIMES {
        let (server, address) = Server::start(&["--runtime", runtime]);
        let (mut slow, quick) = (connect(address), connect(address));
        slow.write_all(b"Simple is ").unwrap();
        ask(&quick, "Beautiful is better than?", "ugly.");
        ask(&quick, "Explicit is better than?", "implicit.");
        ask(&quick, "Simple is better than?", "complex.");
        ask(&slow, "better than?", "complex.");
        server.stop();
    }
}

#[test]
fn a_slow_answer_in_the_task_makes_the_next_client_wait() {
    RUNTIMES.iter().for_each(|runtime| assert!(time_of_two_answers(&["--runtime", runtime]).0 >= 2 * DELAY));
}

#[test]
fn slow_answers_that_are_awaited_overlap() {
    RUNTIMES.iter().for_each(|runtime| assert!(time_of_two_answers(&["--runtime", runtime, "--await"]).1 < DELAY));
}

#[test]
fn slow_answers_from_the_blocking_pool_overlap() {
    RUNTIMES.iter().for_each(|runtime| assert!(time_of_two_answers(&["--runtime", runtime, "--offload"]).1 < DELAY));
}

/// Lets two clients ask at the same moment. Returns the time to the second answer, and the time between the answers.
fn time_of_two_answers(arguments: &[&str]) -> (Duration, Duration) {
    let (server, address) = Server::start(&[&["--delay", "300ms"], arguments].concat());
    let mut clients = [connect(address), connect(address)];
    let asked = Instant::now();
    clients.iter_mut().for_each(|client| client.write_all(b"Simple is better than?").unwrap());
    let answered = clients.each_ref().map(|client| {
        ask(client, "", "complex.");
        Instant::now()
    });
    server.stop();
    (answered[1] - asked, answered[1] - answered[0])
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-async"));
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

/// Sends a question, or the rest of one that was sent in part, and receives its answer.
fn ask(mut client: &TcpStream, question: &str, answer: &str) {
    client.write_all(question.as_bytes()).unwrap();
    let mut bytes = vec![0; answer.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), answer);
}

/// The limit for each wait. What a test waits for happens within milliseconds.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// The delay of each answer.
const DELAY: Duration = Duration::from_millis(300);

const RUNTIMES: [&str; 2] = ["smol", "async-std"];
