//! balancer: three servers behind a real HAProxy. One is killed, one is frozen by SIGSTOP, and every client that
//! retries is answered.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::part;
use super::haproxy::{DETECTION_LIMIT, replaced};
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

/// One server is killed and another one frozen by SIGSTOP, so that one is left. Then both serve again.
fn one_killed_one_frozen() -> Result<()> {
    let mut service = Service::start(&part("haproxy.cfg")?)?;
    let visits = Visits::start(service.address, Behavior::MANY)?;
    visits.wait_for_answers(SOME)?;
    service.servers[0].signal(Signal::KILL)?;
    let killed = service.balancer.waits_until("a", "DOWN", WAIT_LIMIT)?;
    visits.wait_for_answers(SOME)?;
    service.servers[1].signal(Signal::STOP)?;
    let frozen = service.balancer.waits_until("b", "DOWN", WAIT_LIMIT)?;
    // Hundreds of clients waited for the frozen server. HAProxy closes their connections, and another server answers
    // them long before their own timeout.
    visits.wait_until_over(WAIT_LIMIT / 2)?;
    visits.wait_for_answers(SOME)?;
    service.servers[1].signal(Signal::CONT)?;
    service.start_again(0)?;
    service.balancer.waits_until("a", "UP", WAIT_LIMIT)?;
    service.balancer.waits_until("b", "UP", WAIT_LIMIT)?;
    visits.wait_for_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("one of three killed (found in {killed:.1?}), then one frozen (in {frozen:.1?}): {counts}"));
    ensure!(counts.lost == 0, "{counts}");
    ensure!(counts.retried > 0, "no client was connected to the servers that failed: {counts}");
    Ok(())
}

/// A check that only connects does not detect a frozen server, which still gets its share of clients.
fn connecting_finds_no_frozen_server() -> Result<()> {
    let asking = "    tcp-check send \"Simple is better than?\"\n    tcp-check expect string complex.\n";
    let service = Service::start(&replaced(&part("haproxy.cfg")?, &[(asking, "")])?)?;
    let visits = Visits::start(service.address, Behavior { per_second: 50, timeout: Duration::from_millis(500) })?;
    service.servers[1].signal(Signal::STOP)?;
    thread::sleep(DETECTION_LIMIT);
    let before = visits.counts().stuck;
    wait_for(WAIT_LIMIT, || (visits.counts().stuck >= before + 20).then_some(()))
        .with_context(|| format!("no client is sent to the frozen server: {}", visits.counts()))?;
    let state = service.balancer.state("b")?;
    ensure!(state == "UP", "the frozen server is {state}");
    service.servers[1].signal(Signal::CONT)?;
    let counts = visits.finish()?;
    note(format!("one of three frozen, and a check that only connects does not detect it: {counts}"));
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
