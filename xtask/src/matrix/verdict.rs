//! What must hold after every case: honest clients are served, nothing is left behind, and the server ends well.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Ctx;
use crate::harness::client::APHORISMS;
use crate::harness::process::Usage;
use crate::harness::wait_for;

/// What the server held before the case.
pub(crate) struct Baseline {
    usage: Usage,
    is_alone: bool,
}

impl Baseline {
    /// Looks at the server once honest clients have warmed it up.
    pub(crate) fn of(ctx: &Ctx, is_alone: bool) -> Result<Baseline> {
        honest_clients(ctx)?;
        // The last of them is still on its way out; what is held stops changing when it is gone.
        let mut usage = ctx.server.usage();
        wait_for(SETTLING, || {
            std::thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut usage, ctx.server.usage());
            let is_steady = (before.threads, before.descriptors) == (usage.threads, usage.descriptors);
            is_steady.then_some(())
        });
        Ok(Baseline { usage, is_alone })
    }

    /// Judges the server after the case, and ends it.
    pub(crate) fn verdict(self, ctx: &mut Ctx) -> Result<()> {
        honest_clients(ctx).context("honest clients")?;
        if ctx.entry.is_exhibit {
            return Ok(());
        }
        let limit = if self.is_alone { SETTLING } else { SETTLING * CROWD };
        self.nothing_left(ctx, limit)?;
        if self.is_alone {
            is_idle(ctx)?;
        }
        ctx.server.stop(limit)?;
        ctx.server.has_spoken_cleanly()
    }

    fn nothing_left(&self, ctx: &Ctx, limit: Duration) -> Result<()> {
        let before = self.usage;
        // Fewer is no fault: a pool of threads may have shrunk. A lost worker shows as honest clients not served.
        let is_back = |now: Usage| {
            now.processes == before.processes
                && now.threads <= before.threads
                && now.descriptors <= before.descriptors
                && now.memory <= before.memory + MEMORY
        };
        let back = wait_for(limit, || is_back(ctx.server.usage()).then_some(()));
        back.with_context(|| format!("{limit:?} later it holds {:?}, before it held {before:?}", ctx.server.usage()))
    }
}

/// As many honest clients as are served at once, up to a handful, all of whom ask at the same time.
fn honest_clients(ctx: &Ctx) -> Result<()> {
    let together = ctx.entry.at_once.unwrap_or(HANDFUL);
    let mut clients = (0..together).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    let questions = || APHORISMS.iter().cycle();
    clients.iter_mut().zip(questions()).try_for_each(|(client, (question, _))| client.send(question))?;
    clients.iter_mut().zip(questions()).try_for_each(|(client, (_, answer))| client.expect(answer))
}

/// What it still had to do may fall into the first look, on a busy machine; one that spins does so in each.
fn is_idle(ctx: &Ctx) -> Result<()> {
    let look = || {
        let before = ctx.server.usage().cpu;
        std::thread::sleep(LOOK);
        ctx.server.usage().cpu.saturating_sub(before)
    };
    let mut looks = Vec::new();
    while looks.len() < LOOKS {
        looks.push(look());
        if looks.last().is_some_and(|&used| used < LOOK / 100) {
            return Ok(());
        }
    }
    bail!("idle, it used {looks:?} of processor, each in {LOOK:?}")
}

/// Within this everything is back where it was, and SIGTERM has ended the server.
const SETTLING: Duration = Duration::from_secs(1);

/// How much longer the same may take beside other tests, where speed must decide nothing.
const CROWD: u32 = 10;

/// What the allocator may keep.
const MEMORY: u64 = 4 << 20;

/// How long an idle server is watched.
const LOOK: Duration = Duration::from_millis(300);

const LOOKS: usize = 3;

/// As many as any case lets think at once: the pool of `--offload` keeps the threads it has (blocking 1.7), so it must have
/// them before the case.
const HANDFUL: usize = 4;
