//! Two hosts of our own: private network namespaces with a cable between them, in which the kernel counts resets for this
//! server alone, and which can be cut.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::getuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::capture::Capture;
use super::group::{Group, run_within};
use super::{Missing, PATIENCE, tool};

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
        ensure!(getuid().is_root(), Missing("root, who alone may make network namespaces,".to_owned()));
        let network = Network { servers: host()?, clients: host()? };
        let other = network.clients.id().to_string();
        network.on_host(
            &network.servers,
            &["link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", &other],
        )?;
        for (host, address) in [(&network.servers, "10.0.0.1/30"), (&network.clients, "10.0.0.2/30")] {
            network.on_host(host, &["address", "add", address, "dev", CABLE])?;
            network.on_host(host, &["link", "set", "lo", "up"])?;
            network.on_host(host, &["link", "set", CABLE, "up"])?;
        }
        Ok(network)
    }

    /// What a command runs under, to be on the servers' host.
    pub(crate) fn wrapper(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", namespace(&self.servers))]
    }

    /// Does `work` on the clients' host.
    pub(crate) fn as_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(namespace(&self.clients))?;
        // A thread of its own: it never comes back from there. Those that it starts are there too.
        let there = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| scope.spawn(there).join().map_err(|_| anyhow!("the case panicked"))?)
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

    /// Pulls the cable out: whatever is sent is lost, and neither side hears of it.
    pub(crate) fn cut(&self) -> Result<()> {
        self.on_host(&self.clients, &["link", "set", CABLE, "down"])
    }

    /// Puts it in again.
    pub(crate) fn mend(&self) -> Result<()> {
        self.on_host(&self.clients, &["link", "set", CABLE, "up"])
    }

    fn on_host(&self, host: &Group, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(tool("nsenter")?);
        command.arg(format!("--net={}", namespace(host))).arg(tool("ip")?).args(arguments);
        let output = run_within(PATIENCE, &mut command)?;
        ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// A host is a process that sleeps in a namespace of its own.
fn host() -> Result<Group> {
    let mut command = Command::new(tool("unshare")?);
    command.args(["--net", "sh", "-c", "echo here; exec sleep 600"]);
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
    let is_there = stdout.wait_for(PATIENCE, |said| (said == b"here\n").then_some(()));
    is_there.ok_or_else(|| Missing("the right to make network namespaces".to_owned()))?;
    Ok(group)
}

fn namespace(host: &Group) -> String {
    format!("/proc/{}/ns/net", host.id())
}

/// Both ends are called so.
const CABLE: &str = "cable";
