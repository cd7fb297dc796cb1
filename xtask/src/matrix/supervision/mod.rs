//! `--processes`: workers that die, stop or never get ready, and the parent that sees to it.

pub(crate) mod workers;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, getuid, kill_process};

use super::faults::served_clients;
use super::{Case, Ctx, bare, ended, lifecycle, served};
use crate::harness::capture::Capture;
use crate::harness::client::Client;
use crate::harness::group::{Group, run_within};
use crate::harness::{Missing, WAIT_LIMIT, process, strace, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    bare("the_parent_is_killed", |entry, _| ends_supervised(entry, &[], the_parent_is_killed)).alone(),
    bare("draining_passes_through", |entry, _| {
        ends_supervised(entry, &["--delay", "20ms"], lifecycle::whoever_asked_is_answered)
    }),
    bare("a_stopped_worker_is_not_waited_for", |entry, _| {
        ends_supervised(entry, &["--grace", "300ms"], a_stopped_worker_is_not_waited_for)
    }),
    // So many that the second round of deaths comes to ten while the first pauses last.
    bare("too_many_deaths", too_many_deaths)
        .arguments(&["--processes", "6"])
        .on(|entry| !entry.is_example && entry.processes == 1),
    bare("ready_when_all_are", ready_when_all_are),
    bare("without_proc", without_proc).on(Entry::is_first_of_package),
];

/// How a server is started with workers: as it is if it has some, else with two.
pub(super) fn supervised(entry: &Entry, arguments: &[&'static str]) -> Vec<&'static str> {
    let two: &[&str] = if entry.processes == 1 { &["--processes", "2"] } else { &[] };
    [two, arguments].concat()
}

/// A case with workers; the verdict follows.
fn serves_supervised(
    entry: &'static Entry,
    arguments: &[&'static str],
    is_alone: bool,
    run: fn(&mut Ctx) -> Result<()>,
) -> Result<()> {
    served(entry, &[], &supervised(entry, arguments), is_alone, run)
}

/// A case with workers that ends them.
fn ends_supervised(entry: &'static Entry, arguments: &[&'static str], run: fn(&mut Ctx) -> Result<()>) -> Result<()> {
    ended(entry, &[], &supervised(entry, arguments), run)
}

/// Sends a signal to one process.
pub(crate) fn send(signal: Signal, pid: i32) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("a process")?, signal).with_context(|| format!("no process {pid}"))
}

/// Whoever waits for the workers to be these many; then they are returned.
pub(super) fn workers_are(ctx: &Ctx, limit: Duration, are: impl Fn(&[i32]) -> bool) -> Result<Vec<i32>> {
    let found = wait_for(limit, || Some(ctx.server.workers()).filter(|workers| are(workers)));
    found.with_context(|| format!("after {limit:?} the workers are {:?}", ctx.server.workers()))
}

/// Nothing of a server outlives its parent, though workers are in the middle of a conversation.
fn the_parent_is_killed(ctx: &mut Ctx) -> Result<()> {
    let clients = served_clients(ctx, 2)?;
    send(Signal::KILL, ctx.server.pid())?;
    let gone = wait_for(REPLACED, || ctx.server.processes().is_empty().then_some(()));
    gone.with_context(|| format!("{REPLACED:?} later there is still {:?}", ctx.server.processes()))?;
    drop(clients);
    let free = wait_for(REPLACED, || TcpListener::bind(ctx.server.address()).ok());
    free.context("the port is not free")?;
    Ok(())
}

/// Its grace is that of all: when it is over the parent ends it.
fn a_stopped_worker_is_not_waited_for(ctx: &mut Ctx) -> Result<()> {
    send(Signal::STOP, ctx.server.workers()[0])?;
    let start = Instant::now();
    ctx.server.signal(Signal::TERM)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it waits for a stopped worker")?;
    ensure!(status.success() && start.elapsed() < 5 * REPLACED, "it ended with {status} after {:?}", start.elapsed());
    let log = ctx.server.whole_log();
    let warned = log.lines().filter(|line| line.contains("[WARN ") && line.contains("--grace is over: 1 ")).count();
    ensure!(warned == 1, "{warned} warnings say that one worker was ended");
    Ok(())
}

