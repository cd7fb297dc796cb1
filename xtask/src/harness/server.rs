//! A running server: started on a free port, heard until its ready line, and gone when dropped.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::capture::Capture;
use super::client::Client;
use super::group::Group;
use super::process::{self, Usage};
use super::{Missing, WAIT_LIMIT, lacks_io_uring, shown, strace, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) struct Server {
    group: Group,
    pid: i32,
    address: SocketAddr,
    stdout: Capture,
    stderr: Capture,
}

impl Server {
    /// Starts a server of the list on a free port, with `arguments` after its own.
    pub(crate) fn start(entry: &Entry, arguments: &[&str]) -> Result<Server> {
        Server::run(entry.command()?.args(["-p", "0"]).args(arguments))
    }

    /// Starts the same under another program, as in `strace -f zen-single -p 0` or `prlimit --nofile=64 zen-single -p
    /// 0`.
    pub(crate) fn start_under(wrapper: &[&str], entry: &Entry, arguments: &[&str]) -> Result<Server> {
        let Some((&program, before)) = wrapper.split_first() else { return Server::start(entry, arguments) };
        let inner = entry.command()?;
        let mut command = Command::new(if program == "strace" { strace()? } else { tool(program)? });
        command.args(before).arg(inner.get_program()).args(inner.get_args()).args(["-p", "0"]).args(arguments);
        let mut server = Server::run(&mut command)?;
        // Signals are meant for the server, which may have replaced the wrapper or be its child.
        let binary = workspace::binary(entry.binary)?.canonicalize()?;
        let is_server = |pid: &i32| process::binary(*pid).is_some_and(|of_process| of_process == binary);
        // Numbers begin anew some time, so the smallest may be a worker's.
        let leader = server.group.id();
        let is_child = |pid: &i32| is_server(pid) && process::parent(*pid) == Some(leader);
        let first = if is_server(&leader) { Some(leader) } else { server.processes().into_iter().find(is_child) };
        server.pid = first.context("the wrapper runs no server")?;
        Ok(server)
    }

    /// Starts a server of the list on a listener that somebody else keeps, as systemd does.
    pub(crate) fn start_on(listener: &TcpListener, entry: &Entry, arguments: &[&str]) -> Result<Server> {
        Server::heard(activated(entry, LISTEN_FDS, arguments)?.stdin(OwnedFd::from(listener.try_clone()?)))
    }

    /// Starts whatever `command` says and waits for the ready line.
    pub(crate) fn run(command: &mut Command) -> Result<Server> {
        Server::heard(command.stdin(Stdio::null()))
    }

    fn heard(command: &mut Command) -> Result<Server> {
        let mut group = Group::start(
            command
                .env_remove("RUST_LOG")
                .env_remove("LISTEN_PID")
                .env_remove("LISTEN_FDS")
                .env_remove("NOTIFY_SOCKET")
                // The pool of `--offload` never gives a thread back (blocking 1.7): with as many as the verdict's
                // clients wake up before a case, it has all it will ever have.
                .env("BLOCKING_MAX_THREADS", "4")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
        let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
        let line =
            stdout.wait_for(WAIT_LIMIT, |said| said.iter().position(|&b| b == b'\n').map(|end| said[..end].to_vec()));
        let pid = group.id();
        let explained = || format!("{command:?}; its stderr:\n{}", stderr.text());
        // Containers and sysctls refuse it.
        ensure!(line.is_some() || !lacks_io_uring(&stderr.text()), Missing("io_uring".to_owned()));
        let line = line.with_context(|| format!("no ready line from {}", explained()))?;
        let address = ready_address(&line).with_context(explained)?;
        Ok(Server { group, pid, address, stdout, stderr })
    }

    /// Lets it live for `time` from now.
    pub(crate) fn extend_time_limit(&self, time: Duration) {
        self.group.extend_time_limit(time);
    }

    /// Sends SIGTERM and expects that the server ends with status 0 within `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended_within(limit).with_context(|| format!("still there {limit:?} after SIGTERM"))?;
        ensure!(status.success(), "ended with {status} after SIGTERM");
        Ok(())
    }

    /// The exit status, if the server ends within `limit`.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.group.ended_within(limit)
    }

    /// Sends a signal to the server's first process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or_else(|| anyhow!("no process to signal"))?;
        kill_process(pid, signal).context("cannot signal the server")
    }

    /// Sends a signal to all its processes.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(self.group.id()).ok_or_else(|| anyhow!("no group to signal"))?;
        kill_process_group(group, signal).context("cannot signal the server's processes")
    }

    /// A new client of this server.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's first process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<i32> {
        process::members(self.group.id())
    }

    /// Those of its processes that serve: the workers, or the only one.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let mut processes = self.processes();
        if processes.len() > 1 {
            processes.retain(|&pid| pid != self.pid);
        }
        processes
    }

    /// What all its processes hold together.
    pub(crate) fn usage(&self) -> Usage {
        process::usage(self.group.id())
    }

    /// Waits until every thread of it sleeps: it has nothing left to do.
    pub(crate) fn falls_asleep(&self, limit: Duration) -> Result<()> {
        let asleep = wait_for(limit, || process::is_asleep(self.group.id()).then_some(()));
        asleep.with_context(|| format!("{limit:?} later it is still busy"))
    }

    /// What it has written to stderr so far, fit to be printed.
    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }

    /// All that it has written to stderr, once it has ended.
    pub(crate) fn whole_log(&self) -> String {
        self.stderr.at_end();
        self.stderr.text()
    }

    /// Waits until `find` finds something in the log.
    pub(crate) fn wait_for_log<T>(&self, limit: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.stderr.wait_for(limit, |said| find(&String::from_utf8_lossy(said)))
    }

    /// After its end: nothing but the ready line on stdout, no control byte on stderr.
    pub(crate) fn has_spoken_cleanly(&self) -> Result<()> {
        let stdout = self.stdout.at_end();
        let lines = stdout.iter().filter(|&&b| b == b'\n').count();
        ensure!(lines == 1 && stdout.ends_with(b"\n"), "more than the ready line on stdout: {}", shown(&stdout));
        let stderr = self.stderr.at_end();
        match str::from_utf8(&stderr) {
            Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => Ok(()),
            _ => bail!("control bytes on stderr"),
        }
    }
}

/// The command of a server whose stdin is to become descriptor 3, with these variables. A shell does what the child of
/// a service manager does before it becomes the server.
pub(crate) fn activated(entry: &Entry, variables: &str, arguments: &[&str]) -> Result<Command> {
    let inner = entry.command()?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{variables} exec \"$@\" 3<&0 </dev/null"), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).args(arguments);
    Ok(command)
}

/// The variables that hand over one listener.
pub(crate) const LISTEN_FDS: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

fn ready_address(line: &[u8]) -> Result<SocketAddr> {
    let text = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("listening on "));
    let address: Option<SocketAddr> = text.and_then(|address| address.parse().ok());
    address.filter(|address| address.port() != 0).with_context(|| format!("not a ready line: {}", shown(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_taken_to_the_letter() {
        assert_eq!(ready_address(b"listening on 127.0.0.1:80").ok(), Some(([127, 0, 0, 1], 80).into()));
        assert_eq!(ready_address(b"listening on [::1]:80").ok(), Some((std::net::Ipv6Addr::LOCALHOST, 80).into()));
        for wrong in [
            "Listening on 127.0.0.1:80",
            "listening on ::1:80",
            "listening on 127.0.0.1:0",
            "listening on 127.0.0.1:80 ",
        ] {
            assert!(ready_address(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
