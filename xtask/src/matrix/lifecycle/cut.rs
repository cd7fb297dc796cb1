//! Shutdowns that do not wait for clients: a second signal, and the end of `--grace`.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::{Case, Ctx, begin_drain, ending};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{WAIT_LIMIT, wait_for};

pub(crate) const CASES: &[Case] = &[
    ending("sigterm_twice", |ctx| two_signals(ctx, Signal::TERM, Signal::TERM)).arguments(&["--delay", "60s"]),
    // `--burn` keeps a whole processor busy for each thread, so cases with it run alone.
    ending("sigint_twice", |ctx| two_signals(ctx, Signal::INT, Signal::INT)).arguments(&["--burn", "60s"]).alone(),
    ending("sigint_then_sigterm", |ctx| two_signals(ctx, Signal::INT, Signal::TERM)).arguments(&["--delay", "60s"]),
    ending("grace_over_while_sleeping", grace_over_while_working)
        .arguments(&["--delay", "60s", "--grace", "300ms", "-v"]),
    ending("grace_over_while_awaiting", grace_over_while_working)
        .arguments(&["--delay", "60s", "--await", "--grace", "300ms", "-v"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("grace_over_while_burning", grace_over_while_working)
        .arguments(&["--burn", "60s", "--grace", "300ms", "-v"])
        .alone(),
    ending("grace_over_for_never_readers", |ctx| grace_over_for_never_readers(ctx).map(drop))
        .arguments(&["--grace", "300ms"]),
    ending("no_grace", no_grace).arguments(&["--delay", "60s", "--grace", "0", "-v"]),
];

/// The second signal ends the server immediately, with its number in the status, although an answer is not ready.
fn two_signals(ctx: &mut Ctx, first: Signal, second: Signal) -> Result<()> {
    let _client = ctx.server.asking_client()?;
    begin_drain(ctx, first)?;
    let start = Instant::now();
    ctx.server.signal(second)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not exit")?;
    ensure!(status.code() == Some(128 + second.as_raw()), "it ended with {status}");
    ensure!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    Ok(())
}

/// The signal thread ends the server although all other threads are busy.
fn grace_over_while_working(ctx: &mut Ctx) -> Result<()> {
    let mut clients = all_working(ctx)?;
    let start = Instant::now();
    begin_drain(ctx, Signal::TERM)?;
    clients.iter_mut().try_for_each(Client::expect_reset)?;
    is_over(ctx, start, clients.len())
}

/// Clients that never read are reset at the end of the grace, so that they cannot prolong the drain. Returns how many
/// were reset.
pub(crate) fn grace_over_for_never_readers(ctx: &mut Ctx) -> Result<u64> {
    let clients = never_readers(ctx, 4)?;
    let start = Instant::now();
    begin_drain(ctx, Signal::TERM)?;
    clients.iter().try_for_each(expect_reset_unread)?;
    is_over(ctx, start, clients.len())?;
    Ok(clients.len() as u64)
}

fn no_grace(ctx: &mut Ctx) -> Result<()> {
    let mut clients = all_working(ctx)?;
    ctx.server.signal(Signal::TERM)?;
    clients.iter_mut().try_for_each(Client::expect_reset)?;
    ctx.server.ends_well()?;
    counts(ctx, clients.len())
}

/// Expects that the server took its grace and not much longer, and that the log counts every client that was reset.
fn is_over(ctx: &mut Ctx, start: Instant, cut: usize) -> Result<()> {
    ctx.server.ends_well()?;
    let took = start.elapsed();
    ensure!(GRACE <= took && took < SOON, "the grace is {GRACE:?}, but the drain took {took:?}");
    counts(ctx, cut)
}

/// Expects one warning from each process that reset clients, with their number: `--grace is over: 3 clients are reset`.
fn counts(ctx: &Ctx, cut: usize) -> Result<()> {
    let count = |line: &str| {
        let count = line.split_once("--grace is over: ")?.1.strip_suffix(" clients are reset")?;
        count.parse::<usize>().ok()
    };
    let log = ctx.server.whole_log();
    let counted: Vec<usize> =
        log.lines().filter(|line| line.contains("[WARN ")).filter_map(count).filter(|&n| n > 0).collect();
    ensure!(counted.iter().sum::<usize>() == cut, "{cut} clients were cut off, the warnings say {counted:?}");
    ensure!(counted.len() <= ctx.entry.processes, "more than one warning for each process: {counted:?}");
    Ok(())
}

/// Connects clients that are accepted and then ask, so that every thread works on an answer.
fn all_working(ctx: &Ctx) -> Result<Vec<Client>> {
    let accepted = |log: &str| log.lines().filter(|line| line.ends_with(" accepted")).count();
    let mut clients = ctx.server.clients(ctx.entry.at_once.unwrap_or(4))?;
    let all_accepted = ctx.server.wait_for_log(WAIT_LIMIT, |log| (accepted(log) == clients.len()).then_some(()));
    all_accepted.context("not all are accepted")?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    Ok(clients)
}

/// Connects clients that ask for more answers than the network holds, and do not read them.
pub(crate) fn never_readers(ctx: &Ctx, count: usize) -> Result<Vec<Client>> {
    let count = served_clients(ctx, count)?.len();
    let never_reader = |_| {
        let mut client = Client::connect_with_buffer(ctx.server.address(), 4096)?;
        client.send(b"Simple is better than?")?;
        client.expect(b"complex.").context("before it stops reading")?;
        client.send(&[b'?'; UNREAD])?;
        // The first answers have arrived.
        wait_for(WAIT_LIMIT, || client.stream().peek(&mut [0]).ok()).context("the client received no answer")?;
        Ok(client)
    };
    let clients = (0..count).map(never_reader).collect();
    ctx.server.wait_until_asleep(WAIT_LIMIT)?;
    clients
}

/// Expects that the client is reset. The socket's pending error (SO_ERROR) shows this without a read.
pub(crate) fn expect_reset_unread(client: &Client) -> Result<()> {
    let error =
        wait_for(WAIT_LIMIT, || client.stream().take_error().transpose()).context("the client is not reset")??;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}, not a reset");
    Ok(())
}

/// How many bare `?` are sent by a client that reads none of the answers.
pub(crate) const UNREAD: usize = 32768;

/// `--grace` in the arguments.
const GRACE: Duration = Duration::from_millis(300);

/// The maximum duration of a shutdown that waits for no client. It usually takes a few milliseconds more than the
/// grace.
const SOON: Duration = Duration::from_secs(5);
