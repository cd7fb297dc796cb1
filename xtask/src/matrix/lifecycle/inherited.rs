//! Signals that were blocked or ignored when the server was started: a process inherits both from its parent.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::Signal;

use super::super::supervision::{REPLACED, supervised};
use super::super::{Case, Ctx, bare, ended};
use crate::harness::group::run_within;
use crate::harness::{Missing, WAIT_LIMIT, process, tool};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("blocked_sigterm", |entry, _| is_stopped(entry, Signal::TERM)),
    bare("blocked_sigint", |entry, _| is_stopped(entry, Signal::INT)),
    bare("blocked_sigchld", blocked_sigchld).on(has_supervisor_of_its_own),
    bare("ignored_sigchld", ignored_sigchld).on(has_supervisor_of_its_own),
];

/// Returns whether the supervisor is tested with this server. Every binary contains it, and one server of each binary
/// is enough; servers that use it by default are tested too.
fn has_supervisor_of_its_own(entry: &Entry) -> bool {
    !entry.is_example && (entry.is_first_of_package() || entry.processes > 1)
}

/// The server drains immediately, and does not wait for the end of its grace.
fn is_stopped(entry: &'static Entry, signal: Signal) -> Result<()> {
    while_blocked(|| {
        ended(entry, &[], &["--grace", "60s"], |ctx| {
            let mut client = ctx.server.served_client()?;
            ctx.server.signal(signal)?;
            client.expect_end().context("a client that is idle")?;
            ctx.server.ends_well()
        })
    })
}

fn blocked_sigchld(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    while_blocked(|| ended(entry, &[], &supervised(entry, &["--grace", "60s"]), a_worker_is_replaced))
}

/// The kernel keeps no exit status for a parent that ignores SIGCHLD.
fn ignored_sigchld(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let tried = run_within(WAIT_LIMIT, Command::new(tool("env")?).args([IGNORING_SIGCHLD, "true"]))?;
    ensure!(tried.status.success(), Missing(format!("env {IGNORING_SIGCHLD} (GNU coreutils)")));
    ended(entry, &["env", IGNORING_SIGCHLD], &supervised(entry, &["--grace", "60s"]), a_worker_is_replaced)
}

/// A killed worker is replaced, and the parent notices the exits of its workers while draining.
fn a_worker_is_replaced(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    process::signal(before[0], Signal::KILL)?;
    ctx.server.replaces_first(&before, 5 * REPLACED)?;
    ctx.client()?.ask_all()?;
    ctx.server.stop(WAIT_LIMIT)
}

/// Runs `work`, which starts a server, with these signals blocked in the calling thread.
pub(crate) fn while_blocked(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let signals = SigSet::from_iter([Blocked::SIGTERM, Blocked::SIGINT, Blocked::SIGCHLD]);
    let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = work();
    before.thread_set_mask()?;
    done
}

/// The argument with which env(1) of the GNU coreutils ignores SIGCHLD.
pub(crate) const IGNORING_SIGCHLD: &str = "--ignore-signal=CHLD";
