//! restart: what dies is started again, at once if it had lived, later and later if not, and not for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use super::fixture::{kill, part};
use super::visitors::{Behavior, SOME, Visitors};
use crate::harness::client::connect;
use crate::harness::group::run_within;
use crate::harness::{Server, WAIT_LIMIT, wait_for};
use crate::servers::{Entry, SERVERS};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    Ok(vec![
        // Alone, as there is a bound on the time without an answer.
        Trial::new("deploy::restart::a_killed_worker_is_replaced", a_killed_worker_is_replaced).alone(),
        Trial::new("deploy::restart::a_crash_loop_backs_off", a_crash_loop_backs_off),
        Trial::new("deploy::restart::a_failure_is_told_from_a_stop", a_failure_is_told_from_a_stop),
    ])
}

/// One of each package.
fn packages() -> impl Iterator<Item = &'static Entry> {
    SERVERS.iter().filter(|entry| entry.is_first_of_package())
}

/// `kill -9` of the only worker: the parent has the listener, so clients wait until the next worker takes them.
fn a_killed_worker_is_replaced() -> Result<()> {
    thread::scope(|scope| {
        let each: Vec<_> = packages().map(|entry| scope.spawn(|| a_worker_of_this_is_replaced(entry))).collect();
        each.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("it panicked"))?)
    })
}

fn a_worker_of_this_is_replaced(entry: &Entry) -> Result<()> {
    let server = Server::start(entry, &["--processes", "1"])?;
    let visitors = Visitors::start(server.address(), Behavior { a_second: 250, ..Behavior::MANY })?;
    // Older than a second: it is no crash loop.
    thread::sleep(Duration::from_millis(1500));
    let worker = *server.workers().first().context("a worker")?;
    kill(worker, Signal::KILL)?;
    let is_new = || server.workers().first().is_some_and(|&now| now != worker).then_some(());
    wait_for(WAIT_LIMIT, is_new).with_context(|| format!("no new worker: {}", server.log()))?;
    visitors.have_answers(SOME)?;
    let counts = visitors.finish()?;
    note(format!("kill -9 of the only worker of {}: {counts}", entry.name));
    ensure!(counts.lost == 0, "{}: {counts}", entry.name);
    ensure!(counts.longest_gap < REPLACED, "{}: {counts}", entry.name);
    Ok(())
}

/// A question that kills, asked again and again: the pauses double, and in the end it is an error, which systemd takes
/// over.
fn a_crash_loop_backs_off() -> Result<()> {
    let entry = packages().find(|entry| entry.name == "poll").context("poll")?;
    let mut server = Server::start(entry, &["--processes", "4", "--abort-on", "Who aborts?"])?;
    let is_over = AtomicBool::new(false);
    let (address, over) = (server.address(), &is_over);
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // Nobody may be there to be asked.
                let asked = connect(address, WAIT_LIMIT);
                drop(asked.and_then(|mut stream| std::io::Write::write_all(&mut stream, b"Who aborts?")));
                thread::sleep(Duration::from_millis(5));
            }
        });
        let status = server.ended_within(2 * WAIT_LIMIT);
        is_over.store(true, Ordering::Relaxed);
        status
    });
    let status = status.context("it starts workers for ever")?;
    let log = server.whole_log();
    ensure!(status.code() == Some(1), "it ended with {status}: {log}");
    let pauses = log.lines().filter_map(|line| line.split_once("the next starts in "));
    let pauses: Vec<&str> = pauses.map(|(_, pause)| pause).collect();
    note(format!("a crash loop of four workers: pauses of {}, then an error", pauses.join(", ")));
    // On a busy machine some may have lived for long enough not to count.
    let grow = pauses.windows(3).any(|three| three == ["100ms", "200ms", "400ms"]);
    ensure!(grow, "the pauses were {pauses:?}");
    let errors = log.lines().filter(|line| line.starts_with("error: ")).count();
    ensure!(errors == 1, "{errors} lines say why it ended: {log}");
    Ok(())
}

/// What `Restart=on-failure` goes by: a stop is a success, also when clients were cut off; everything else is a
/// failure.
fn a_failure_is_told_from_a_stop() -> Result<()> {
    ensure!(part("zen@.service")?.lines().any(|line| line == "Restart=on-failure"), "the unit does not say so");
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

/// Within this somebody is answered again.
const REPLACED: Duration = Duration::from_secs(1);