/// Each death of a young worker makes the next one wait twice as long; ten in a row are enough.
fn too_many_deaths(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    ended(entry, &[], arguments, |ctx| {
        let start = Instant::now();
        let status = loop {
            for worker in ctx.server.processes().into_iter().filter(|&pid| pid != ctx.server.pid()) {
                // It may be gone already.
                let _ = send(Signal::KILL, worker);
            }
            if let Some(status) = ctx.server.ended_within(Duration::from_millis(5)) {
                break status;
            }
            ensure!(start.elapsed() < 2 * WAIT_LIMIT, "it starts workers for ever");
        };
        ensure!(status.code() == Some(1), "it ended with {status}");
        let log = ctx.server.whole_log();
        let pauses = log.lines().filter_map(|line| line.split_once("the next starts in ")).map(|(_, pause)| pause);
        let pauses: Vec<&str> = pauses.collect();
        // On a busy machine some may have lived for long enough not to count.
        let grow = pauses.windows(3).any(|three| three == ["100ms", "200ms", "400ms"]);
        ensure!(grow, "the pauses were {pauses:?}");
        let lines = log.lines().filter(|line| line.starts_with("error: ")).count();
        ensure!(lines == 1, "{lines} lines say why it ended");
        Ok(())
    })
}

/// One worker is held up before it is ready, and so is the ready line.
fn ready_when_all_are(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    // Every worker ties itself to its parent first: that call is made to take a while.
    let mut command = Command::new(strace()?);
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=prctl", "-e", "inject=prctl:delay_enter=500000:when=1"]);
    command.arg(workspace::binary(entry.binary)?).args(entry.arguments).args(supervised(entry, &["-p", "0"]));
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let workers = if entry.processes == 1 { 2 } else { entry.processes - 1 };
    let are_workers = || Some(process::members(group.id())).map(|all| all.into_iter().filter(is_worker).collect());
    let all = wait_for(WAIT_LIMIT, || are_workers().filter(|all: &Vec<i32>| all.len() == workers));
    let last = *all.context("not all workers are started")?.last().context("a worker")?;
    send(Signal::STOP, last)?;
    let ready = |text: &[u8]| String::from_utf8_lossy(text).matches(" clients at once").count();
    let others = stderr.wait_for(WAIT_LIMIT, |text| (ready(text) >= workers - 1).then_some(()));
    others.with_context(|| format!("the others are not ready: {}", stderr.text()))?;
    let early = stdout.wait_for(Duration::from_millis(300), |text| (!text.is_empty()).then_some(()));
    ensure!(early.is_none(), "ready, while a worker is not: {}", stderr.text());
    send(Signal::CONT, last)?;
    let line =
        stdout.wait_for(WAIT_LIMIT, |text| text.ends_with(b"\n").then(|| String::from_utf8_lossy(text).into_owned()));
    let line = line.context("all are ready, and it does not say so")?;
    let address = line.trim_end().strip_prefix("listening on ").context("a ready line")?.parse()?;
    Client::connect(address)?.ask_all()
}

/// A worker is started from /proc: where there is none, that is what the error says.
fn without_proc(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    ensure!(getuid().is_root(), Missing("root, who alone may hide /proc,".to_owned()));
    let mut command = Command::new(tool("unshare")?);
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
    command.arg(workspace::binary(entry.binary)?).args(["-p", "0", "--processes", "2"]);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    let is_one = errors.len() == 1 && errors[0].contains("mount /proc");
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && is_one, "{}: {said}", output.status);
    Ok(())
}

/// Whether it is a worker already. (A child that is not yet another program looks like its parent, who waits for it.)
fn is_worker(pid: &i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|&b| b == 0).nth(1) == Some(b"--worker"))
}

/// Within this a worker is replaced, or gone with its parent.
pub(super) const REPLACED: Duration = Duration::from_secs(1);
