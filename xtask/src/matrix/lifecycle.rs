//! The end of a server: SIGTERM and SIGINT drain it, and a second signal or the end of its grace stops it immediately.

pub(crate) mod asked;
pub(crate) mod cut;
pub(crate) mod hangup;
pub(crate) mod inherited;

use anyhow::Result;
use rustix::process::Signal;

use super::{Case, Ctx, case, ending};

pub(super) use asked::questions_asked_are_answered;
pub(super) use cut::{expect_reset_unread, grace_over_for_never_readers, never_readers};

/// Sends a signal, and waits until the server logs that it drains.
fn begin_drain(ctx: &Ctx, signal: Signal) -> Result<()> {
    ctx.server.signal(signal)?;
    ctx.server.logs("draining")
}
