//! Signals that were blocked or ignored when the server was started: a process inherits both from its parent.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::Signal;

use super::super::supervision::{REPLACED, send, supervised, workers_are};
use super::super::{Case, Ctx, bare, ended};
use crate::harness::group::run_within;
use crate::harness::{Missing, WAIT_LIMIT, tool};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("blocked_sigterm", |entry, _| is_stopped(entry, Signal::TERM)),
    bare("blocked_sigint", |entry, _| is_stopped(entry, Signal::INT)),
    bare("blocked_sigchld", blocked_sigchld).on(has_supervisor_of_its_own),
    bare("ignored_sigchld", ignored_sigchld).on(has_supervisor_of_its_own),
];

/// The supervisor is part of every binary, and one of each is enough.
fn has_supervisor_of_its_own(entry: &Entry) -> bool {
    !entry.is_example && (entry.is_first_of_package() || entry.processes > 1)
}

/// It drains at once, and does not wait for the end of its grace.
fn is_stopped(entry: &'static Entry, signal: Signal) -> Result<()> {
    while_blocked(|| {
        ended(entry, &[], &["--grace", "60s"], |ctx| {
            let mut client = ctx.client()?;
            client.ask_all()?;
            ctx.server.signal(signal)?;
            client.expect_end().context("a client that is idle")?;
            let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not stop")?;
            ensure!(status.success(), "it ended with {status}");
            Ok(())
        })
    })
}

fn blocked_sigchld(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    while_blocked(|| ended(entry, &[], &supervised(entry, &["--grace", "60s"]), a_worker_is_replaced))
}

/// The kernel keeps no status of a child whose parent ignores its end.
fn ignored_sigchld(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    const IGNORING: &str = "--ignore-signal=CHLD";
    let tried = run_within(WAIT_LIMIT, Command::new(tool("env")?).args([IGNORING, "true"]))?;
    ensure!(tried.status.success(), Missing(format!("env {IGNORING} (GNU coreutils)")));
    ended(entry, &["env", IGNORING], &supervised(entry, &["--grace", "60s"]), a_worker_is_replaced)
}

/// A worker that was killed is replaced, and the workers' ends are noticed while draining.
fn a_worker_is_replaced(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    send(Signal::KILL, before[0])?;
    let is_replaced = |workers: &[i32]| workers.len() == before.len() && !workers.contains(&before[0]);
    workers_are(ctx, 5 * REPLACED, is_replaced)?;
    ctx.client()?.ask_all()?;
    ctx.server.stop(WAIT_LIMIT)
}

/// Runs `work`, which starts a server, on a thread that has these signals blocked.
fn while_blocked(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let signals = SigSet::from_iter([Blocked::SIGTERM, Blocked::SIGINT, Blocked::SIGCHLD]);
    let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = work();
    before.thread_set_mask()?;
    done
}
