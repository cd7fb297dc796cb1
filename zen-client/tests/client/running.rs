//! What the tests of all commands share: small servers on threads, and the client, with a time limit.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// No run of the client in these tests takes anywhere near as long.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Runs `zen-client` with `arguments`, which end with the port of `server`.
pub(crate) fn client_of(server: SocketAddr, arguments: &str) -> Output {
    client(&format!("{arguments} -p {}", server.port()))
}

/// Runs `zen-client` with `arguments`, split at spaces.
pub(crate) fn client(arguments: &str) -> Output {
    Running::start(arguments).output()
}

/// A client that runs; it is killed and reaped on every path.
pub(crate) struct Running {
    child: Child,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Running {
    pub(crate) fn start(arguments: &str) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_zen-client")).args(arguments.split_whitespace()))
    }

    /// Starts any command, without an input.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = read_aside(child.stdout.take().unwrap());
        let stderr = read_aside(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Sends SIGINT.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the client ends, and returns its output.
    pub(crate) fn output(mut self) -> Output {
        let stderr =
            self.stderr.recv_timeout(WAIT_LIMIT).unwrap_or_else(|_| panic!("it still runs after {WAIT_LIMIT:?}"));
        let stdout = self.stdout.recv_timeout(WAIT_LIMIT).unwrap();
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    receiver
}

/// Returns the output of a client as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Starts a server with `workers` threads on a free port, which call `converse` for each client. A thread ends with the
/// test, or when `converse` returns [`Died`].
pub(crate) fn serve(
    workers: usize,
    converse: impl Fn(TcpStream) -> Result<(), Died> + Send + Sync + 'static,
) -> SocketAddr {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), workers, converse)
}

/// Starts a server like [`serve`], on a given listener.
pub(crate) fn serve_on(
    listener: TcpListener,
    workers: usize,
    converse: impl Fn(TcpStream) -> Result<(), Died> + Send + Sync + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let converse = Arc::new(converse);
    for _ in 0..workers {
        let (listener, converse) = (listener.try_clone().unwrap(), Arc::clone(&converse));
        thread::spawn(move || while listener.accept().is_ok_and(|(stream, _)| converse(stream).is_ok()) {});
    }
    address
}

/// The error of a conversation after which its worker thread serves no more clients.
#[derive(Debug)]
pub(crate) struct Died;
