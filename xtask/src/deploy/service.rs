//! Three servers of different kinds and a real HAProxy in front of them, all on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::haproxy::{Balancer, replaced};
use crate::harness::{Server, WAIT_LIMIT, free_address_on};
use crate::servers::{self, Entry};

/// A balancer and its servers, killed on drop.
pub(super) struct Service {
    /// The address of the service.
    pub(super) address: SocketAddr,
    pub(super) balancer: Balancer,
    pub(super) servers: Vec<Server>,
}

impl Service {
    /// Starts the servers, and HAProxy with `configuration`, in which only the addresses are replaced.
    pub(super) fn start(configuration: &str) -> Result<Service> {
        let servers =
            (0..3).map(|number| Server::start(entry(number)?, &[HOSTS[number]])).collect::<Result<Vec<_>>>()?;
        let address = free_address_on(BALANCER)?;
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

    /// Starts a stopped server again at the same address.
    pub(super) fn start_again(&mut self, number: usize) -> Result<()> {
        let port = self.servers[number].address().port().to_string();
        self.servers[number] = Server::run(entry(number)?.command()?.args(["-p", &port, HOSTS[number]]))?;
        Ok(())
    }

    /// Drains a server with SIGTERM and starts it again.
    pub(super) fn restart(&mut self, number: usize) -> Result<()> {
        self.servers[number].stop(WAIT_LIMIT)?;
        self.start_again(number)
    }
}

/// Returns which architecture each of the three servers has. Clients cannot tell them apart.
pub(super) fn entry(number: usize) -> Result<&'static Entry> {
    servers::named(["poll", "smol", "per-connection"][number])
}

/// Addresses from which no client connects, so that no connection takes the port of a server that is started again.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
const HOSTS: [&str; 3] = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];
