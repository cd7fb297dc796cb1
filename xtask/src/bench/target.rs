//! The targets of a measurement and how they are started: servers of the list, peers in any language, and the duplicate
//! of one of them, for the A/A control.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::client::connect;
use crate::harness::group::Group;
use crate::harness::{Server, WAIT_LIMIT, free_address, process, wait_for};
use crate::servers::Entry;
use crate::workspace::{self, Profile};

/// A server that is measured.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// How many clients it serves at the same time; `None`: any number.
    pub(crate) at_once: Option<usize>,
    /// Whether it is the same server as another target: the difference between the two is noise.
    pub(crate) is_duplicate: bool,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// A server of the list, with further arguments.
    Server(&'static Entry, &'static [&'static str]),
    /// A shell command that contains `{port}`.
    Peer(String),
}

/// Settings that every server is started with.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) profile: Profile,
    pub(crate) max_connections: usize,
    pub(crate) backlog: usize,
}

impl Target {
    pub(crate) fn server(entry: &'static Entry) -> Target {
        Target {
            name: entry.name.to_owned(),
            at_once: entry.at_once,
            is_duplicate: false,
            kind: Kind::Server(entry, &[]),
        }
    }

    /// Returns this server with further flags, called `SERVER-NAME`: `smol-await` has the flag `--await`.
    pub(crate) fn with(&self, name: &str, more: &'static [&'static str]) -> Target {
        let kind = match &self.kind {
            Kind::Server(entry, _) => Kind::Server(entry, more),
            Kind::Peer(command) => Kind::Peer(command.clone()),
        };
        Target { name: format!("{}-{name}", self.name), kind, ..self.clone() }
    }

    /// Returns the row in the list of servers; `None` for a peer.
    pub(crate) fn entry(&self) -> Option<&'static Entry> {
        match self.kind {
            Kind::Server(entry, _) => Some(entry),
            Kind::Peer(_) => None,
        }
    }

    /// Returns the largest number of clients with which it is measured.
    pub(crate) fn most_clients(&self) -> usize {
        if self.forks() { MOST_PROCESSES } else { usize::MAX }
    }

    /// Returns the longest time to accept one client, including the start of a thread or process for it.
    pub(crate) fn accept_time(&self) -> Duration {
        if self.forks() { LONGEST_FORK } else { LONGEST_ACCEPT }
    }

    fn forks(&self) -> bool {
        self.entry().is_some_and(|entry| entry.forks)
    }

    /// Parses `NAME=COMMAND {port}`.
    pub(crate) fn peer(text: &str) -> Result<Target> {
        let (name, command) =
            text.split_once('=').with_context(|| format!("--peer {text}: not NAME='COMMAND {{port}}'"))?;
        ensure!(command.contains("{port}"), "--peer {name}: the command must contain {{port}}, which becomes the port");
        ensure!(!name.trim().is_empty(), "--peer {text}: it has no name");
        Ok(Target {
            name: name.trim().to_owned(),
            at_once: None,
            is_duplicate: false,
            kind: Kind::Peer(command.to_owned()),
        })
    }

    /// Returns this target under a second name.
    pub(crate) fn duplicate(&self) -> Target {
        Target { name: format!("{} again", self.name), is_duplicate: true, ..self.clone() }
    }

    /// Returns its package, or `peer`: targets of a family are drawn together.
    pub(crate) fn family(&self) -> &'static str {
        match self.kind {
            Kind::Server(entry, _) => entry.package,
            Kind::Peer(_) => "peer",
        }
    }

    /// Returns its command as a user would write it.
    pub(crate) fn shown(&self, setting: Setting, work: &[String]) -> String {
        match &self.kind {
            Kind::Server(entry, more) => {
                let arguments =
                    [entry.arguments.join(" "), more.join(" "), setting.arguments().join(" "), work.join(" ")];
                format!("{} {}", entry.binary, arguments.join(" ").split_whitespace().collect::<Vec<_>>().join(" "))
            }
            Kind::Peer(command) => command.replace("{work}", &work.join(" ")),
        }
    }

    /// Starts it with the `work` of a workload, under the program `wrapper` if that is not empty, and waits until it
    /// accepts connections.
    pub(crate) fn start(&self, setting: Setting, work: &[String], wrapper: &[String]) -> Result<Running> {
        match &self.kind {
            Kind::Server(entry, more) => {
                let binary = workspace::built(setting.profile, entry.binary)?;
                let mut command = wrapped(wrapper, &binary.to_string_lossy());
                command.args(entry.arguments).args(*more).args(setting.arguments()).args(work).args(["-p", "0"]);
                Ok(Running::Ours(Server::run(&mut command)?))
            }
            Kind::Peer(text) => {
                let address = free_address()?;
                let has_work = work.is_empty() || text.contains("{work}");
                ensure!(has_work, "its command must contain {{work}}, which becomes {:?}", work.join(" "));
                let text = text.replace("{port}", &address.port().to_string()).replace("{work}", &work.join(" "));
                // Without the shell in between, the group has only the peer's own processes.
                let is_plain = !text.contains([';', '&', '|', '(', ')', '<', '>', '\n']);
                let text = if is_plain { format!("exec {text}") } else { text };
                let mut command = wrapped(wrapper, "sh");
                command.args(["-c", &text]).current_dir(workspace::root()?);
                Running::peer(&mut command, address)
            }
        }
        .with_context(|| format!("{} does not start", self.name))
    }
}

