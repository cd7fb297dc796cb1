//! A real HAProxy before three servers, and what it says of them.

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

/// It runs as long as this lives.
pub(super) struct Balancer {
    // First, so that it has gone before its files go.
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
        // Only root could give them up.
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
        // -db: it stays in the foreground.
        command.arg("-db").arg("-f").arg(file);
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
        let balancer = Balancer { _group: group, stderr, socket, _folder: folder };
        SERVERS.iter().try_for_each(|name| balancer.waits_until(name, "UP", WAIT_LIMIT).map(drop))?;
        Ok(balancer)
    }

    /// How long it takes until a server is `UP`, or `DOWN`.
    pub(super) fn waits_until(&self, server: &str, state: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let is_so = || self.state(server).is_ok_and(|now| now == state).then(|| start.elapsed());
        wait_for(limit, is_so).with_context(|| {
            let now = self.state(server).unwrap_or_else(|error| format!("{error:#}"));
            format!("{server} is not {state} but {now} after {limit:?}; HAProxy said {}", self.stderr.text())
        })
    }

    /// What it says of a server: `UP`, `DOWN`, `UP 1/2` on its way down, and so on.
    pub(super) fn state(&self, server: &str) -> Result<String> {
        self.statistic(server, STATUS)
    }

    /// How many clients it has at a server now.
    pub(super) fn clients(&self, server: &str) -> Result<usize> {
        Ok(self.statistic(server, CLIENTS)?.parse()?)
    }

    fn statistic(&self, server: &str, column: usize) -> Result<String> {
        let table = self.command("show stat")?;
        let of_server = |line: &&str| line.starts_with(&format!("zen,{server},"));
        let line = table.lines().find(of_server).with_context(|| format!("nothing about {server} in {table}"))?;
        Ok(line.split(',').nth(column).context("a column")?.to_owned())
    }

    /// What it answers to a command.
    pub(super) fn command(&self, command: &str) -> Result<String> {
        let mut socket = UnixStream::connect(&self.socket).context("HAProxy's socket")?;
        socket.set_read_timeout(Some(WAIT_LIMIT))?;
        writeln!(socket, "{command}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// A part with something in it replaced, which must be there.
pub(super) fn replaced(part: &str, changes: &[(&str, &str)]) -> Result<String> {
    changes.iter().try_fold(part.to_owned(), |text, (old, new)| {
        ensure!(text.contains(old), "there is no {old:?} in it");
        Ok(text.replace(old, new))
    })
}

/// As the configuration calls them.
pub(super) const SERVERS: [&str; 3] = ["a", "b", "c"];

/// Within this a server that does not answer is found by the checks.
pub(super) const FOUND: Duration = Duration::from_secs(3);

/// Columns of `show stat`.
const CLIENTS: usize = 4;
const STATUS: usize = 17;
