//! restart: a process that dies is replaced immediately if it ran long enough, else after growing pauses, and only a
//! limited number of times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use super::fixture::part;
use super::visits::{Behavior, SOME, Visits};
use crate::harness::client::connect;
use crate::harness::group::run_within;
use crate::harness::log::pauses_of_crash_loop;
use crate::harness::{Server, WAIT_LIMIT, process, wait_for};
use crate::servers::{self, Entry, SERVERS};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        // Alone, because the time without an answer has a bound.
        Trial::new("deploy::restart::a_killed_worker_is_replaced", a_killed_worker_is_replaced).alone(),
        Trial::new("deploy::restart::a_crash_loop_backs_off", a_crash_loop_backs_off),
        Trial::new("deploy::restart::a_failure_is_told_from_a_stop", a_failure_is_told_from_a_stop),
    ])
}

/// Returns one server of each package.
fn packages() -> impl Iterator<Item = &'static Entry> {
    SERVERS.iter().filter(|entry| entry.is_first_of_package())
}

/// The only worker is killed. The parent has the listener, so clients wait until the next worker accepts them.
fn a_killed_worker_is_replaced() -> Result<()> {
    thread::scope(|scope| {
        let each: Vec<_> = packages().map(|entry| scope.spawn(|| a_worker_of_this_is_replaced(entry))).collect();
        each.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("it panicked"))?)
    })
}

fn a_worker_of_this_is_replaced(entry: &Entry) -> Result<()> {
    let server = Server::start(entry, &["--processes", "1"])?;
    let visits = Visits::start(server.address(), Behavior { per_second: 250, ..Behavior::MANY })?;
    // A worker that has run for more than a second is replaced without a pause.
    thread::sleep(Duration::from_millis(1500));
    let worker = *server.workers().first().context("a worker")?;
    process::signal(worker, Signal::KILL)?;
    let is_new = || server.workers().first().is_some_and(|&now| now != worker).then_some(());
    wait_for(WAIT_LIMIT, is_new).with_context(|| format!("no new worker: {}", server.log()))?;
    visits.wait_for_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("kill -9 of the only worker of {}: {counts}", entry.name));
    ensure!(counts.lost == 0, "{}: {counts}", entry.name);
    ensure!(counts.longest_gap < LONGEST_GAP, "{}: {counts}", entry.name);
    Ok(())
}

/// A question that aborts its worker is asked again and again. The pauses double, and in the end the server exits with
/// an error, so that systemd restarts it.
fn a_crash_loop_backs_off() -> Result<()> {
    let entry = servers::named("poll")?;
    let mut server = Server::start(entry, &["--processes", "4", "--abort-on", "Who aborts?"])?;
    let is_over = AtomicBool::new(false);
    let (address, over) = (server.address(), &is_over);
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // There may be no worker at the moment.
                let asked = connect(address, WAIT_LIMIT);
                drop(asked.and_then(|mut stream| std::io::Write::write_all(&mut stream, b"Who aborts?")));
                thread::sleep(Duration::from_millis(5));
            }
        });
        let status = server.ended_within(2 * WAIT_LIMIT);
        is_over.store(true, Ordering::Relaxed);
        status
    });
    let status = status.context("the server does not exit in a crash loop")?;
    let log = server.whole_log();
    let pauses = pauses_of_crash_loop(status, &log)?;
    note(format!("a crash loop of four workers: pauses of {}, then an error", pauses.join(", ")));
    Ok(())
}

/// `Restart=on-failure` depends on the exit status. A stop by SIGTERM is a success, even if clients are disconnected; a
/// port in use, SIGKILL and a wrong option are failures.
fn a_failure_is_told_from_a_stop() -> Result<()> {
    let unit = part("zen@.service")?;
    ensure!(unit.lines().any(|line| line == "Restart=on-failure"), "the unit has no Restart=on-failure");
    for entry in packages() {
        let mut server = Server::start(entry, &["--grace", "0"])?;
        let port = server.address().port().to_string();
        let second = run_within(WAIT_LIMIT, entry.command()?.args(["-p", &port]))?;
        ensure!(second.status.code() == Some(1), "{}, its port taken: {}", entry.name, second.status);
        let client = server.client()?;
        server.stop(WAIT_LIMIT)?;
        drop(client);
        let server = &mut Server::start(entry, &[])?;
        server.signal(Signal::KILL)?;
        let status = server.ended_within(WAIT_LIMIT).context("SIGKILL does not end it")?;
        ensure!(!status.success(), "{}, killed: {status}", entry.name);
        let wrong = run_within(WAIT_LIMIT, entry.command()?.arg("--no-such-option"))?;
        ensure!(wrong.status.code() == Some(2), "{}, a wrong option: {}", entry.name, wrong.status);
    }
    Ok(())
}

/// The longest time without an answer.
const LONGEST_GAP: Duration = Duration::from_secs(1);
