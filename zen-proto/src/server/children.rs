//! A process for each client: the parent's side.
//!
//! A child is this program started again with `--inetd nowait`: it has one client and no listener. All children share
//! one pipe as their stdout. On it each reports its counters, one line per write (see `worker`).

use std::ffi::OsString;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::{io, iter};

use anyhow::{Context, Result};
use humantime::format_duration;
use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use signal_hook::consts::SIGCHLD;

use super::connection::Connection;
use super::counters::Counters;
use super::line_buffer::LineBuffer;
use super::options::Options;
use super::reports::Reports;
use super::shared::Server;
use super::signals::{self, Signals};
use super::wait_ready::wait_ready;
use super::worker::{advice, exit_cause, parse_counters, this_program};

/// Starts a process for each client.
#[derive(Debug)]
pub struct Children {
    server: &'static Server,
    arguments: Vec<OsString>,
    /// The write end of the pipe, which every child inherits.
    channel: OwnedFd,
}

impl Children {
    /// Returns one object that starts child processes, and one that reaps them. The command line of a child is `mode`,
    /// followed by the flags that apply to a single client.
    ///
    /// Call this and [`start`](Self::start) on the main thread: the kernel kills a child when the thread that started
    /// it ends.
    ///
    /// # Errors
    ///
    /// Signal handlers cannot be registered, or a pipe cannot be created.
    pub fn new(server: &'static Server, options: &Options, mode: &[&str]) -> Result<(Self, Reaper)> {
        let child_exits = Signals::register(&[SIGCHLD])?;
        let (reports, channel) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("cannot create a pipe")?;
        // If the kernel refuses, the pipe may be full when a child reports, and that report is lost.
        let _ = fcntl_setpipe_size(&channel, PIPE_SIZE);
        server.children.get_or_init(Mutex::default);
        server.excess().waits_for_exit = true;
        server.stop.on_request(|| server.signal_children(Signal::TERM));
        // A child inherits this mask, so a signal stays pending until the child has its handlers. In this process
        // another thread handles them.
        let blocked: SigSet = [Blocked::SIGTERM, Blocked::SIGINT, Blocked::SIGHUP].into_iter().collect();
        blocked.thread_block().context("cannot block signals")?;
        let mode = mode.iter().map(OsString::from);
        let children = Self { server, arguments: mode.chain(arguments(options)).collect(), channel };
        Ok((children, Reaper { server, child_exits, reports, received: LineBuffer::default() }))
    }

    /// Starts a process with the client as its stdin. If that fails, the client is rejected (rule 7).
    ///
    /// The child has its own descriptor, so the caller drops `stream`.
    pub fn start(&self, stream: &TcpStream, connection: Connection) {
        // Locked until the child is recorded: otherwise the reaper could see its end first.
        let Some(mut children) = self.server.children() else { return };
        match self.spawn(stream) {
            Ok(pid) => {
                connection.hand_over();
                children.alive.insert(pid, Counters::default());
                if self.server.stop.is_requested() {
                    signals::send(Signal::TERM, pid);
                }
            }
            Err(error) => {
                let advice = advice(&error);
                let cause = format!("no process can be started for it ({error}); {advice}");
                connection.reject_because(stream, &cause);
            }
        }
    }

    fn spawn(&self, stream: &TcpStream) -> io::Result<u32> {
        let stdin = stream.as_fd().try_clone_to_owned()?;
        let stdout = self.channel.try_clone()?;
        let mut command = this_program();
        // A stuck child does not affect the other clients, so it sends no heartbeats.
        command.args(&self.arguments).env_remove("WATCHDOG_USEC");
        Ok(command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).spawn()?.id())
    }
}

