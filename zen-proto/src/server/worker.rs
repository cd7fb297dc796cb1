//! A worker of --processes, from both ends of the channel between it and its parent.
//!
//! It is this program started again with `--worker`. The listener is its stdin; its stdout is the channel, on which
//! it reports line by line when it is ready, how busy it is, that it is alive, and what it has counted. The parent
//! says one thing only, by ending its side: that all workers drain.

use std::ffi::CString;
use std::io::{self, ErrorKind, Read};
use std::mem::take;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use socket2::Socket;

use super::counters::Counters;
use super::{signals, watchdog};

/// Ties this worker to its parent: the kernel kills it when that dies.
pub(super) fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be tied to the parent")?;
    // It may have died before that: then no process has the other end of the channel.
    if events_of_channel().contains(PollFlags::HUP) {
        bail!("the parent has gone");
    }
    // Should the parent be stopped, what it does not read must not stop this process too.
    fcntl_setfl(io::stdout(), OFlags::NONBLOCK).context("cannot use the channel to the parent")
}

/// Returns whether the parent drains all workers. A worker that is told to stop alone leaves the backlog to the others.
pub(super) fn all_drain() -> bool {
    events_of_channel().contains(PollFlags::RDHUP)
}

fn events_of_channel() -> PollFlags {
    let stdout = io::stdout();
    let mut channel = [PollFd::new(&stdout, PollFlags::RDHUP)];
    // An interrupted call has found nothing, and is repeated by the next look.
    let _ = poll(&mut channel, Some(&Timespec::default()));
    channel[0].revents()
}

/// Names this process after its program, for `ps` and `pgrep`. The kernel has called it `exe`, after /proc/self/exe.
pub(super) fn set_name() {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    // The kernel takes 15 bytes of it. A worker with another name serves as well.
    let _ = name.map(|name| rustix::thread::set_name(&name));
}

/// No client for the time of --idle-exit, or a client again.
pub(super) fn tell_idle(is_idle: bool) {
    tell(if is_idle { IDLE } else { BUSY });
}

/// All threads that serve are alive.
pub(super) fn tell_alive() {
    tell(ALIVE);
}

/// Begins to tell the counters from time to time.
pub(super) fn begin_to_tell(counters: impl Fn() -> Counters + Send + 'static) -> Result<()> {
    let run = move || {
        loop {
            report_counters(counters());
            thread::sleep(REPORT);
        }
    };
    thread::Builder::new()
        .name("report".into())
        .spawn(run)
        .context("cannot start a thread: raise the limit of them")?;
    Ok(())
}

pub(super) fn report_counters(counters: Counters) {
    tell(&counters.to_line());
}

/// One line, in one write: it goes whole, or, if the parent has stopped reading, not at all.
fn tell(line: &str) {
    let _ = rustix::io::write(io::stdout(), format!("{line}\n").as_bytes());
}

/// A worker, as its parent knows it.
pub(super) struct Worker {
    child: Child,
    /// `None`: it has closed its end.
    channel: Option<UnixStream>,
    born: Instant,
    /// When it said last that it is alive, or began.
    heard: Instant,
    /// What it has said of a line that is not finished.
    unfinished: Vec<u8>,
    is_ready: bool,
    /// Whether it missed a SIGHUP, since it was not ready for one.
    owes_reopening: bool,
    is_idle: bool,
    counters: Counters,
}

impl Worker {
    pub(super) fn start(listener: &Socket, is_inherited: bool) -> Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        // The program that runs now, even if another has taken its place on the disk.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).arg("--worker").args(is_inherited.then_some("--inherited")).args(arguments);
        // What was meant for the parent alone. How often to be alive is meant for both.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        if watchdog::interval().is_none() {
            command.env_remove("WATCHDOG_USEC");
        }
        let cannot = |error: io::Error| anyhow!("cannot start a worker ({error}): {}", advice(&error));
        let (channel, its_end) = UnixStream::pair().map_err(cannot)?;
        let child = command
            .stdin(Stdio::from(listener.as_fd().try_clone_to_owned().map_err(cannot)?))
            .stdout(Stdio::from(OwnedFd::from(its_end)))
            .spawn()
            .map_err(cannot)?;
        Ok(Self::new(child, channel))
    }

    fn new(child: Child, channel: UnixStream) -> Self {
        let now = Instant::now();
        Self {
            child,
            channel: Some(channel),
            born: now,
            heard: now,
            unfinished: Vec::new(),
            is_ready: false,
            owes_reopening: false,
            is_idle: false,
            counters: Counters::default(),
        }
    }

    /// Hears what it has said; the end of file is that it has died.
    pub(super) fn read_reports(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        if poll(&mut [PollFd::new(&*channel, PollFlags::IN)], Some(&Timespec::default())) != Ok(1) {
            return;
        }
        let mut said = [0; 4096];
        let Some(n) = channel.read(&mut said).ok().filter(|n| *n > 0) else {
            self.channel = None;
            return;
        };
        self.unfinished.extend_from_slice(&said[..n]);
        while let Some(end) = self.unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            self.understand(&String::from_utf8_lossy(&line[..end]));
        }
    }

    fn understand(&mut self, line: &str) {
        match line {
            IDLE | BUSY => self.is_idle = line == IDLE,
            ALIVE => self.heard = Instant::now(),
            _ if line.starts_with(READY) => {
                (self.is_ready, self.heard) = (true, Instant::now());
                if take(&mut self.owes_reopening) {
                    self.reopen_log();
                }
            }
            // Anything else is not from the server: a library of the reader's own may print.
            _ => _ = line.parse().map(|counters| self.counters = counters),
        }
    }

    /// Passes SIGHUP on. One that is not ready yet would die of it, and receives of it later.
    pub(super) fn reopen_log(&mut self) {
        if self.is_ready {
            self.signal(Signal::HUP);
        } else {
            self.owes_reopening = true;
        }
    }

    /// What becomes readable when it says something.
    pub(super) fn channel(&self) -> Option<&UnixStream> {
        self.channel.as_ref()
    }

    /// Tells it to drain together with all others, so that it accepts the clients in the backlog first.
    pub(super) fn drain(&self) {
        // It fails only for one that has gone.
        let _ = self.channel().map(|channel| channel.shutdown(Shutdown::Write));
        self.signal(Signal::TERM);
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for a worker")
    }

    pub(super) fn signal(&self, signal: Signal) {
        signals::send(signal, self.pid());
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// For how long it has not said that it is alive.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Its silence begins now: the parent has not listened.
    pub(super) fn reset_heartbeat(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether it can be connected to.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether it has had no client for as long as --idle-exit.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// What it has counted, as of its last report.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "it is started from /proc/self/exe: mount /proc, or do without --processes",
        _ => "raise the limits of processes and descriptors, or lower --processes",
    }
}

/// How a ready line begins.
pub(super) const READY: &str = "listening on ";

const IDLE: &str = "idle";
const BUSY: &str = "busy";
const ALIVE: &str = "alive";

/// From one report of the counters to the next.
const REPORT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_the_ready_line_makes_it_ready() {
        let (channel, mut its_end) = UnixStream::pair().expect("it can be had");
        let mut worker = Worker::new(Command::new("true").spawn().expect("it runs"), channel);
        its_end.write_all(b"something else\nlistening").expect("there is room");
        worker.read_reports();
        assert!(!worker.is_ready());
        its_end.write_all(b" on 127.0.0.1:1060\n").expect("there is room");
        worker.read_reports();
        assert!(worker.is_ready());
        worker.child.wait().expect("it has ended");
    }
}
