//! Worker processes of --processes: what a worker reports to its parent, and how the parent manages it.
//!
//! A worker is this program started again with `--worker`. Its stdin is the listener, and its stdout is a channel to
//! the parent. It writes one line for each report: that it is ready, whether it has clients, a heartbeat, its counters.
//! The parent never writes. It shuts down its side of the channel when all workers are to drain.
//!
//! A process for a single client is started in the same way; its parent's side is in `children`.

use std::ffi::CString;
use std::io::{self, ErrorKind, Read};
use std::mem::take;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use socket2::Socket;

use super::counters::Counters;
use super::line_buffer::LineBuffer;
use super::socket_io::is_tick;
use super::{signals, watchdog};

/// Asks the kernel to kill this worker when its parent dies, and makes the channel to the parent non-blocking.
///
/// # Errors
///
/// The parent has already died, or a system call failed.
pub(super) fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be tied to the parent")?;
    // The parent may have died before the call above. Then no process has the other end of the channel.
    if events_of_channel().intersects(PollFlags::HUP | PollFlags::ERR) {
        bail!("the parent has gone");
    }
    // If the parent is stopped (SIGSTOP), the channel fills up. A blocking write would stop this process, too.
    fcntl_setfl(io::stdout(), OFlags::NONBLOCK).context("cannot use the channel to the parent")
}

/// Returns whether the parent drains all workers. If only this worker drains, the others serve the backlog.
pub(super) fn all_drain() -> bool {
    events_of_channel().contains(PollFlags::RDHUP)
}

fn events_of_channel() -> PollFlags {
    let stdout = io::stdout();
    let mut channel = [PollFd::new(&stdout, PollFlags::RDHUP)];
    // An interrupted call returns no events. The caller asks again later.
    let _ = poll(&mut channel, Some(&Timespec::default()));
    channel[0].revents()
}

/// Names this process after its program, for `ps` and `pgrep`. The kernel named it `exe`, after /proc/self/exe.
pub(super) fn set_name() {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    // The kernel keeps the first 15 bytes. A failure only affects what `ps` shows.
    let _ = name.map(|name| rustix::thread::set_name(&name));
}

/// Reports that this worker has had no client for the time of --idle-exit, or that it has one again.
pub(super) fn report_idle(is_idle: bool) {
    send_line(if is_idle { IDLE } else { BUSY });
}

/// Reports that all serving threads are alive.
pub(super) fn send_heartbeat() {
    send_line(ALIVE);
}

/// Reports the counters of this process.
pub(super) fn report_counters(counters: Counters) {
    send_line(&format!("{} {}", std::process::id(), counters.to_line()));
}

/// Parses a report of counters; returns the process id and the counters.
pub(super) fn parse_counters(line: &str) -> Option<(u32, Counters)> {
    let (pid, counters) = line.split_once(' ')?;
    Some((pid.parse().ok()?, counters.parse().ok()?))
}

/// Sends a line to the parent, in a single write: the line is sent whole or, if the channel is full, not at all.
fn send_line(line: &str) {
    let _ = rustix::io::write(io::stdout(), format!("{line}\n").as_bytes());
}

/// The parent's handle of a worker.
pub(super) struct Worker {
    child: Child,
    /// The parent's end of the channel; `None` once the worker has closed its end.
    channel: Option<UnixStream>,
    started_at: Instant,
    /// The time of the last heartbeat, or of the start.
    last_heartbeat: Instant,
    received: LineBuffer,
    is_ready: bool,
    /// Whether the worker is sent SIGHUP as soon as it is ready.
    must_reopen_log: bool,
    is_idle: bool,
    counters: Counters,
}

impl Worker {
    pub(super) fn start(listener: &Socket, is_inherited: bool) -> Result<Self> {
        let mut command = this_program();
        command.arg("--worker").args(is_inherited.then_some("--inherited")).args(std::env::args_os().skip(1));
        // If the watchdog is for this process, it also applies to its workers: `this_program` removes WATCHDOG_PID, and
        // without that variable WATCHDOG_USEC applies to any process. If it is for another process, remove both.
        if watchdog::interval().is_none() {
            command.env_remove("WATCHDOG_USEC");
        }
        let cannot = |error: io::Error| anyhow!("cannot start a worker of --processes ({error}): {}", advice(&error));
        let (channel, worker_end) = UnixStream::pair().map_err(cannot)?;
        channel.set_nonblocking(true).map_err(cannot)?;
        let child = command
            .stdin(Stdio::from(listener.as_fd().try_clone_to_owned().map_err(cannot)?))
            .stdout(Stdio::from(OwnedFd::from(worker_end)))
            .spawn()
            .map_err(cannot)?;
        Ok(Self::new(child, channel))
    }

