//! A running server: started on a free port, ready when its constructor returns, and killed on drop.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::capture::Capture;
use super::client::{APHORISMS, Client};
use super::group::Group;
use super::process::{self, Usage};
use super::{Missing, WAIT_LIMIT, lacks_io_uring, shown, strace, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

/// A running server and its output.
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

    /// Starts the server under another program, as in `strace -f zen-single -p 0`.
    pub(crate) fn start_under(wrapper: &[&str], entry: &Entry, arguments: &[&str]) -> Result<Server> {
        let Some((&program, before)) = wrapper.split_first() else { return Server::start(entry, arguments) };
        let inner = entry.command()?;
        let mut command = Command::new(if program == "strace" { strace()? } else { tool(program)? });
        command.args(before).arg(inner.get_program()).args(inner.get_args()).args(["-p", "0"]).args(arguments);
        let mut server = Server::run(&mut command)?;
        // Signals are meant for the server, which may have replaced the wrapper or be its child.
        let binary = workspace::binary(entry.binary)?.canonicalize()?;
        let is_server = |pid: &i32| process::binary(*pid).is_some_and(|of_process| of_process == binary);
        // Pids wrap around, so the smallest may be a worker's.
        let leader = server.group.id();
        let is_child = |pid: &i32| is_server(pid) && process::parent(*pid) == Some(leader);
        let first = if is_server(&leader) { Some(leader) } else { server.processes().into_iter().find(is_child) };
        server.pid = first.context("no server runs under the wrapper")?;
        Ok(server)
    }

    /// Starts a server of the list on a listener that the test keeps, as systemd does.
    pub(crate) fn start_on(listener: &TcpListener, entry: &Entry, arguments: &[&str]) -> Result<Server> {
        Server::started(activated(entry, LISTEN_FDS, arguments)?.stdin(OwnedFd::from(listener.try_clone()?)))
    }

    /// Starts `command`, which is a server, and waits for its ready line.
    pub(crate) fn run(command: &mut Command) -> Result<Server> {
        Server::started(command.stdin(Stdio::null()))
    }

    fn started(command: &mut Command) -> Result<Server> {
        let mut group = Group::start(
            command
                .env_remove("RUST_LOG")
                .env_remove("LISTEN_PID")
                .env_remove("LISTEN_FDS")
                .env_remove("NOTIFY_SOCKET")
                // The blocking pool of `--offload` never ends a thread (blocking 1.7). With this limit, the clients
                // before a case start all its threads, so that the verdict finds no more of them after it.
                .env("BLOCKING_MAX_THREADS", "4")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        let stdout = group.capture_stdout()?;
        let stderr = group.capture_stderr()?;
        let line = stdout.wait_for(WAIT_LIMIT, |printed| {
            printed.iter().position(|&b| b == b'\n').map(|end| printed[..end].to_vec())
        });
        let pid = group.id();
        let explained = || format!("{command:?}; its stderr:\n{}", stderr.text());
        // Containers and sysctls may forbid io_uring.
        ensure!(line.is_some() || !lacks_io_uring(&stderr.text()), Missing("io_uring".to_owned()));
        let line = line.with_context(|| format!("no ready line from {}", explained()))?;
        let address = ready_address(&line).with_context(explained)?;
        Ok(Server { group, pid, address, stdout, stderr })
    }

    /// Sets its time limit to `time` from now.
    pub(crate) fn extend_time_limit(&self, time: Duration) {
        self.group.extend_time_limit(time);
    }

    /// Sends SIGTERM and expects that the server ends with status 0 within `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended_within(limit).with_context(|| {
            let threads = process::threads_shown(self.group.id());
            format!("the server has not exited {limit:?} after SIGTERM; its threads:\n{threads}")
        })?;
        ensure!(status.success(), "the server ended with {status} after SIGTERM");
        Ok(())
    }

    /// Returns the exit status if the server ends within `limit`.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.group.ended_within(limit)
    }

    /// Waits until the server ends, and expects status 0.
    pub(crate) fn ends_well(&mut self) -> Result<()> {
        self.group.ends_well()
    }

    /// Sends a signal to the server's first process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid, signal).context("cannot signal the server")
    }

    /// Sends a signal to all its processes.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(self.group.id()).ok_or_else(|| anyhow!("no group to signal"))?;
        kill_process_group(group, signal).context("cannot signal the server's processes")
    }

    /// Stops all its processes; see [`process::stop`].
    pub(crate) fn stop_all(&self) -> Result<()> {
        self.processes().into_iter().try_for_each(process::stop)
    }

    /// Connects a new client.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Connects `count` new clients.
    pub(crate) fn clients(&self, count: usize) -> Result<Vec<Client>> {
        (0..count).map(|_| self.client()).collect()
    }

    /// Connects a client that has been answered, so it is accepted, and not only in the backlog.
    pub(crate) fn served_client(&self) -> Result<Client> {
        let mut client = self.client()?;
        client.ask_all()?;
        Ok(client)
    }

    /// Connects `count` clients, each of which has been answered.
    pub(crate) fn served_clients(&self, count: usize) -> Result<Vec<Client>> {
        let client = |n| self.served_client().with_context(|| format!("client {n} of {count}"));
        (1..=count).map(client).collect()
    }

    /// Connects a client that has asked the first of the [`APHORISMS`] and waits for the answer.
    pub(crate) fn asking_client(&self) -> Result<Client> {
        let mut client = self.client()?;
        client.send(APHORISMS[0].0)?;
        Ok(client)
    }

    /// Returns the address at which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the pid of the server's first process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the pids of all its processes, that of the first one first.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut processes = process::members(self.group.id());
        processes.sort_by_key(|&pid| pid != self.pid);
        processes
    }

    /// Returns the pids of the processes that serve: the workers, or the only one.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let mut processes = self.processes();
        if processes.len() > 1 {
            processes.retain(|&pid| pid != self.pid);
        }
        processes
    }

    /// Waits until the pids of the workers satisfy `are`, and returns them.
    pub(crate) fn workers_are(&self, limit: Duration, are: impl Fn(&[i32]) -> bool) -> Result<Vec<i32>> {
        let found = wait_for(limit, || Some(self.workers()).filter(|workers| are(workers)));
        found.with_context(|| format!("after {limit:?} the workers are {:?}", self.workers()))
    }

    /// Waits until there are as many workers as `before`, and the first of those has been replaced.
    pub(crate) fn replaces_first(&self, before: &[i32], limit: Duration) -> Result<()> {
        self.workers_are(limit, |now| now.len() == before.len() && !now.contains(&before[0])).map(drop)
    }

    /// Returns the resources of all its processes together. The program that it was started under is left out.
    pub(crate) fn usage(&self) -> Usage {
        let mut processes = self.processes();
        processes.retain(|&process| process == self.pid || process != self.group.id());
        process::usage(processes)
    }

    /// Returns how much processor time all its processes use in `time` from now.
    pub(crate) fn cpu_within(&self, time: Duration) -> Duration {
        let before = self.usage().cpu;
        thread::sleep(time);
        self.usage().cpu.saturating_sub(before)
    }

    /// Waits until each of its threads sleeps, so that it has nothing left to do.
    pub(crate) fn wait_until_asleep(&self, limit: Duration) -> Result<()> {
        // A starting process may sleep for a moment. So all threads must be asleep twice in a row, without having used
        // processor time in between.
        let mut before = None;
        let asleep = wait_for(limit, || {
            let Usage { processes, threads, cpu, .. } = self.usage();
            let now = process::is_asleep(self.group.id()).then_some((processes, threads, cpu));
            let has_rested = now.is_some() && now == before;
            before = now;
            has_rested.then_some(())
        });
        asleep.with_context(|| format!("the server is still busy after {limit:?}"))
    }

    /// Returns what it has written to stderr so far, with control bytes escaped.
    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }

    /// Waits for the end of its stderr, at most for [`WAIT_LIMIT`], and returns what it has written there.
    pub(crate) fn whole_log(&self) -> String {
        self.stderr.at_end();
        self.stderr.text()
    }

    /// Waits until `find` finds something in the log.
    pub(crate) fn wait_for_log<T>(&self, limit: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.stderr.wait_for(limit, |printed| find(&String::from_utf8_lossy(printed)))
    }

    /// Waits until the log contains `text`.
    pub(crate) fn logs(&self, text: &str) -> Result<()> {
        let logged = self.wait_for_log(WAIT_LIMIT, |log| log.contains(text).then_some(()));
        logged.with_context(|| format!("the log does not contain {text:?}"))
    }

    /// Waits for its end, and fails if stdout has more than the ready line or stderr has control bytes.
    pub(crate) fn output_is_clean(&self) -> Result<()> {
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

/// Returns a command that starts a server as a service manager does: with these environment variables, and with the
/// command's stdin as descriptor 3. A shell arranges both.
pub(crate) fn activated(entry: &Entry, variables: &str, arguments: &[&str]) -> Result<Command> {
    let inner = entry.command()?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{variables} exec \"$@\" 3<&0 </dev/null"), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).args(arguments);
    Ok(command)
}

/// The environment variables that pass one listener, as a shell writes them.
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
    fn a_ready_line_is_parsed_strictly() {
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
