//! Hosts of our own, private network namespaces: two with a cable between them, in which the kernel counts resets for
//! this server alone, and which can be cut; or several on a switch, each of which can be unplugged.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::getuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::capture::Capture;
use super::group::{Group, run_within};
use super::{Missing, WAIT_LIMIT, tool};

/// Where a server listens in it.
pub(crate) const HOST: &str = "10.0.0.1";

/// The two hosts, which live as long as this.
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

    /// What a command runs under, to be on the servers' host.
    pub(crate) fn wrapper(&self) -> [String; 2] {
        entering(&self.servers)
    }

    /// Does `work` on the clients' host.
    pub(crate) fn as_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on(&self.clients, work)
    }

    /// How many connections the servers' kernel has reset: TCPAbortOnClose and TCPAbortOnData.
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

    /// Pulls the cable out: whatever is sent is lost, and neither side receives of it.
    pub(crate) fn cut(&self) -> Result<()> {
        ip(&self.clients, &["link", "set", CABLE, "down"])
    }

    /// Puts it in again.
    pub(crate) fn mend(&self) -> Result<()> {
        ip(&self.clients, &["link", "set", CABLE, "up"])
    }
}

/// Several hosts on a switch, which live as long as this.
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

    /// What a command runs under, to be on a host.
    pub(crate) fn wrapper(&self, host: usize) -> [String; 2] {
        entering(&self.hosts[host])
    }

    /// Does `work` on a host.
    pub(crate) fn on<T: Send>(&self, host: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on(&self.hosts[host], work)
    }

    /// Pulls a host's cable out of the switch: whatever is sent to it is lost, and nobody else receives of it.
    pub(crate) fn unplug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "down"])
    }

    /// Puts it in again.
    pub(crate) fn plug(&self, host: usize) -> Result<()> {
        ip(&self.switch, &["link", "set", &port(host), "up"])
    }
}

/// Does `work` on a host that knows nobody but itself: every port of its loopback is free.
pub(crate) fn on_a_host_alone<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let host = host()?;
    ip(&host, &["link", "set", "lo", "up"])?;
    on(&host, work)
}

/// Does `work` on a host.
fn on<T: Send>(host: &Group, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(namespace(host))?;
    // A thread of its own: it never comes back from there. Those that it starts are there too.
    let there = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(there).join().map_err(|_| anyhow!("the case panicked"))?)
}

/// Lays a cable between two hosts, whose end here has a name.
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

/// What a command runs under, to be on a host.
fn entering(host: &Group) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net={}", namespace(host))]
}

/// A host is a process that sleeps in a namespace of its own.
fn host() -> Result<Group> {
    ensure!(getuid().is_root(), Missing("root, who alone may make network namespaces,".to_owned()));
    let mut command = Command::new(tool("unshare")?);
    command.args(["--net", "sh", "-c", "echo here; exec sleep 600"]);
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
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

/// A host calls it so.
const CABLE: &str = "cable";

const SWITCH: &str = "switch";
