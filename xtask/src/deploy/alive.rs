//! alive: what a server reports to its service manager. The tests receive it in place of systemd.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::{every, has_workers, is_one_process, on_each};
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::{Server, WAIT_LIMIT, process, wait_for};
use crate::servers::Entry;
use crate::trial::Trial;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        on_each("alive::heartbeats", every, heartbeats),
        on_each("alive::stuck", is_one_process, stuck),
        on_each("alive::many_slow_answers", is_one_process, many_slow_answers),
        on_each("alive::worker_is_stuck", has_workers, worker_is_stuck),
        on_each("alive::worker_never_answers", has_workers, worker_never_answers),
        on_each("alive::unread", every, unread),
        on_each("alive::heartbeats_for_another", Entry::is_first_of_package, heartbeats_for_another),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// READY=1 when clients can connect, WATCHDOG=1 while silent clients take all permits, STOPPING=1 when it drains.
fn heartbeats(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let mut server = manager.start(entry, &["--max-connections", "4"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let silent = server.clients(4)?;
    for _ in 0..HEARTBEATS {
        let received = manager.receives(WAIT_LIMIT).context("with silent clients")?;
        ensure!(received == "WATCHDOG=1", "received {received:?}, expected a heartbeat");
    }
    server.signal(Signal::TERM)?;
    // Heartbeats may still be in the socket.
    let report = wait_for(WAIT_LIMIT, || {
        manager.receives(WAIT_LIMIT).map(|report| (report != "WATCHDOG=1").then_some(report)).transpose()
    });
    let report = report.context("only heartbeats arrive after SIGTERM")??;
    ensure!(report == "STOPPING=1", "received {report:?}, expected STOPPING=1");
    drop(silent);
    server.ends_well()?;
    let others: Vec<String> = manager.rest()?.into_iter().filter(|report| report != "WATCHDOG=1").collect();
    ensure!(others.is_empty(), "after STOPPING=1 it reported {others:?}");
    Ok(())
}

/// A server whose thread works on an answer for longer than the interval reports nothing meanwhile, and reports again
/// afterwards. A server with a process for each client is not stuck, and reports all the time.
fn stuck(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "4s"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    manager.receives(WAIT_LIMIT).context("before the question")?;
    // One stuck thread is enough, except in an executor: any of its threads records the heartbeat, so all must be busy.
    let asking = if entry.package == "zen-async" { 2 * entry.answers_at_once.unwrap_or(1) } else { 1 };
    let mut clients = server.clients(asking)?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    let asked = Instant::now();
    if entry.forks {
        // The answer occupies the client's own process.
        while asked.elapsed() < 2 * INTERVAL {
            let received = manager.receives(INTERVAL + INTERVAL / 2).context("during the answer of a child")?;
            ensure!(received == "WATCHDOG=1", "received {received:?}, expected a heartbeat");
        }
        return Ok(());
    }
    // Heartbeats from before the question may still be in the socket.
    wait_for(4 * INTERVAL, || manager.receives(INTERVAL + INTERVAL / 2).is_err().then_some(()))
        .with_context(|| format!("{:?} after the question it still reports heartbeats", asked.elapsed()))?;
    clients.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1))?;
    let received = manager.receives(WAIT_LIMIT).context("after the answer")?;
    ensure!(received == "WATCHDOG=1", "received {received:?}, expected a heartbeat");
    Ok(())
}

/// A server with many slow answers to one packet is alive, because each answer takes less than the interval.
fn many_slow_answers(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "200ms"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let mut client = server.client()?;
    client.send(&b"?".repeat(40))?;
    for _ in 0..HEARTBEATS {
        let received = manager.receives(3 * INTERVAL).context("while it works on answers")?;
        ensure!(received == "WATCHDOG=1", "received {received:?}, expected a heartbeat");
    }
    Ok(())
}

/// A worker that serves no client is stuck, even if it reports its counters every second.
fn worker_never_answers(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "60s", "--metrics", "0"], &[WATCHDOG])?;
    let before = server.workers();
    let _client = server.asking_client()?;
    server.workers_are(WAIT_LIMIT, |now| now.len() == before.len() && now != before).map(drop)
}

/// A server keeps serving if the service manager does not read its socket.
fn unread(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let other = UnixDatagram::unbound()?;
    other.set_nonblocking(true)?;
    while other.send_to(b"full", manager.folder.path().join(SOCKET)).is_ok() {}
    let mut server = manager.start(entry, &[], &[WATCHDOG])?;
    wait_for(INTERVAL, || None::<()>); // a heartbeat that is not received
    server.client()?.ask_all()?;
    server.stop(WAIT_LIMIT)
}

/// The parent replaces a worker that is silent for the interval, and new clients are served.
fn worker_is_stuck(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &[], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let before = server.workers();
    process::stop(before[0])?;
    server.replaces_first(&before, WAIT_LIMIT)?;
    let others = server.workers().iter().filter(|pid| before.contains(pid)).count();
    ensure!(others == before.len() - 1, "others were replaced too: {before:?}, {:?}", server.workers());
    manager.rest()?;
    for _ in 0..HEARTBEATS {
        let received = manager.receives(WAIT_LIMIT).context("with a new worker")?;
        ensure!(received == "WATCHDOG=1", "received {received:?}, expected a heartbeat");
    }
    (0..2 * before.len()).try_for_each(|_| server.client()?.ask_all())
}

/// A server ignores WATCHDOG_USEC for another process, but reports that it is ready.
fn heartbeats_for_another(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let _server = manager.start(entry, &[], &[WATCHDOG, "WATCHDOG_PID=1"])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let received = manager.receives(2 * INTERVAL);
    ensure!(received.is_err(), "it reported {received:?}");
    Ok(())
}

/// A service manager that starts servers and receives their reports.
struct Manager {
    socket: UnixDatagram,
    folder: Folder,
}

impl Manager {
    fn new() -> Result<Manager> {
        let folder = Folder::new()?;
        Ok(Manager { socket: UnixDatagram::bind(folder.path().join(SOCKET))?, folder })
    }

    fn start(&self, entry: &'static Entry, arguments: &[&str], environment: &[&str]) -> Result<Server> {
        let socket = format!("NOTIFY_SOCKET={}", self.folder.path().join(SOCKET).display());
        let mut wrapper = vec!["env", socket.as_str()];
        wrapper.extend(environment);
        Server::start_under(&wrapper, entry, arguments)
    }

    /// Waits for the next report.
    fn receives(&self, limit: Duration) -> Result<String> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut report = [0; 1024];
        let n = self.socket.recv(&mut report).with_context(|| format!("no report within {limit:?}"))?;
        Ok(str::from_utf8(&report[..n])?.trim_end().to_owned())
    }

    /// Returns all reports that have arrived.
    fn rest(&self) -> Result<Vec<String>> {
        self.socket.set_nonblocking(true)?;
        let mut report = [0; 1024];
        let mut rest = Vec::new();
        while let Ok(n) = self.socket.recv(&mut report) {
            rest.push(str::from_utf8(&report[..n])?.trim_end().to_owned());
        }
        self.socket.set_nonblocking(false)?;
        Ok(rest)
    }
}

const SOCKET: &str = "notify";

/// The watchdog interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval, as systemd passes it.
const WATCHDOG: &str = "WATCHDOG_USEC=1000000";

/// The number of heartbeats that are expected.
const HEARTBEATS: usize = 5;
