//! hosts: client, balancer and three servers are network namespaces on one switch, with the addresses of `haproxy.cfg`.
//! One link goes down.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Result, ensure};

use super::fixture::part;
use super::haproxy::{Balancer, DETECTION_LIMIT};
use super::service::entry;
use super::visits::{Behavior, SOME, Visits};
use crate::harness::network::Lan;
use crate::harness::{Server, WAIT_LIMIT, tool};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    // Alone, because the time that the checks take has a bound.
    Ok(vec![Trial::new("deploy::hosts::a_link_goes_down", a_link_goes_down).alone()])
}

/// Everything that is sent to the host is lost without an error, so only the checks can detect it.
fn a_link_goes_down() -> Result<()> {
    let lan = Lan::make(&HOSTS.map(|host| format!("{host}/24")).each_ref().map(String::as_str))?;
    let servers = (0..3).map(|number| start(&lan, number)).collect::<Result<Vec<_>>>()?;
    let balancer = Balancer::start(&lan.wrapper(BALANCER), &part("haproxy.cfg")?)?;
    let address: SocketAddr = format!("{}:1060", HOSTS[BALANCER]).parse()?;
    let visits = lan.on(CLIENT, || Visits::start(address, Behavior::MANY))?;
    visits.wait_for_answers(SOME)?;
    lan.unplug(FIRST_SERVER + 1)?;
    let found = balancer.waits_until("b", "DOWN", DETECTION_LIMIT)?;
    visits.wait_for_answers(SOME)?;
    lan.plug(FIRST_SERVER + 1)?;
    let back = balancer.waits_until("b", "UP", WAIT_LIMIT)?;
    visits.wait_for_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("one host of three off the network (found in {found:.1?}, back in {back:.1?}): {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    ensure!(counts.retried > 0, "no client was connected to the host that went down: {counts}");
    drop(servers);
    Ok(())
}

/// Starts a server on its host, where the configuration expects it.
fn start(lan: &Lan, number: usize) -> Result<Server> {
    let host = FIRST_SERVER + number;
    let [nsenter, namespace] = lan.wrapper(host);
    let inner = entry(number)?.command()?;
    let mut command = Command::new(tool(&nsenter)?);
    Server::run(command.arg(namespace).arg(inner.get_program()).args(inner.get_args()).arg(HOSTS[host]))
}

/// The addresses of the client and of the hosts in `haproxy.cfg`.
const HOSTS: [&str; 5] = ["10.0.0.1", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13"];
const CLIENT: usize = 0;
const BALANCER: usize = 1;
const FIRST_SERVER: usize = 2;