/// Returns the flags for a child: those of this command line without listener, limit and metrics.
fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--worker", "--inetd", "nowait"].map(OsString::from).into();
    for (flag, duration) in [
        ("delay", options.delay),
        ("burn", options.burn),
        ("idle-timeout", Some(options.idle_timeout)),
        ("question-timeout", Some(options.question_timeout)),
        ("grace", Some(options.grace)),
    ] {
        arguments.extend(duration.map(|duration| format!("--{flag}={}", format_duration(duration)).into()));
    }
    for (flag, question) in
        [("panic-on", &options.panic_on), ("abort-on", &options.abort_on), ("panic-outside", &options.panic_outside)]
    {
        arguments.extend(question.as_ref().map(|question| format!("--{flag}={question}").into()));
    }
    arguments.extend(options.log_file.as_ref().map(|path| {
        let mut argument = OsString::from("--log-file=");
        argument.push(path);
        argument
    }));
    arguments.extend(options.quiet.then(|| "--quiet".into()));
    arguments.extend(iter::repeat_n("--verbose".into(), options.verbose.into()));
    arguments
}

/// Reaps child processes, and reads their reports.
#[derive(Debug)]
pub struct Reaper {
    server: &'static Server,
    child_exits: Signals,
    reports: OwnedFd,
    received: LineBuffer,
}

impl Reaper {
    /// Sleeps until a child reports or ends, and releases the permit of each child that has ended.
    ///
    /// Returns false when all children have ended and [`Children`] is dropped.
    pub fn reap(&mut self) -> bool {
        let descriptors = self.child_exits.streams().map(AsFd::as_fd).chain([self.reports.as_fd()]);
        wait_ready(descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect(), None);
        self.child_exits.pending();
        let Some(mut children) = self.server.children() else { return false };
        // One SIGCHLD may stand for several children. A child sends its last report before it ends.
        let ended: Vec<_> = iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect();
        let goes_on = self.read_reports(&mut children);
        ended.into_iter().for_each(|child| self.release(&mut children, child));
        // The pipe is closed shortly before the exit status is available.
        while !goes_on && !children.alive.is_empty() {
            match wait(WaitOptions::empty()) {
                Ok(child) => child.into_iter().for_each(|child| self.release(&mut children, child)),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        goes_on
    }

    /// Reads all reports that have arrived. Returns false when no process has the write end of the pipe any more.
    fn read_reports(&mut self, children: &mut Reports) -> bool {
        let mut chunk = [0; 4096];
        loop {
            let n = match rustix::io::read(&self.reports, &mut chunk) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(_) => return true,
            };
            for line in self.received.add(&chunk[..n]) {
                // Other lines are not reports: a library that was added may print to stdout.
                let report = parse_counters(&line);
                let known = report.and_then(|(pid, counters)| Some((children.alive.get_mut(&pid)?, counters)));
                known.into_iter().for_each(|(known, counters)| *known = counters.counts());
            }
        }
    }

    fn release(&self, children: &mut Reports, (pid, status): (Pid, WaitStatus)) {
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let Some(counters) = children.alive.get(&pid) else { return };
        children.retire(pid, counters.after_the_only_client());
        self.server.permits.release();
        let status = ExitStatus::from_raw(status.as_raw());
        if !status.success() {
            children.died += 1;
            log::error!("process {pid} died by {}: its client is lost", exit_cause(status));
        }
    }
}

/// The size of the pipe in bytes: room for some ten thousand reports, should the reaper be delayed.
const PIPE_SIZE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::options::Inetd;
    use super::*;

    #[test]
    fn a_child_gets_the_flags_for_one_client() {
        let line = "zen :: -p 0 --backlog 7 --max-connections 9 --metrics 0 --delay=1500ms --idle-timeout 0 -vv \
                    --question-timeout 1ms --grace 90s --log-file=-log --panic-on a? --abort-on=-b? --panic-outside c?";
        let options = Options::try_parse_from(line.split(' ')).expect("a command line");
        let name = "zen".into();
        let child = Options::try_parse_from([name].into_iter().chain(arguments(&options))).expect("a command line");
        let concerns_one = |options: Options| {
            let Options { delay, burn, idle_timeout, question_timeout, grace, log_file, quiet, verbose, .. } = options;
            let faults = [options.panic_on, options.abort_on, options.panic_outside];
            (delay, burn, idle_timeout, question_timeout, grace, log_file, quiet, verbose, faults)
        };
        assert!(child.worker && child.inetd == Some(Inetd::Nowait) && child.contradiction().is_none());
        assert!(child.host.is_none() && child.port.is_none() && child.metrics.is_none());
        assert_eq!(concerns_one(child), concerns_one(options));
    }
}
