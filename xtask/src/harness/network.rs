//! Hosts of our own: private network namespaces, joined by a cable or a switch, that a test can cut. The kernel of a
//! namespace counts resets for this server alone.

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

/// Two hosts, joined by a cable. They exist until this is dropped.
pub(crate) struct Network {
    servers: Group,
    clients: Group,
}

impl Network {
    /// Makes the hosts and lays the cable.
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

    /// Returns how many connections the servers' kernel has reset: TCPAbortOnClose and TCPAbortOnData.
    pub(crate) fn resets(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/net/netstat", self.servers.id()))?;
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let counters = names.split(' ').zip(values.split(' '));
        let resets = counters.filter(|(name, _)| ["TCPAbortOnClose", "TCPAbortOnData"].contains(name));
        let counts = resets.map(|(_, value)| value.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
        ensure!(counts.len() == 2, "the kernel counts no resets");
        Ok(counts.into_iter().sum())
    }

    /// Pulls the cable out: what is sent is lost, and neither side is told.
    pub(crate) fn cut(&self) -> Result<()> {
        ip(&self.clients, &["link", "set", CABLE, "down"])
    }

    /// Plugs the cable in again.
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
    /// Makes a host with each of the addresses, such as `10.0.0.1/24`, and plugs all into a switch.
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

    /// Pulls a host's cable out of the switch: what is sent to it is lost, and no other host is told.
    pub(crate) fn unplug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "down"])
    }

    /// Plugs a host's cable in again.
    pub(crate) fn plug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "up"])
    }
}

/// Runs `work` on a host without a network: every port of its loopback is free.
pub(crate) fn on_a_host_alone<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
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

/// Lays a cable between two hosts; `name` is its interface on the first.
fn connect(here: &Group, name: &str, there: &Group) -> Result<()> {
    let other = there.id().to_string();
    ip(here, &["link", "add", name, "type", "veth", "peer", "name", CABLE, "netns", &other])
}

/// Gives a host its address, and a loopback.
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
    let is_there = stdout.wait_for(WAIT_LIMIT, |said| (said == b"here\n").then_some(()));
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
