//! balancer: three servers behind a real HAProxy; one dies, one freezes, and nobody who tries again goes without an
//! answer.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::part;
use super::haproxy::{FOUND, replaced};
use super::service::Service;
use super::visitors::{Behavior, SOME, Visitors};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        Trial::new("deploy::balancer::one_killed_one_frozen", one_killed_one_frozen),
        Trial::new("deploy::balancer::connecting_finds_no_frozen_server", connecting_finds_no_frozen_server),
        Trial::new("deploy::balancer::checks_are_not_logged", checks_are_not_logged),
    ])
}

/// One is killed, then another one frozen, so that one is left; then they come back.
fn one_killed_one_frozen() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visitors = Visitors::start(service.address, Behavior::MANY)?;
    visitors.have_answers(SOME)?;
    service.servers[0].signal(Signal::KILL)?;
    let killed = service.balancer.waits_until("a", "DOWN", WAIT_LIMIT)?;
    visitors.have_answers(SOME)?;
    service.servers[1].signal(Signal::STOP)?;
    let frozen = service.balancer.waits_until("b", "DOWN", WAIT_LIMIT)?;
    // Hundreds waited there. They are hung up on, and are answered elsewhere, long before they would leave by
    // themselves.
    visitors.have_left(WAIT_LIMIT / 2)?;
    visitors.have_answers(SOME)?;
    service.servers[1].signal(Signal::CONT)?;
    service.start_again(0)?;
    service.balancer.waits_until("a", "UP", WAIT_LIMIT)?;
    service.balancer.waits_until("b", "UP", WAIT_LIMIT)?;
    visitors.have_answers(SOME)?;
    let counts = visitors.finish()?;
    note(format!("one of three killed (found in {killed:.1?}), then one frozen (in {frozen:.1?}): {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    ensure!(counts.retried > 0, "nobody was at the servers that failed: {counts}");
    Ok(())
}

/// With a check that only connects a frozen server is up for ever, and goes on getting its share.
fn connecting_finds_no_frozen_server() -> Result<()> {
    let asking = "    tcp-check send \"Simple is better than?\"\n    tcp-check expect string complex.\n";
    let service = Service::start(&replaced(&part("haproxy.cfg")?, &[(asking, "")])?)?;
    let visitors = Visitors::start(service.address, Behavior { a_second: 50, timeout: Duration::from_millis(500) })?;
    service.servers[1].signal(Signal::STOP)?;
    thread::sleep(FOUND);
    let before = visitors.counts().stuck;
    wait_for(WAIT_LIMIT, || (visitors.counts().stuck >= before + 20).then_some(()))
        .with_context(|| format!("nobody is sent to the frozen server any more: {}", visitors.counts()))?;
    let state = service.balancer.state("b")?;
    ensure!(state == "UP", "the frozen server is {state}");
    service.servers[1].signal(Signal::CONT)?;
    let counts = visitors.finish()?;
    note(format!("one of three frozen, and a check that only connects: {counts}; it was never found"));
    Ok(())
}

/// Who connects, asks and leaves is a client like any other.
fn checks_are_not_logged() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    // Each is checked twice a second.
    thread::sleep(Duration::from_secs(2));
    let log: Vec<String> = service.servers.iter().map(|server| server.log()).collect();
    for (server, log) in service.servers.iter_mut().zip(log) {
        ensure!(log.lines().count() == 1, "it logs its checks:\n{log}");
        server.stop(WAIT_LIMIT)?;
        // It says how many clients there were.
        let log = server.whole_log();
        let clients = log.lines().find_map(|line| line.split_once("stopped after ")?.1.split(' ').next()?.parse().ok());
        ensure!(clients.is_some_and(|clients: usize| clients >= 3), "{log}");
    }
    Ok(())
}