    fn new(child: Child, channel: UnixStream) -> Self {
        let now = Instant::now();
        Self {
            child,
            channel: Some(channel),
            started_at: now,
            last_heartbeat: now,
            received: LineBuffer::default(),
            is_ready: false,
            must_reopen_log: false,
            is_idle: false,
            counters: Counters::default(),
        }
    }

    /// Reads and handles some of the worker's reports. Returns false when no more have arrived. End of file means that
    /// the worker has exited.
    pub(super) fn read_reports(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        let mut buffer = [0; 4096];
        let n = match channel.read(&mut buffer) {
            Ok(n @ 1..) => n,
            Err(error) if is_tick(&error) => return false, // no report has arrived
            _ => {
                self.channel = None;
                return false;
            }
        };
        for line in self.received.add(&buffer[..n]) {
            self.handle_report(&line);
        }
        true
    }

    /// Reads and handles the last reports of a worker that has ended.
    pub(super) fn read_last_reports(&mut self) {
        while self.read_reports() {}
    }

    fn handle_report(&mut self, line: &str) {
        match line {
            IDLE | BUSY => self.is_idle = line == IDLE,
            ALIVE => self.last_heartbeat = Instant::now(),
            _ if line.starts_with(READY) => {
                (self.is_ready, self.last_heartbeat) = (true, Instant::now());
                if take(&mut self.must_reopen_log) {
                    self.reopen_log();
                }
            }
            // Other lines are not reports: a library that was added may print to stdout.
            _ => _ = parse_counters(line).map(|(_, counters)| self.counters = counters),
        }
    }

    /// Sends SIGHUP, which makes the worker reopen its log. Before the worker is ready SIGHUP would kill it, so it is
    /// sent later.
    pub(super) fn reopen_log(&mut self) {
        if self.is_ready {
            self.signal(Signal::HUP);
        } else {
            self.must_reopen_log = true;
        }
    }

    /// Returns the channel, which is readable when there is a report.
    pub(super) fn channel(&self) -> Option<&UnixStream> {
        self.channel.as_ref()
    }

    /// Makes the worker drain together with all others. It first accepts the clients in the backlog.
    pub(super) fn drain(&self) {
        // This fails only if the worker has exited.
        let _ = self.channel().map(|channel| channel.shutdown(Shutdown::Write));
        self.signal(Signal::TERM);
    }

    /// Returns the exit status if the worker has ended.
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
        self.started_at.elapsed()
    }

    /// Returns the time since the last heartbeat.
    pub(super) fn since_heartbeat(&self) -> Duration {
        self.last_heartbeat.elapsed()
    }

    /// Restarts the time since the last heartbeat, after the parent itself was unable to read heartbeats.
    pub(super) fn reset_heartbeat(&mut self) {
        self.last_heartbeat = Instant::now();
    }

    /// Returns whether the worker accepts clients.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Returns whether the worker has had no client for the time of --idle-exit.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Returns the counters of the last report.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}

/// Returns a command that starts this program again, without the environment variables meant for this process only.
pub(super) fn this_program() -> Command {
    // The running program, even if the file has been replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(std::env::args_os().next().unwrap_or_default());
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
}

/// Returns what to do when no process can be started.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "it is started from /proc/self/exe: mount /proc",
        _ => "raise the limits of processes and descriptors",
    }
}

/// Describes how a process ended, as in `signal 9`.
pub(super) fn exit_cause(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("status {code}"),
        _ => status.to_string(),
    }
}

/// The beginning of a ready line.
pub(super) const READY: &str = "listening on ";

const IDLE: &str = "idle";
const BUSY: &str = "busy";
const ALIVE: &str = "alive";

/// The interval between two reports of the counters.
pub(super) const REPORT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_the_ready_line_makes_it_ready() {
        let (channel, mut worker_end) = UnixStream::pair().expect("creates a socket pair");
        let mut worker = Worker::new(Command::new("true").spawn().expect("it runs"), channel);
        worker_end.write_all(b"something else\nlistening").expect("there is room");
        assert!(worker.read_reports());
        assert!(!worker.is_ready());
        worker_end.write_all(b" on 127.0.0.1:1060\n").expect("there is room");
        assert!(worker.read_reports());
        assert!(worker.is_ready());
        worker.child.wait().expect("it has ended");
    }

    #[test]
    fn all_last_reports_are_read() {
        let (channel, mut worker_end) = UnixStream::pair().expect("creates a socket pair");
        channel.set_nonblocking(true).expect("is a descriptor");
        let mut worker = Worker::new(Command::new("true").spawn().expect("it runs"), channel);
        worker_end
            .write_all(format!("{}{IDLE}\n", format!("{ALIVE}\n").repeat(1000)).as_bytes())
            .expect("there is room");
        worker.read_last_reports();
        assert!(worker.is_idle());
        worker.child.wait().expect("it has ended");
    }
}
