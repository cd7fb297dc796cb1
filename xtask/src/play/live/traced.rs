//! A server under strace, whose log is read as it grows.

use std::cell::{Ref, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};

use crate::harness::folder::Folder;
use crate::harness::process::Usage;
use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::Entry;
use crate::trace::sources::Lines;
use crate::trace::strace::{Log, Micros, STRACE};

/// A running server and what strace has written about it so far.
pub(super) struct Traced {
    server: Server,
    log: Rc<RefCell<Log>>,
    lines: Lines,
    reader: JoinHandle<()>,
}

impl Traced {
    /// Starts a server.
    pub(super) async fn start(entry: &'static Entry) -> Result<Traced> {
        let lines = Lines::of(entry)?;
        let folder = Folder::new()?;
        let path = folder.path().join("strace.log");
        // A named pipe bounds what is written and not read yet; a file would grow.
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("cannot make a pipe")?;
        // Opened for reading and writing, it has no end of file before strace opens it.
        let pipe = pipe::OpenOptions::new().read_write(true).open_receiver(&path).context("cannot open the pipe")?;
        let log = Rc::new(RefCell::new(Log::default()));
        let reader = spawn_local(follow(pipe, Rc::clone(&log)));
        let start = move || {
            let output = path.to_string_lossy();
            Server::start_under(&[&STRACE[..], &[&*output]].concat(), entry, ARGUMENTS)
        };
        let server = spawn_blocking(start).await.context("starting the server panicked")?;
        Ok(Traced { server: server.inspect_err(|_| reader.abort())?, log, lines, reader })
    }

    /// Returns where the server listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns what all processes of the server hold, and extends their time limit.
    pub(super) fn usage(&self) -> Usage {
        self.server.extend_time_limit(WAIT_LIMIT);
        self.server.usage()
    }

    /// Returns what strace has written since `start`.
    pub(super) fn log_since(&self, start: Micros) -> Ref<'_, Log> {
        self.log.borrow_mut().forget(start);
        self.log.borrow()
    }

    /// Returns the lines at which the server waits.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Returns how the server ended, if it did so by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.server.ended_within(Duration::ZERO)?;
        Some(format!("the server ended, {status}: {}", self.server.log().lines().last().unwrap_or_default()))
    }

    /// Ends the server: it drains, and what is left after that is killed.
    pub(super) async fn stop(mut self) -> Result<()> {
        let stopped =
            spawn_blocking(move || self.server.stop(STOP_LIMIT)).await.context("stopping the server panicked")?;
        self.reader.abort();
        stopped
    }
}

/// Reads lines from the pipe, the last one also before it is complete.
async fn follow(mut pipe: pipe::Receiver, log: Rc<RefCell<Log>>) {
    let mut text = Vec::new();
    while let Ok(1..) = pipe.read_buf(&mut text).await {
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1);
        let mut log = log.borrow_mut();
        String::from_utf8_lossy(&text[..end]).lines().for_each(|line| log.read(line));
        text.drain(..end);
        log.read_beginning(&String::from_utf8_lossy(&text));
    }
}

/// The timeouts are short, so that a client that waits for one is watched to its end.
const ARGUMENTS: &[&str] = &["--idle-timeout", "20s", "--question-timeout", "5s", "--grace", "1s"];
/// Twice the grace, and time for strace.
const STOP_LIMIT: Duration = Duration::from_secs(5);
