//! Descriptors: too few at the start, and none left while it serves.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{Case, Ctx, answered, asking, bare, bystander, case};
use crate::harness::group::run_within;
use crate::harness::{WAIT_LIMIT, shown, tool, wait_for};
use crate::matrix::served;
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    case("no_descriptor_left", no_descriptor_left).alone(),
    bare("too_few_descriptors_at_start", too_few_descriptors_at_start),
    bare("too_few_descriptors_for_loops", too_few_descriptors_for)
        .arguments(&["--loops", "100"])
        .on(|entry| entry.name == "poll"),
    bare("too_few_descriptors_for_processes", too_few_descriptors_for)
        .arguments(&["--processes", "100"])
        .on(|entry| !entry.is_example && entry.is_first_of_package()),
    bare("too_few_descriptors_for_the_default", too_few_descriptors_for_the_default),
];

/// Those who are here are served on; those who come wait, at no cost; and when there are descriptors again they are
/// served.
fn no_descriptor_left(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let lines = || ctx.server.log().lines().filter(|line| line.contains("cannot accept")).count();
    let limits =
        ctx.server.workers().into_iter().map(|pid| limit_descriptors(pid, Some(0))).collect::<Result<Vec<_>>>()?;
    // A thread that sleeps in accept() has a descriptor for the next client already, and notices at its next tick; one
    // that waits for readiness when somebody comes.
    let sleeps_in_accept = matches!(ctx.entry.package, "zen-single" | "zen-threaded");
    let come = || (0..3).map(|_| asking(ctx)).collect::<Result<Vec<_>>>();
    let mut waiting = if sleeps_in_accept { Vec::new() } else { come()? };
    let complaint = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains("cannot accept").then_some(()));
    complaint.context("the log says nothing")?;
    let (cpu, said) = (ctx.server.usage().cpu, lines());
    thread::sleep(LOOK);
    let (cpu, said) = (ctx.server.usage().cpu.saturating_sub(cpu), lines() - said);
    if waiting.is_empty() {
        waiting = come()?;
    }
    bystander.iter_mut().try_for_each(|client| client.ask_all()).context("one who is here")?;
    for client in &mut waiting {
        client.expect_silence(Duration::from_millis(1)).context("nobody can be accepted")?;
    }
    for (pid, limit) in ctx.server.workers().into_iter().zip(limits) {
        limit_descriptors(pid, limit)?;
    }
    for mut client in waiting {
        answered(&mut client).context("there are descriptors again")?;
    }
    ensure!(cpu < LOOK / 50, "it used {cpu:?} of processor in {LOOK:?}");
    let processes = ctx.server.workers().len();
    ensure!(said <= FEW_LINES * processes, "{said} lines of {processes} processes in {LOOK:?}");
    Ok(())
}

/// The start is refused with both numbers; with as many as it named it starts, having raised the limit, and they are
/// enough.
fn too_few_descriptors_at_start(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(tool("prlimit")?);
    command.arg("--nofile=20:20").arg(workspace::binary(entry.binary)?).args(entry.arguments).args([
        "-p",
        "0",
        "--max-connections",
        PLACES,
    ]);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    let is_line = output.stderr.starts_with(b"error: ") && output.stderr.iter().filter(|&&b| b == b'\n').count() == 1;
    let seen = format!("{}, stdout {}, stderr {}", output.status, shown(&output.stdout), shown(&output.stderr));
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && is_line, "{seen}");
    let text = String::from_utf8_lossy(&output.stderr);
    let numbers: Vec<u64> = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let needed = *numbers.iter().max().with_context(|| seen.clone())?;
    ensure!(numbers.contains(&20) && needed > 20, "not both numbers: {seen}");

    let limit = format!("--nofile=20:{needed}");
    served(entry, &["prlimit", &limit], &["--max-connections", PLACES], false, |ctx| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", ctx.server.pid()))?;
        let raised = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        ensure!(raised == Some(&needed.to_string()), "{needed} are needed, {raised:?} is the limit");
        let before = ctx.server.usage().descriptors;
        drop(super::served_clients(ctx, PLACES.parse()?).context("as many as there are places for")?);
        let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
        gone.context("descriptors are left open")
    })
}

/// The error names the flag that takes most of them.
fn too_few_descriptors_for(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(tool("prlimit")?);
    command.arg("--nofile=64:64").arg(workspace::binary(entry.binary)?).args(["-p", "0"]).args(arguments);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_named = said.starts_with("error: ") && said.ends_with(&format!(", or lower {}\n", arguments[0]));
    let seen = format!("{}, stdout {}, stderr {said}", output.status, shown(&output.stdout));
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && is_named, "{seen}");
    Ok(())
}

/// Without --max-connections fewer clients are served, with one warning; and they all can be had.
fn too_few_descriptors_for_the_default(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    tool("prlimit")?;
    served(entry, &["prlimit", "--nofile=64:64"], &[], false, |ctx| {
        let log = ctx.server.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN ")).collect();
        if entry.makes_wait() {
            ensure!(warnings.is_empty(), "{warnings:?}");
            return ctx.client()?.ask_all();
        }
        let [warning] = warnings[..] else { bail!("one warning is expected: {log}") };
        let lowered = warning.split_once("--max-connections is ").and_then(|(_, rest)| rest.split_once(": "));
        let lowered = lowered.with_context(|| log.clone())?.0;
        ensure!(warning.contains(" 1024 ") && warning.contains("the limit is 64:"), "not both numbers: {warning}");
        ensure!(log.contains(&format!("at most {lowered} clients at once")), "it says {log}");
        let most: usize = lowered.parse()?;
        let before = ctx.server.usage().descriptors;
        // One of several processes may take them all.
        let all = super::served_clients(ctx, most).context("as many as there are places for")?;
        if entry.processes == 1 {
            ctx.client()?.expect(b"Error: too many clients.")?;
        }
        drop(all);
        let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
        gone.context("descriptors are left open")
    })
}

/// Changes a process's limit of descriptors; the one it had.
fn limit_descriptors(pid: i32, current: Option<u64>) -> Result<Option<u64>> {
    // The upper one is ours too: it is inherited, and nobody changes it.
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    Ok(prlimit(Pid::from_raw(pid), Resource::Nofile, limit)?.current)
}

/// `--max-connections`.
const PLACES: &str = "60";

/// How long it is watched.
const LOOK: Duration = Duration::from_secs(1);

/// One is promised in a second, of each process.
const FEW_LINES: usize = 3;
