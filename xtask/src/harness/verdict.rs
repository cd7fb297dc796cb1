//! A case against a server that is started for it, and what must hold after it: honest clients are served, nothing is
//! left behind, and the server ends well.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::client::{APHORISMS, Client};
use super::honest::Honest;
use super::process::Usage;
use super::{Missing, Server, WAIT_LIMIT, wait_for};
use crate::servers::Entry;

/// What a case works with: the server that was started for it, and which one it is.
pub(crate) struct Ctx {
    pub(crate) entry: &'static Entry,
    pub(crate) server: Server,
}

impl Ctx {
    /// A new client of the server.
    pub(crate) fn client(&self) -> Result<Client> {
        self.server.client()
    }

    /// An honest client that asks all along while the case goes on. Where clients wait for a place it takes one only
    /// for the time of a question.
    pub(crate) fn honest(&self) -> Result<Honest> {
        Honest::start(self.server.address(), self.entry.makes_wait())
    }
}

/// Starts the server, runs the case and gives the verdict.
pub(crate) fn served(
    entry: &'static Entry,
    wrapper: &[&str],
    arguments: &[&str],
    is_alone: bool,
    run: impl FnOnce(&mut Ctx) -> Result<()>,
) -> Result<()> {
    let mut ctx = Ctx { entry, server: Server::start_under(wrapper, entry, arguments)? };
    let judged = Baseline::of(&ctx, is_alone).context("before the case").and_then(|baseline| {
        run(&mut ctx)?;
        baseline.verdict(&mut ctx).context("the case went well, the verdict after it does not hold")
    });
    explained(&ctx, judged)
}

/// Starts the server, runs the case, and makes sure that nothing of the server is left.
pub(crate) fn ended(
    entry: &'static Entry,
    wrapper: &[&str],
    arguments: &[&str],
    run: impl FnOnce(&mut Ctx) -> Result<()>,
) -> Result<()> {
    let mut ctx = Ctx { entry, server: Server::start_under(wrapper, entry, arguments)? };
    let judged = run(&mut ctx).and_then(|()| {
        ctx.server.ended_within(WAIT_LIMIT).context("the case is over, the server is still there")?;
        let address = ctx.server.address();
        let left = wait_for(WAIT_LIMIT, || ctx.server.processes().is_empty().then_some(()));
        left.with_context(|| format!("left behind: {:?}", ctx.server.processes()))?;
        // In a network of its own the address is not ours to try.
        if address.ip().is_loopback() {
            let free = wait_for(WAIT_LIMIT, || TcpListener::bind(address).ok());
            free.with_context(|| format!("{address} is not free again"))?;
        }
        ctx.server.has_spoken_cleanly()
    });
    explained(&ctx, judged)
}

/// With the server's stderr if it went wrong.
fn explained(ctx: &Ctx, judged: Result<()>) -> Result<()> {
    // A missing tool is told by its type: nothing may be wrapped around it.
    judged.map_err(|error| {
        if error.is::<Missing>() {
            error
        } else {
            anyhow!("{error:#}\nstderr of {}:\n{}", ctx.entry.name, last_lines(&ctx.server.log()))
        }
    })
}

/// The end of a long text, where what matters mostly is.
fn last_lines(text: &str) -> String {
    const KEPT: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(KEPT);
    let head = if left_out > 0 { format!("(… {left_out} lines before)\n") } else { String::new() };
    head + &lines[left_out..].join("\n")
}

/// What the server held before the case.
struct Baseline {
    usage: Usage,
    is_alone: bool,
}

impl Baseline {
    /// Looks at the server once honest clients have warmed it up.
    fn of(ctx: &Ctx, is_alone: bool) -> Result<Baseline> {
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
    fn verdict(self, ctx: &mut Ctx) -> Result<()> {
        honest_clients(ctx).context("honest clients")?;
        if ctx.entry.is_example {
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

/// As many as any case lets think at once: the pool of `--offload` keeps the threads it has (blocking 1.7), so it must
/// have them before the case.
const HANDFUL: usize = 4;
