//! balancer: three servers behind a real HAProxy. One dies, one freezes, and every client that tries again is answered.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::part;
use super::haproxy::{FOUND, replaced};
use super::service::Service;
use super::visits::{Behavior, SOME, Visits};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        Trial::new("deploy::balancer::one_killed_one_frozen", one_killed_one_frozen).alone(),
        Trial::new("deploy::balancer::connecting_finds_no_frozen_server", connecting_finds_no_frozen_server),
        Trial::new("deploy::balancer::checks_are_not_logged", checks_are_not_logged),
    ])
}

/// One server is killed, then another one frozen, so that one is left; then both are back.
fn one_killed_one_frozen() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visits = Visits::start(service.address, Behavior::MANY)?;
    visits.have_answers(SOME)?;
    service.servers[0].signal(Signal::KILL)?;
    let killed = service.balancer.waits_until("a", "DOWN", WAIT_LIMIT)?;
    visits.have_answers(SOME)?;
    service.servers[1].signal(Signal::STOP)?;
    let frozen = service.balancer.waits_until("b", "DOWN", WAIT_LIMIT)?;
    // Hundreds of clients waited there. HAProxy closes their connections, and they are answered by another server, long
    // before their own timeout.
    visits.are_over(WAIT_LIMIT / 2)?;
    visits.have_answers(SOME)?;
    service.servers[1].signal(Signal::CONT)?;
    service.start_again(0)?;
    service.balancer.waits_until("a", "UP", WAIT_LIMIT)?;
    service.balancer.waits_until("b", "UP", WAIT_LIMIT)?;
    visits.have_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("one of three killed (found in {killed:.1?}), then one frozen (in {frozen:.1?}): {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    ensure!(counts.retried > 0, "no client was at the servers that failed: {counts}");
    Ok(())
}

/// A check that only connects never finds a frozen server, which goes on getting its share of clients.
fn connecting_finds_no_frozen_server() -> Result<()> {
    let asking = "    tcp-check send \"Simple is better than?\"\n    tcp-check expect string complex.\n";
    let service = Service::start(&replaced(&part("haproxy.cfg")?, &[(asking, "")])?)?;
    let visits = Visits::start(service.address, Behavior { per_second: 50, timeout: Duration::from_millis(500) })?;
    service.servers[1].signal(Signal::STOP)?;
    thread::sleep(FOUND);
    let before = visits.counts().stuck;
    wait_for(WAIT_LIMIT, || (visits.counts().stuck >= before + 20).then_some(()))
        .with_context(|| format!("no client is sent to the frozen server: {}", visits.counts()))?;
    let state = service.balancer.state("b")?;
    ensure!(state == "UP", "the frozen server is {state}");
    service.servers[1].signal(Signal::CONT)?;
    let counts = visits.finish()?;
    note(format!("one of three frozen, and a check that only connects: {counts}; it was not found"));
    Ok(())
}

/// A check that connects, asks and closes leaves no line in the log.
fn checks_are_not_logged() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    // Each is checked twice a second.
    thread::sleep(Duration::from_secs(2));
    let log: Vec<String> = service.servers.iter().map(|server| server.log()).collect();
    for (server, log) in service.servers.iter_mut().zip(log) {
        ensure!(log.lines().count() == 1, "it logs its checks:\n{log}");
        server.stop(WAIT_LIMIT)?;
        // The last line counts the clients.
        let log = server.whole_log();
        let clients = log.lines().find_map(|line| line.split_once("stopped after ")?.1.split(' ').next()?.parse().ok());
        ensure!(clients.is_some_and(|clients: usize| clients >= 3), "{log}");
    }
    Ok(())
}
