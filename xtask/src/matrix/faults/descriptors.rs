//! Descriptors: too few at the start, and none left while the server runs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{Case, Ctx, acceptors, answered, bare, bystander, case, ending};
use crate::harness::group::run_within;
use crate::harness::process::limit_descriptors;
use crate::harness::{WAIT_LIMIT, expect_one_error, process, tool, wait_for};
use crate::matrix::served;
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    case("no_descriptor_left", no_descriptor_left),
    ending("signals_without_descriptors", signals_without_descriptors),
    bare("too_few_descriptors_at_start", too_few_descriptors_at_start),
    bare("too_few_descriptors_for_loops", too_few_descriptors_for)
        .arguments(&["--loops", "100"])
        .on(|entry| entry.name == "poll"),
    bare("too_few_descriptors_for_processes", too_few_descriptors_for)
        .arguments(&["--processes", "100"])
        .on(|entry| !entry.is_example && entry.is_first_of_package()),
    bare("too_few_descriptors_for_the_default", too_few_descriptors_for_the_default),
];

/// Existing clients are served; new ones wait in the backlog without cost, and are served when descriptors are free.
fn no_descriptor_left(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let lines = || ctx.server.log().lines().filter(|line| line.contains("cannot accept")).count();
    let acceptors = acceptors(ctx.entry, &ctx.server);
    let limits = acceptors.iter().copied().map(|pid| limit_descriptors(pid, Some(0))).collect::<Result<Vec<_>>>()?;
    // A thread that sleeps in accept() has reserved a descriptor for the next client, so it fails at its next tick. A
    // poller fails when a client connects.
    let sleeps_in_accept = matches!(ctx.entry.package, "zen-single" | "zen-threaded");
    let connect = || (0..3).map(|_| ctx.server.asking_client()).collect::<Result<Vec<_>>>();
    let mut waiting = if sleeps_in_accept { Vec::new() } else { connect()? };
    ctx.server.logs("cannot accept")?;
    let logged_before = lines();
    let cpu = ctx.server.cpu_within(LOOK);
    let logged = lines() - logged_before;
    if waiting.is_empty() {
        waiting = connect()?;
    }
    bystander.iter_mut().try_for_each(|client| client.ask_all()).context("an existing client")?;
    for client in &mut waiting {
        client.expect_silence(Duration::from_millis(1)).context("while no client can be accepted")?;
    }
    for (&pid, limit) in acceptors.iter().zip(limits) {
        limit_descriptors(pid, limit)?;
    }
    for mut client in waiting {
        answered(&mut client).context("after descriptors were free")?;
    }
    ensure!(cpu < LOOK / 50, "without descriptors, the server used {cpu:?} of processor time in {LOOK:?}");
    let processes = acceptors.len();
    ensure!(
        logged <= FEW_LINES * processes,
        "{processes} processes logged `cannot accept` {logged} times in {LOOK:?}; {FEW_LINES} each are allowed"
    );
    Ok(())
}

/// Without a free descriptor a server still handles signals, and does not spin: poll(2) fails when it is given more
/// descriptors than the limit allows.
fn signals_without_descriptors(ctx: &mut Ctx) -> Result<()> {
    let client = ctx.client()?; // so that a server with a process for each client has one
    ctx.server.wait_until_asleep(WAIT_LIMIT)?;
    for pid in ctx.server.processes() {
        limit_descriptors(pid, Some(0))?;
        // SIGSTOP and SIGCONT interrupt waits, so that the next wait begins under the new limit.
        process::stop(pid)?;
        process::signal(pid, Signal::CONT)?;
    }
    let cpu = ctx.server.cpu_within(LOOK);
    ensure!(cpu < LOOK / 50, "it used {cpu:?} of processor time in {LOOK:?}");
    ctx.server.signal(Signal::TERM)?;
    drop(client);
    ctx.server.ends_well()
}

/// The server refuses to start, and its error names the limit and the number needed. With that many descriptors as the
/// hard limit, it raises its soft limit, starts, and can serve all its clients.
fn too_few_descriptors_at_start(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(tool("prlimit")?);
    command.arg("--nofile=20:20").arg(workspace::binary(entry.binary)?).args(entry.arguments).args([
        "-p",
        "0",
        "--max-connections",
        CONNECTIONS,
    ]);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    expect_one_error(&output, 1)?;
    let text = String::from_utf8_lossy(&output.stderr);
    let numbers: Vec<u64> = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let needed = *numbers.iter().max().with_context(|| text.to_string())?;
    ensure!(numbers.contains(&20) && needed > 20, "the error does not name the limit 20 and the number needed: {text}");

    let limit = format!("--nofile=20:{needed}");
    served(entry, &["prlimit", &limit], &["--max-connections", CONNECTIONS], false, |ctx| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", ctx.server.pid()))?;
        let raised = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        ensure!(raised == Some(&needed.to_string()), "{needed} are needed, {raised:?} is the limit");
        let before = ctx.server.usage().descriptors;
        drop(super::served_clients(ctx, CONNECTIONS.parse()?).context("as many clients as the limit allows")?);
        let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
        gone.context("descriptors are left open")
    })
}

/// The error names the flag that needs the most descriptors.
fn too_few_descriptors_for(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(tool("prlimit")?);
    command.arg("--nofile=64:64").arg(workspace::binary(entry.binary)?).args(["-p", "0"]).args(arguments);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    let printed = String::from_utf8_lossy(&output.stderr);
    expect_one_error(&output, 1)?;
    ensure!(printed.ends_with(&format!(", or lower {}\n", arguments[0])), "{printed}");
    Ok(())
}

/// Without --max-connections the limit is lowered, with one warning, and as many clients can connect.
fn too_few_descriptors_for_the_default(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    tool("prlimit")?;
    served(entry, &["prlimit", "--nofile=64:64"], &[], false, |ctx| {
        let log = ctx.server.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("[WARN ")).collect();
        if entry.makes_clients_wait() {
            ensure!(warnings.is_empty(), "{warnings:?}");
            return ctx.client()?.ask_all();
        }
        let [warning] = warnings[..] else { bail!("one warning is expected: {log}") };
        let lowered = warning.split_once("--max-connections is ").and_then(|(_, rest)| rest.split_once(": "));
        let lowered = lowered.with_context(|| log.clone())?.0;
        ensure!(
            warning.contains(" 1024 ") && warning.contains("the limit is 64:"),
            "the warning does not name 1024 and the limit 64: {warning}"
        );
        ensure!(log.contains(&format!("at most {lowered} clients at once")), "it logs {log}");
        let most: usize = lowered.parse()?;
        let before = ctx.server.usage().descriptors;
        // One of several processes may accept them all.
        let all = super::served_clients(ctx, most).context("as many clients as the limit allows")?;
        if entry.processes == 1 {
            ctx.client()?.expect(b"Error: too many clients.")?;
        }
        drop(all);
        let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
        gone.context("descriptors are left open")
    })
}

/// `--max-connections`.
const CONNECTIONS: &str = "60";

/// The time for which processor time and log lines are observed.
const LOOK: Duration = Duration::from_secs(1);

/// The maximum number of lines from each process in [`LOOK`]. One a second is promised; the others are a margin.
const FEW_LINES: usize = 3;
