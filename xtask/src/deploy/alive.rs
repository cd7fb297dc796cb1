//! ready, alive: what a service manager is told, by a fake one that writes it all down.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::{every, has_workers, is_one_process, kill, on_each};
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::{Server, WAIT_LIMIT, process, wait_for};
use crate::servers::Entry;
use crate::trial::Trial;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        on_each("alive::beats", every, beats),
        on_each("alive::stuck", is_one_process, stuck),
        on_each("alive::many_thoughts", is_one_process, many_thoughts),
        on_each("alive::worker_is_stuck", has_workers, worker_is_stuck),
        on_each("alive::worker_thinks_for_ever", has_workers, worker_thinks_for_ever),
        on_each("alive::unread", every, unread),
        on_each("alive::beats_of_another", Entry::is_first_of_package, beats_of_another),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// READY=1 once it can be connected to, WATCHDOG=1 while silent clients take every place, STOPPING=1 when it drains.
fn beats(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let mut server = manager.start(entry, &["--max-connections", "4"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let silent = (0..4).map(|_| server.client()).collect::<Result<Vec<_>>>()?;
    for _ in 0..BEATS {
        let received = manager.receives(WAIT_LIMIT).context("with silent clients")?;
        ensure!(received == "WATCHDOG=1", "{received:?}, not a heartbeat");
    }
    server.signal(Signal::TERM)?;
    // Beats may be on their way still.
    let told = wait_for(WAIT_LIMIT, || {
        manager.receives(WAIT_LIMIT).map(|told| (told != "WATCHDOG=1").then_some(told)).transpose()
    });
    let told = told.context("it does not stop")??;
    ensure!(told == "STOPPING=1", "{told:?}, not that it stops");
    drop(silent);
    let status = server.ended_within(WAIT_LIMIT).context("still there after SIGTERM")?;
    ensure!(status.success(), "it ended with {status}");
    let others: Vec<String> = manager.rest()?.into_iter().filter(|told| told != "WATCHDOG=1").collect();
    ensure!(others.is_empty(), "after STOPPING=1 it told {others:?}");
    Ok(())
}

/// Who thinks longer than the interval says nothing meanwhile, and is there again afterwards.
fn stuck(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "4s"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    manager.receives(WAIT_LIMIT).context("before it thinks")?;
    // One thread that is stuck is enough; but a coroutine beats from whichever thread is free: there, all must think.
    let asking = if entry.package == "zen-async" { 2 * entry.answers_at_once.unwrap_or(1) } else { 1 };
    let mut clients = (0..asking).map(|_| server.client()).collect::<Result<Vec<_>>>()?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    let asked = Instant::now();
    // What it has said before it began to think is on its way.
    wait_for(4 * INTERVAL, || manager.receives(INTERVAL + INTERVAL / 2).is_err().then_some(()))
        .with_context(|| format!("{:?} after the question it is still said to be alive", asked.elapsed()))?;
    clients.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1))?;
    let received = manager.receives(WAIT_LIMIT).context("after it has thought")?;
    ensure!(received == "WATCHDOG=1", "{received:?}, not a heartbeat");
    Ok(())
}

/// Thoughts that are short are no reason to be taken for stuck, though there are many in one packet.
fn many_thoughts(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "200ms"], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let mut client = server.client()?;
    client.send(&b"?".repeat(40))?;
    for _ in 0..BEATS {
        let received = manager.receives(3 * INTERVAL).context("while it thinks again and again")?;
        ensure!(received == "WATCHDOG=1", "{received:?}, not a heartbeat");
    }
    Ok(())
}

/// A worker that tells its figures every second is stuck all the same, if it serves nobody.
fn worker_thinks_for_ever(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &["--delay", "60s", "--metrics", "0"], &[WATCHDOG])?;
    let before = server.workers();
    let mut client = server.client()?;
    client.send(APHORISMS[0].0)?;
    let is_replaced = |now: &[i32]| now.len() == before.len() && now != before;
    wait_for(WAIT_LIMIT, || is_replaced(&server.workers()).then_some(())).context("the worker is not replaced")?;
    Ok(())
}

/// A manager that does not read stops nobody.
fn unread(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let other = UnixDatagram::unbound()?;
    other.set_nonblocking(true)?;
    while other.send_to(b"full", manager.folder.path().join(SOCKET)).is_ok() {}
    let mut server = manager.start(entry, &[], &[WATCHDOG])?;
    wait_for(INTERVAL, || None::<()>); // a heartbeat, which nobody receives
    server.client()?.ask_all()?;
    server.stop(WAIT_LIMIT)
}

/// The parent goes on, and replaces a worker that is silent for the interval; whoever comes then is served.
fn worker_is_stuck(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let server = manager.start(entry, &[], &[WATCHDOG])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let before = server.workers();
    kill(before[0], Signal::STOP)?;
    wait_for(WAIT_LIMIT, || process::is_stopped(before[0]).then_some(())).context("it does not stop")?;
    let is_replaced = |now: &[i32]| now.len() == before.len() && !now.contains(&before[0]);
    wait_for(WAIT_LIMIT, || is_replaced(&server.workers()).then_some(())).context("the worker is not replaced")?;
    let others = server.workers().iter().filter(|pid| before.contains(pid)).count();
    ensure!(others == before.len() - 1, "others were replaced, too: {before:?}, {:?}", server.workers());
    manager.rest()?;
    for _ in 0..BEATS {
        let received = manager.receives(WAIT_LIMIT).context("with a new worker")?;
        ensure!(received == "WATCHDOG=1", "{received:?}, not a heartbeat");
    }
    (0..2 * before.len()).try_for_each(|_| server.client()?.ask_all())
}

/// The heartbeat that another process is asked for is none of its business; that it is ready, is.
fn beats_of_another(entry: &'static Entry) -> Result<()> {
    let manager = Manager::new()?;
    let _server = manager.start(entry, &[], &[WATCHDOG, "WATCHDOG_PID=1"])?;
    ensure!(manager.receives(WAIT_LIMIT)? == "READY=1", "it does not begin with READY=1");
    let received = manager.receives(2 * INTERVAL);
    ensure!(received.is_err(), "it said {received:?}");
    Ok(())
}

/// A service manager that starts servers and listens to them.
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

    /// The next thing that is said.
    fn receives(&self, limit: Duration) -> Result<String> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut told = [0; 1024];
        let n = self.socket.recv(&mut told).with_context(|| format!("nothing is said for {limit:?}"))?;
        Ok(str::from_utf8(&told[..n])?.trim_end().to_owned())
    }

    /// All that is said already.
    fn rest(&self) -> Result<Vec<String>> {
        self.socket.set_nonblocking(true)?;
        let mut told = [0; 1024];
        let mut rest = Vec::new();
        while let Ok(n) = self.socket.recv(&mut told) {
            rest.push(str::from_utf8(&told[..n])?.trim_end().to_owned());
        }
        self.socket.set_nonblocking(false)?;
        Ok(rest)
    }
}

const SOCKET: &str = "notify";

const INTERVAL: Duration = Duration::from_secs(1);

/// The same as systemd tells it.
const WATCHDOG: &str = "WATCHDOG_USEC=1000000";

/// Enough to see that they go on.
const BEATS: usize = 5;
