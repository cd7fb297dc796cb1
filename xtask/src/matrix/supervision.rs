//! `--processes`: workers that die, stop or never get ready, and the parent that replaces them.

pub(crate) mod children;
pub(crate) mod workers;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::faults::served_clients;
use super::{Case, Ctx, bare, ended, lifecycle, served};
use crate::harness::client::Client;
use crate::harness::folder::Folder;
use crate::harness::group::{Group, run_within};
use crate::harness::log::pauses_of_crash_loop;
use crate::harness::{WAIT_LIMIT, process, strace, tool, wait_for, without_proc};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    supervising("the_parent_is_killed", |entry, _| ends_supervised(entry, &[], the_parent_is_killed)).alone(),
    supervising("draining_passes_through", |entry, _| {
        ends_supervised(entry, &["--delay", "20ms"], lifecycle::questions_asked_are_answered)
    }),
    supervising("a_stopped_worker_is_not_waited_for", |entry, _| {
        ends_supervised(entry, &["--grace", "300ms"], a_stopped_worker_is_not_waited_for)
    }),
    // Six workers that are killed at the same time count as six failures, so ten are reached soon.
    bare("too_many_deaths", too_many_deaths)
        .arguments(&["--processes", "6"])
        .on(|entry| !entry.is_example && !entry.forks && entry.processes == 1),
    supervising("ready_when_all_are", ready_when_all_are),
    bare("without_proc", proc_is_hidden).on(Entry::is_first_of_package),
];

/// Makes a case about workers. A server that starts a process for each client has none; `children` is about those.
const fn supervising(name: &'static str, run: fn(&'static Entry, &'static [&'static str]) -> Result<()>) -> Case {
    bare(name, run).on(|entry| !entry.is_example && !entry.forks)
}