impl Setting {
    fn arguments(self) -> Vec<String> {
        let numbers = [("--max-connections", self.max_connections), ("--backlog", self.backlog)];
        numbers.into_iter().flat_map(|(flag, number)| [flag.to_owned(), number.to_string()]).collect()
    }
}

fn wrapped(wrapper: &[String], program: &str) -> Command {
    let Some((first, rest)) = wrapper.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// A running target, killed on drop.
pub(crate) enum Running {
    Ours(Server),
    Peer { group: Group, address: SocketAddr },
}

impl Running {
    fn peer(command: &mut Command, address: SocketAddr) -> Result<Running> {
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = group.capture_stderr()?;
        let is_ready = || connect(address, WAIT_LIMIT).ok().map(|_| true);
        let ready = wait_for(WAIT_LIMIT, || is_ready().or_else(|| group.ended_within(Duration::ZERO).map(|_| false)));
        ensure!(ready == Some(true), "the command does not listen on {address}; its stderr: {:?}", stderr.text());
        Ok(Running::Peer { group, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Running::Ours(server) => server.address(),
            Running::Peer { address, .. } => *address,
        }
    }

    pub(crate) fn processes(&self) -> Vec<i32> {
        match self {
            Running::Ours(server) => server.processes(),
            Running::Peer { group, .. } => process::members(group.id()),
        }
    }

    /// Returns whether all its processes have exited within `limit`.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        match self {
            Running::Ours(server) => server.ended_within(limit).is_some(),
            Running::Peer { group, .. } => group.ended_within(limit).is_some(),
        }
    }

    /// Returns the settings that it logs at start. They show whether all servers have the same ones.
    pub(crate) fn reported(&self) -> Option<String> {
        let Running::Ours(server) = self else { return None };
        let found = |log: &str| log.lines().find_map(|line| line.find("at most ").map(|at| line[at..].to_owned()));
        server.wait_for_log(WAIT_LIMIT, found)
    }
}

/// The largest number of clients of a server that starts a process for each. More would measure the machine's memory.
pub(crate) const MOST_PROCESSES: usize = 1000;
/// The longest time to accept a client and start a thread for it.
const LONGEST_ACCEPT: Duration = Duration::from_micros(60);
/// The longest time to accept a client and start a process for it.
const LONGEST_FORK: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_and_a_port() {
        let peer = Target::peer("lean=/tmp/lean {port} 2").expect("it is one");
        assert_eq!((peer.name.as_str(), peer.family()), ("lean", "peer"));
        for wrong in ["lean", "lean=/tmp/lean", "=x {port}"] {
            assert!(Target::peer(wrong).is_err(), "{wrong}");
        }
        assert_eq!(peer.duplicate().name, "lean again");
    }
}
