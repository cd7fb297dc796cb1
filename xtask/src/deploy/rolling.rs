//! rolling: three servers behind a real HAProxy are restarted one after the other, each drained.

use anyhow::{Context, Result, ensure};

use super::fixture::part;
use super::haproxy::SERVERS;
use super::service::Service;
use super::visitors::{Behavior, SOME, Visitors};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        Trial::new("deploy::rolling::whoever_tries_again_is_answered", whoever_tries_again_is_answered),
        Trial::new("deploy::rolling::nobody_need_try_again", nobody_need_try_again),
    ])
}

/// The servers alone: SIGTERM drains, and HAProxy learns by its checks, or when it is refused, that one is away.
fn whoever_tries_again_is_answered() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visitors = Visitors::start(service.address, Behavior::MANY)?;
    for (number, name) in SERVERS.iter().enumerate() {
        service.restart(number)?;
        service.balancer.waits_until(name, "UP", WAIT_LIMIT)?;
        visitors.have_answers(SOME)?;
    }
    let counts = visitors.finish()?;
    note(format!("rolling restart, drained by SIGTERM: {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    Ok(())
}

/// HAProxy is told first that a server will go: then nobody is on it when it does.
fn nobody_need_try_again() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visitors = Visitors::start(service.address, Behavior::MANY)?;
    for (number, name) in SERVERS.iter().enumerate() {
        service.balancer.command(&format!("set server zen/{name} state drain"))?;
        let is_empty = || (service.balancer.clients(name).ok()? == 0).then_some(());
        wait_for(WAIT_LIMIT, is_empty).with_context(|| format!("{name} still has clients"))?;
        service.restart(number)?;
        service.balancer.command(&format!("set server zen/{name} state ready"))?;
        service.balancer.waits_until(name, "UP", WAIT_LIMIT)?;
        visitors.have_answers(SOME)?;
    }
    let counts = visitors.finish()?;
    note(format!("rolling restart, drained by HAProxy first: {counts}"));
    ensure!(counts.retried == 0, "{counts}");
    Ok(())
}