/// Returns the arguments of a server with workers: its own if it has some, else `--processes 2`.
pub(super) fn supervised(entry: &Entry, arguments: &[&'static str]) -> Vec<&'static str> {
    let two: &[&str] = if entry.processes == 1 { &["--processes", "2"] } else { &[] };
    [two, arguments].concat()
}

/// Runs a case against a server with workers, then checks the verdict.
fn serves_supervised(
    entry: &'static Entry,
    arguments: &[&'static str],
    is_alone: bool,
    run: fn(&mut Ctx) -> Result<()>,
) -> Result<()> {
    served(entry, &[], &supervised(entry, arguments), is_alone, run)
}

/// Runs a case with workers that ends the server.
fn ends_supervised(entry: &'static Entry, arguments: &[&'static str], run: fn(&mut Ctx) -> Result<()>) -> Result<()> {
    ended(entry, &[], &supervised(entry, arguments), run)
}

/// Returns a further link of this name to a server's binary, and the folder of the link.
pub(super) fn linked(entry: &Entry, name: &str) -> Result<(Folder, PathBuf)> {
    let binary = workspace::binary(entry.binary)?;
    // In the same file system, as a hard link needs.
    let folder = Folder::within(binary.parent().context("a folder")?)?;
    let link = folder.path().join(name);
    fs::hard_link(&binary, &link)?;
    Ok((folder, link))
}

/// Replaces a link to a running binary by a file that is no program.
pub(super) fn replace(folder: &Folder, link: &Path) -> Result<()> {
    Ok(fs::rename(folder.write("new", "no program")?, link)?)
}

/// No process of a server outlives the parent, even if workers are in the middle of a conversation.
fn the_parent_is_killed(ctx: &mut Ctx) -> Result<()> {
    let clients = served_clients(ctx, 2)?;
    ctx.server.signal(Signal::KILL)?;
    let gone = wait_for(REPLACED, || ctx.server.processes().is_empty().then_some(()));
    gone.with_context(|| format!("{REPLACED:?} later there is still {:?}", ctx.server.processes()))?;
    drop(clients);
    let free = wait_for(REPLACED, || TcpListener::bind(ctx.server.address()).ok());
    free.context("the port is not free")?;
    Ok(())
}

/// The grace applies to the whole server: a second after it, the parent kills a worker that has not exited.
fn a_stopped_worker_is_not_waited_for(ctx: &mut Ctx) -> Result<()> {
    process::stop(ctx.server.workers()[0])?;
    let start = Instant::now();
    ctx.server.signal(Signal::TERM)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it waits for a stopped worker")?;
    ensure!(status.success() && start.elapsed() < 5 * REPLACED, "it ended with {status} after {:?}", start.elapsed());
    let log = ctx.server.whole_log();
    let warned = log.lines().filter(|line| line.contains("[WARN ") && line.contains("--grace is over: 1 ")).count();
    ensure!(warned == 1, "{warned} warnings say that one worker was killed, instead of one");
    Ok(())
}

/// Each death of a young worker doubles the pause before the next start; after ten in a row the server gives up.
fn too_many_deaths(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    ended(entry, &[], arguments, |ctx| {
        let start = Instant::now();
        let status = loop {
            for worker in ctx.server.processes().into_iter().filter(|&pid| pid != ctx.server.pid()) {
                // It may have exited already.
                let _ = process::signal(worker, Signal::KILL);
            }
            if let Some(status) = ctx.server.ended_within(Duration::from_millis(5)) {
                break status;
            }
            ensure!(start.elapsed() < 2 * WAIT_LIMIT, "the server does not give up");
        };
        pauses_of_crash_loop(status, &ctx.server.whole_log()).map(drop)
    })
}

/// One worker is delayed before it is ready, and so is the ready line.
fn ready_when_all_are(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    // The first thing that a worker does is to tie itself to its parent: strace makes that call slow.
    let mut command = Command::new(strace()?);
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=prctl", "-e", "inject=prctl:delay_enter=500000:when=1"]);
    command.arg(workspace::binary(entry.binary)?).args(entry.arguments).args(supervised(entry, &["-p", "0"]));
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = group.capture_stdout()?;
    let stderr = group.capture_stderr()?;
    let workers = if entry.processes == 1 { 2 } else { entry.processes - 1 };
    let are_workers = || Some(process::members(group.id())).map(|all| all.into_iter().filter(is_worker).collect());
    let all = wait_for(WAIT_LIMIT, || are_workers().filter(|all: &Vec<i32>| all.len() == workers));
    let last = *all.context("not all workers are started")?.last().context("a worker")?;
    process::signal(last, Signal::STOP)?;
    let ready = |text: &[u8]| String::from_utf8_lossy(text).matches(" clients at once").count();
    let others = stderr.wait_for(WAIT_LIMIT, |text| (ready(text) >= workers - 1).then_some(()));
    others.with_context(|| format!("the others are not ready: {}", stderr.text()))?;
    let early = stdout.wait_for(Duration::from_millis(300), |text| (!text.is_empty()).then_some(()));
    ensure!(early.is_none(), "the ready line was printed although a worker is not ready: {}", stderr.text());
    process::signal(last, Signal::CONT)?;
    let line =
        stdout.wait_for(WAIT_LIMIT, |text| text.ends_with(b"\n").then(|| String::from_utf8_lossy(text).into_owned()));
    let line = line.context("all workers are ready, but there is no ready line")?;
    let address = line.trim_end().strip_prefix("listening on ").context("a ready line")?.parse()?;
    Client::connect(address)?.ask_all()
}

/// A worker is started from /proc; without it, the error says so.
fn proc_is_hidden(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let [unshare, arguments @ ..] = without_proc()?;
    let mut command = Command::new(tool(unshare)?);
    command.args(arguments);
    command.arg(workspace::binary(entry.binary)?).args(["-p", "0", "--processes", "2"]);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
    let is_one = errors.len() == 1 && errors[0].contains("mount /proc");
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && is_one, "{}: {printed}", output.status);
    Ok(())
}

/// Returns whether the process is a worker already. Before it executes its program, a child looks like its parent.
fn is_worker(pid: &i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|&b| b == 0).nth(1) == Some(b"--worker"))
}

/// How long it may take to replace a worker, or to end one whose parent has died.
pub(super) const REPLACED: Duration = Duration::from_secs(1);
