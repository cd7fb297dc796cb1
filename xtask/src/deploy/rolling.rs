//! rolling: three servers behind a real HAProxy are drained and restarted one after the other.

use anyhow::{Context, Result, ensure};

use super::fixture::part;
use super::haproxy::SERVERS;
use super::service::Service;
use super::visits::{Behavior, SOME, Visits};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        Trial::new("deploy::rolling::clients_that_retry_are_answered", clients_that_retry_are_answered).alone(),
        Trial::new("deploy::rolling::no_client_needs_to_retry", no_client_needs_to_retry).alone(),
    ])
}

/// Each server is drained by SIGTERM alone; HAProxy notices by its checks, or when a connection is refused.
fn clients_that_retry_are_answered() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visits = Visits::start(service.address, Behavior::MANY)?;
    for (number, name) in SERVERS.iter().enumerate() {
        service.restart(number)?;
        service.balancer.waits_until(name, "UP", WAIT_LIMIT)?;
        visits.wait_for_answers(SOME)?;
    }
    let counts = visits.finish()?;
    note(format!("rolling restart, drained by SIGTERM: {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    Ok(())
}

/// HAProxy first drains each server, so that no client is connected to it when it stops.
fn no_client_needs_to_retry() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visits = Visits::start(service.address, Behavior::MANY)?;
    for (number, name) in SERVERS.iter().enumerate() {
        service.balancer.command(&format!("set server zen/{name} state drain"))?;
        let is_empty = || (service.balancer.clients(name).ok()? == 0).then_some(());
        wait_for(WAIT_LIMIT, is_empty).with_context(|| format!("{name} still has clients"))?;
        service.restart(number)?;
        service.balancer.command(&format!("set server zen/{name} state ready"))?;
        service.balancer.waits_until(name, "UP", WAIT_LIMIT)?;
        visits.wait_for_answers(SOME)?;
    }
    let counts = visits.finish()?;
    note(format!("rolling restart, drained by HAProxy first: {counts}"));
    ensure!(counts.retried == 0, "{counts}");
    Ok(())
}
