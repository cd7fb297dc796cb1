//! Three servers of different kinds, and a real HAProxy before them, all on loopback.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

use super::haproxy::{Balancer, replaced};
use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::{Entry, SERVERS};

pub(super) struct Service {
    /// Where visitors come.
    pub(super) address: SocketAddr,
    pub(super) balancer: Balancer,
    pub(super) servers: Vec<Server>,
}

impl Service {
    /// Starts the servers, and HAProxy with `configuration`, in which only the addresses are replaced.
    pub(super) fn start(configuration: &str) -> Result<Service> {
        let servers =
            (0..3).map(|number| Server::start(entry(number)?, &[HOSTS[number]])).collect::<Result<Vec<_>>>()?;
        let address = free_address(BALANCER)?;
        let local: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
        let own = replaced(
            configuration,
            &[
                ("10.0.0.10:1060", &address.to_string()),
                ("10.0.0.11:1060", &local[0]),
                ("10.0.0.12:1060", &local[1]),
                ("10.0.0.13:1060", &local[2]),
            ],
        )?;
        Ok(Service { address, balancer: Balancer::start(&[], &own)?, servers })
    }

    /// Starts a server that has ended again, where it was.
    pub(super) fn start_again(&mut self, number: usize) -> Result<()> {
        let port = self.servers[number].address().port().to_string();
        self.servers[number] = Server::run(entry(number)?.command()?.args(["-p", &port, HOSTS[number]]))?;
        Ok(())
    }

    /// SIGTERM drains a server, and then it is started again.
    pub(super) fn restart(&mut self, number: usize) -> Result<()> {
        self.servers[number].stop(WAIT_LIMIT)?;
        self.start_again(number)
    }
}

/// One of each kind: whoever asks cannot tell them apart.
pub(super) fn entry(number: usize) -> Result<&'static Entry> {
    let kind = ["poll", "smol", "per-connection"][number];
    SERVERS.iter().find(|entry| entry.name == kind).with_context(|| format!("{kind} is no server"))
}

fn free_address(host: [u8; 4]) -> Result<SocketAddr> {
    Ok(TcpListener::bind((IpAddr::from(host), 0))?.local_addr()?)
}

/// No client calls from these addresses, so that nobody takes the port of a server that is started again.
const BALANCER: [u8; 4] = [127, 0, 0, 10];
const HOSTS: [&str; 3] = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];
