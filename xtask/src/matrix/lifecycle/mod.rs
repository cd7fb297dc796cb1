//! The end of a server: SIGTERM and SIGINT drain it, a second signal ends it, and so does the end of its grace.

pub(crate) mod asked;
pub(crate) mod cut;
pub(crate) mod hangup;
pub(crate) mod inherited;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Case, Ctx, case, ending};
use crate::harness::WAIT_LIMIT;

pub(super) use asked::whoever_asked_is_answered;
pub(super) use cut::{grace_over_for_never_readers, is_reset, never_readers};

/// Tells the server to stop, and waits until it says that it does.
fn begin_drain(ctx: &Ctx, signal: Signal) -> Result<()> {
    ctx.server.signal(signal)?;
    let said = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains("draining").then_some(()));
    said.context("it does not say that it drains")
}

/// It ends by itself, with status 0.
fn ends_well(ctx: &mut Ctx) -> Result<()> {
    let status = ctx.server.ended_within(WAIT_LIMIT).context("the drain does not end")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}
