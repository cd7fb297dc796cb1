//! Virtual hosts: network namespaces that a test connects by a cable (a veth pair) or a switch (a bridge), and
//! disconnects. Each namespace has its own network counters, so they count the resets of one server alone.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::getuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::group::{Group, run_within};
use super::{Missing, WAIT_LIMIT, tool};

/// The address at which a server listens in a [`Network`].
pub(crate) const HOST: &str = "10.0.0.1";

/// Two virtual hosts, joined by a cable: one for servers, one for clients. They exist until this is dropped.
pub(crate) struct Network {
    servers: Group,
    clients: Group,
}

impl Network {
    /// Creates the hosts and connects them.
    pub(crate) fn make() -> Result<Network> {
        let (servers, clients) = (host()?, host()?);
        connect(&servers, CABLE, &clients)?;
        join(&servers, "10.0.0.1/30")?;
        join(&clients, "10.0.0.2/30")?;
        Ok(Network { servers, clients })
    }

    /// Returns the program that runs a command on the servers' host.
    pub(crate) fn wrapper(&self) -> [String; 2] {
        entering(&self.servers)
    }

    /// Runs `work` on the clients' host.
    pub(crate) fn as_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on(&self.clients, work)
    }

    /// Returns how many connections the servers' host has reset: the counters TCPAbortOnClose and TCPAbortOnData.
    pub(crate) fn resets(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/net/netstat", self.servers.id()))?;
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().context("no TcpExt names")?, lines.next().context("no TcpExt values")?);
        let counters = names.split(' ').zip(values.split(' '));
        let resets = counters.filter(|(name, _)| ["TCPAbortOnClose", "TCPAbortOnData"].contains(name));
        let counts = resets.map(|(_, value)| value.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
        ensure!(counts.len() == 2, "/proc/PID/net/netstat lacks TCPAbortOnClose or TCPAbortOnData");
        Ok(counts.into_iter().sum())
    }

    /// Disconnects the hosts: packets are lost, and TCP on neither side is notified.
    pub(crate) fn cut(&self) -> Result<()> {
        ip(&self.clients, &["link", "set", CABLE, "down"])
    }

    /// Connects the hosts again.
    pub(crate) fn mend(&self) -> Result<()> {
        ip(&self.clients, &["link", "set", CABLE, "up"])
    }
}

/// Several hosts on a switch. They exist until this is dropped.
pub(crate) struct Lan {
    switch: Group,
    hosts: Vec<Group>,
}

impl Lan {
    /// Creates a host for each of the addresses, such as `10.0.0.1/24`, and connects all of them to a switch.
    pub(crate) fn make(addresses: &[&str]) -> Result<Lan> {
        let switch = host()?;
        ip(&switch, &["link", "add", "name", SWITCH, "type", "bridge"])?;
        ip(&switch, &["link", "set", SWITCH, "up"])?;
        let mut lan = Lan { switch, hosts: Vec::new() };
        for (number, address) in addresses.iter().enumerate() {
            let host = host()?;
            connect(&lan.switch, &port(number), &host)?;
            ip(&lan.switch, &["link", "set", &port(number), "master", SWITCH, "up"])?;
            join(&host, address)?;
            lan.hosts.push(host);
        }
        Ok(lan)
    }

    /// Returns the program that runs a command on a host.
    pub(crate) fn wrapper(&self, host: usize) -> [String; 2] {
        entering(&self.hosts[host])
    }

    /// Runs `work` on a host.
    pub(crate) fn on<T: Send>(&self, host: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on(&self.hosts[host], work)
    }

    /// Disconnects a host from the switch: packets to it are lost, and no other host is notified.
    pub(crate) fn unplug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "down"])
    }

    /// Connects a host to the switch again.
    pub(crate) fn plug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "up"])
    }
}

/// Runs `work` in a new network namespace that has only a loopback interface, so every port is free.
pub(crate) fn in_own_network<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let host = host()?;
    ip(&host, &["link", "set", "lo", "up"])?;
    on(&host, work)
}

/// Runs `work` on a host.
fn on<T: Send>(host: &Group, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(namespace(host))?;
    // A thread that has entered a namespace stays in it, so this takes a thread of its own. Threads that it starts are
    // in the same namespace.
    let there = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(there).join().map_err(|_| anyhow!("the case panicked"))?)
}

/// Connects two hosts with a veth pair. Its interface is called `name` on the first host, and [`CABLE`] on the second.
fn connect(here: &Group, name: &str, there: &Group) -> Result<()> {
    let other = there.id().to_string();
    ip(here, &["link", "add", name, "type", "veth", "peer", "name", CABLE, "netns", &other])
}

/// Sets a host's address, and brings its interfaces up.
fn join(host: &Group, address: &str) -> Result<()> {
    ip(host, &["address", "add", address, "dev", CABLE])?;
    ip(host, &["link", "set", "lo", "up"])?;
    ip(host, &["link", "set", CABLE, "up"])
}

fn ip(host: &Group, arguments: &[&str]) -> Result<()> {
    let [nsenter, namespace] = entering(host);
    let output = run_within(WAIT_LIMIT, Command::new(tool(&nsenter)?).arg(namespace).arg(tool("ip")?).args(arguments))?;
    ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Returns the program that runs a command on a host.
fn entering(host: &Group) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net={}", namespace(host))]
}

/// Makes a host: a process that sleeps in a network namespace of its own.
fn host() -> Result<Group> {
    ensure!(getuid().is_root(), Missing("root, which network namespaces need,".to_owned()));
    let mut command = Command::new(tool("unshare")?);
    command.args(["--net", "sh", "-c", "echo here; exec sleep 600"]);
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let stdout = group.capture_stdout()?;
    let is_there = stdout.wait_for(WAIT_LIMIT, |printed| (printed == b"here\n").then_some(()));
    is_there.ok_or_else(|| Missing("the right to make network namespaces".to_owned()))?;
    Ok(group)
}

fn namespace(host: &Group) -> String {
    format!("/proc/{}/ns/net", host.id())
}

fn port(host: usize) -> String {
    format!("port{host}")
}

/// The network interface of a host.
const CABLE: &str = "cable";

const SWITCH: &str = "switch";
