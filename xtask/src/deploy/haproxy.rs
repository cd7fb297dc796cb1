//! A real HAProxy in front of three servers, and the states that it reports for them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::capture::Capture;
use crate::harness::folder::Folder;
use crate::harness::group::Group;
use crate::harness::{WAIT_LIMIT, tool, wait_for};

/// A running HAProxy, killed on drop.
pub(super) struct Balancer {
    // First, so that HAProxy has exited before its files are removed.
    _group: Group,
    stderr: Capture,
    socket: PathBuf,
    _folder: Folder,
}

impl Balancer {
    /// Runs HAProxy with `configuration`, under another program if there is a `wrapper`, and waits until all servers
    /// are up.
    pub(super) fn start(wrapper: &[String], configuration: &str) -> Result<Balancer> {
        let folder = Folder::new()?;
        let socket = folder.path().join("zen.sock");
        let privileges = "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n";
        // HAProxy can drop privileges only if root starts it.
        let own = replaced(configuration, &[(privileges, ""), ("/run/haproxy/zen.sock", &socket.to_string_lossy())])?;
        let file = folder.write("haproxy.cfg", &own)?;
        let haproxy = tool("haproxy")?;
        let mut command = match wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(tool(program)?);
                command.args(arguments).arg(haproxy);
                command
            }
            None => Command::new(haproxy),
        };
        // -db: HAProxy stays in the foreground.
        command.arg("-db").arg("-f").arg(file);
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = group.capture_stderr()?;
        let balancer = Balancer { _group: group, stderr, socket, _folder: folder };
        SERVERS.iter().try_for_each(|name| balancer.waits_until(name, "UP", WAIT_LIMIT).map(drop))?;
        Ok(balancer)
    }

    /// Waits until a server is `UP`, or `DOWN`, and returns how long that took.
    pub(super) fn waits_until(&self, server: &str, state: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let time_if_reached = || self.state(server).is_ok_and(|now| now == state).then(|| start.elapsed());
        wait_for(limit, time_if_reached).with_context(|| {
            let now = self.state(server).unwrap_or_else(|error| format!("{error:#}"));
            format!("{server} is {now}, not {state}, after {limit:?}; HAProxy printed {}", self.stderr.text())
        })
    }

    /// Returns the state of a server: `UP`, `DOWN`, `UP 1/2` on its way down, and so on.
    pub(super) fn state(&self, server: &str) -> Result<String> {
        self.statistic(server, STATUS)
    }

    /// Returns how many clients are connected to a server through HAProxy now.
    pub(super) fn clients(&self, server: &str) -> Result<usize> {
        Ok(self.statistic(server, CLIENTS)?.parse()?)
    }

    fn statistic(&self, server: &str, column: usize) -> Result<String> {
        let table = self.command("show stat")?;
        let of_server = |line: &&str| line.starts_with(&format!("zen,{server},"));
        let line = table.lines().find(of_server).with_context(|| format!("nothing about {server} in {table}"))?;
        Ok(line.split(',').nth(column).context("a column")?.to_owned())
    }

    /// Sends a command to HAProxy's socket and returns the response.
    pub(super) fn command(&self, command: &str) -> Result<String> {
        let mut socket = UnixStream::connect(&self.socket).context("HAProxy's socket")?;
        socket.set_read_timeout(Some(WAIT_LIMIT))?;
        writeln!(socket, "{command}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// Replaces texts in a file of `xtask/deploy/`; each must be there.
pub(super) fn replaced(part: &str, changes: &[(&str, &str)]) -> Result<String> {
    changes.iter().try_fold(part.to_owned(), |text, (old, new)| {
        ensure!(text.contains(old), "the file has no {old:?}");
        Ok(text.replace(old, new))
    })
}

/// The names of the servers in the configuration.
pub(super) const SERVERS: [&str; 3] = ["a", "b", "c"];

/// The longest time in which the checks detect a server that does not answer.
pub(super) const DETECTION_LIMIT: Duration = Duration::from_secs(3);

/// Columns of `show stat`.
const CLIENTS: usize = 4;
const STATUS: usize = 17;
