//! The ends that wait for nobody: a second signal, and the end of the grace.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::{Case, Ctx, begin_drain, ending, ends_well};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{WAIT_LIMIT, wait_for};

pub(crate) const CASES: &[Case] = &[
    ending("sigterm_twice", |ctx| two_signals(ctx, Signal::TERM, Signal::TERM)).arguments(&["--delay", "60s"]),
    // These take all the processors they can get.
    ending("sigint_twice", |ctx| two_signals(ctx, Signal::INT, Signal::INT)).arguments(&["--burn", "60s"]).alone(),
    ending("sigint_then_sigterm", |ctx| two_signals(ctx, Signal::INT, Signal::TERM)).arguments(&["--delay", "60s"]),
    ending("grace_over_while_sleeping", grace_over_while_thinking)
        .arguments(&["--delay", "60s", "--grace", "300ms", "-v"]),
    ending("grace_over_while_awaiting", grace_over_while_thinking)
        .arguments(&["--delay", "60s", "--await", "--grace", "300ms", "-v"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("grace_over_while_burning", grace_over_while_thinking)
        .arguments(&["--burn", "60s", "--grace", "300ms", "-v"])
        .alone(),
    ending("grace_over_for_never_readers", |ctx| grace_over_for_never_readers(ctx).map(drop))
        .arguments(&["--grace", "300ms"]),
    ending("no_grace", no_grace).arguments(&["--delay", "60s", "--grace", "0", "-v"]),
];

/// The second one ends it at once, with its number in the status, though somebody is still thinking.
fn two_signals(ctx: &mut Ctx, first: Signal, second: Signal) -> Result<()> {
    let mut client = ctx.client()?;
    client.send(APHORISMS[0].0)?;
    begin_drain(ctx, first)?;
    let start = Instant::now();
    ctx.server.signal(second)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it is still there")?;
    ensure!(status.code() == Some(128 + second.as_raw()), "it ended with {status}");
    ensure!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    Ok(())
}

/// The thread that takes the signals ends it, though all others think.
fn grace_over_while_thinking(ctx: &mut Ctx) -> Result<()> {
    let mut clients = thinking(ctx)?;
    let start = Instant::now();
    begin_drain(ctx, Signal::TERM)?;
    clients.iter_mut().try_for_each(Client::expect_reset)?;
    is_over(ctx, start, clients.len())
}

/// They would be waited for much longer otherwise. How many were reset.
pub(crate) fn grace_over_for_never_readers(ctx: &mut Ctx) -> Result<u64> {
    let clients = never_readers(ctx, 4)?;
    let start = Instant::now();
    begin_drain(ctx, Signal::TERM)?;
    clients.iter().try_for_each(is_reset)?;
    is_over(ctx, start, clients.len())?;
    Ok(clients.len() as u64)
}

fn no_grace(ctx: &mut Ctx) -> Result<()> {
    let mut clients = thinking(ctx)?;
    ctx.server.signal(Signal::TERM)?;
    clients.iter_mut().try_for_each(Client::expect_reset)?;
    ends_well(ctx)?;
    counts(ctx, clients.len())
}

/// It has waited for as long as it was told and not much longer; nobody is forgotten in the log.
fn is_over(ctx: &mut Ctx, start: Instant, cut: usize) -> Result<()> {
    ends_well(ctx)?;
    let took = start.elapsed();
    ensure!(GRACE <= took && took < SOON, "its grace is {GRACE:?}, it took {took:?}");
    counts(ctx, cut)
}

/// One warning of each process that cut somebody says how many: `--grace is over: 3 clients are reset`.
fn counts(ctx: &Ctx, cut: usize) -> Result<()> {
    let count = |line: &str| {
        let count = line.split_once("--grace is over: ")?.1.strip_suffix(" clients are reset")?;
        count.parse::<usize>().ok()
    };
    let log = ctx.server.whole_log();
    let counted: Vec<usize> =
        log.lines().filter(|line| line.contains("[WARN ")).filter_map(count).filter(|&n| n > 0).collect();
    ensure!(counted.iter().sum::<usize>() == cut, "{cut} clients were cut off, the warnings say {counted:?}");
    ensure!(counted.len() <= ctx.entry.processes, "more than one warning of a process: {counted:?}");
    Ok(())
}

/// Clients that have been accepted and then asked, so that every thread has something to think about.
fn thinking(ctx: &Ctx) -> Result<Vec<Client>> {
    let has_come = |log: &str| log.lines().filter(|line| line.ends_with(" accepted")).count();
    let mut clients = (0..ctx.entry.at_once.unwrap_or(4)).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    let have_come = ctx.server.wait_for_log(WAIT_LIMIT, |log| (has_come(log) == clients.len()).then_some(()));
    have_come.context("not all are accepted")?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    Ok(clients)
}

/// Clients to whom so much is owed that the network has no room for it, and who do not read.
pub(crate) fn never_readers(ctx: &Ctx, count: usize) -> Result<Vec<Client>> {
    let count = served_clients(ctx, count)?.len();
    let never_reader = |_| {
        let mut client = Client::connect_with_buffer(ctx.server.address(), 4096)?;
        client.send(b"Simple is better than?")?;
        client.expect(b"complex.").context("before it stops reading")?;
        client.send(&[b'?'; UNREAD])?;
        // Answers have come as far as here.
        wait_for(WAIT_LIMIT, || client.stream().peek(&mut [0]).ok()).context("no answer comes")?;
        Ok(client)
    };
    let clients = (0..count).map(never_reader).collect();
    ctx.server.falls_asleep(WAIT_LIMIT)?;
    clients
}

/// It is reset, which shows although it does not read.
pub(crate) fn is_reset(client: &Client) -> Result<()> {
    let error = wait_for(WAIT_LIMIT, || client.stream().take_error().transpose()).context("it is not reset")??;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}, not a reset");
    Ok(())
}

/// How many bare `?` a client sends that reads none of their answers.
pub(crate) const UNREAD: usize = 32768;

/// What `--grace` says above.
const GRACE: Duration = Duration::from_millis(300);

/// It mostly is a few milliseconds more than asked for.
const SOON: Duration = Duration::from_secs(5);
