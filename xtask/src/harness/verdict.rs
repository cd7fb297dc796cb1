//! A case against a server that is started for it, and what must hold after it: honest clients are served, nothing is
//! left behind, and the server exits cleanly.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::client::{APHORISMS, Client};
use super::honest::Honest;
use super::process::Usage;
use super::{Missing, Server, WAIT_LIMIT, wait_for};
use crate::servers::Entry;

/// The server that was started for a case, and its row in the list.
pub(crate) struct Ctx {
    pub(crate) entry: &'static Entry,
    pub(crate) server: Server,
}

impl Ctx {
    /// Connects a new client to the server.
    pub(crate) fn client(&self) -> Result<Client> {
        self.server.client()
    }

    /// Starts an honest client that asks as long as the case runs. Where clients wait in the backlog, it connects for
    /// each question.
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
        baseline.verdict(&mut ctx).context("the case passed, but the verdict after it does not hold")
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
        ctx.server.ended_within(WAIT_LIMIT).context("the case is over, but the server has not exited")?;
        let address = ctx.server.address();
        let left = wait_for(WAIT_LIMIT, || ctx.server.processes().is_empty().then_some(()));
        left.with_context(|| format!("left behind: {:?}", ctx.server.processes()))?;
        // In a network of its own the address cannot be tried from here.
        if address.ip().is_loopback() {
            let free = wait_for(WAIT_LIMIT, || TcpListener::bind(address).ok());
            free.with_context(|| format!("{address} is not free again"))?;
        }
        ctx.server.output_is_clean()
    });
    explained(&ctx, judged)
}

/// Adds the server's stderr to an error.
fn explained(ctx: &Ctx, judged: Result<()>) -> Result<()> {
    // A missing tool is recognized by its type, so nothing may be wrapped around it.
    judged.map_err(|error| {
        if error.is::<Missing>() {
            error
        } else {
            anyhow!("{error:#}\nstderr of {}:\n{}", ctx.entry.name, last_lines(&ctx.server.log()))
        }
    })
}

/// Returns the end of a long text, where what matters usually is.
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
    /// Measures the server after honest clients have warmed it up.
    fn of(ctx: &Ctx, is_alone: bool) -> Result<Baseline> {
        honest_clients(ctx)?;
        // The last of them may still be closing; its threads and descriptors are steady once it has closed.
        let mut usage = ctx.server.usage();
        wait_for(SETTLING, || {
            std::thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut usage, ctx.server.usage());
            let is_steady = (before.threads, before.descriptors) == (usage.threads, usage.descriptors);
            is_steady.then_some(())
        });
        Ok(Baseline { usage, is_alone })
    }

    /// Judges the server after the case, and stops it.
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
        ctx.server.output_is_clean()
    }

    fn nothing_left(&self, ctx: &Ctx, limit: Duration) -> Result<()> {
        let before = self.usage;
        // Fewer is no fault: a pool of threads may have shrunk. A lost worker shows as honest clients that are not
        // served.
        let is_back = |now: Usage| {
            now.processes == before.processes
                && now.threads <= before.threads
                && now.descriptors <= before.descriptors
                && now.memory <= before.memory + MEMORY
        };
        let back = wait_for(limit, || is_back(ctx.server.usage()).then_some(()));
        back.with_context(|| {
            format!("{limit:?} after the case it holds {:?}; before it held {before:?}", ctx.server.usage())
        })
    }
}

/// Connects as many honest clients as are served together, up to a handful, which all ask at the same time.
fn honest_clients(ctx: &Ctx) -> Result<()> {
    let together = ctx.entry.at_once.unwrap_or(HANDFUL);
    let mut clients = ctx.server.clients(together)?;
    let questions = || APHORISMS.iter().cycle();
    clients.iter_mut().zip(questions()).try_for_each(|(client, (question, _))| client.send(question))?;
    clients.iter_mut().zip(questions()).try_for_each(|(client, (_, answer))| client.expect(answer))
}

// One look may see work that was left over, on a busy machine; a server that spins shows in each.
fn is_idle(ctx: &Ctx) -> Result<()> {
    let mut looks = Vec::new();
    while looks.len() < LOOKS {
        looks.push(ctx.server.cpu_within(LOOK));
        if looks.last().is_some_and(|&used| used < LOOK / 100) {
            return Ok(());
        }
    }
    bail!("while idle it used {looks:?} of processor time, each in {LOOK:?}")
}

/// How long after a case everything may take to be back where it was, and SIGTERM to end the server.
const SETTLING: Duration = Duration::from_secs(1);

/// Factor for the same in parallel with other tests, where speed must decide nothing.
const CROWD: u32 = 10;

/// Bytes that the allocator may keep.
const MEMORY: u64 = 4 << 20;

/// How long an idle server is observed each time.
const LOOK: Duration = Duration::from_millis(300);

const LOOKS: usize = 3;

/// How many answers any case has computed together. The blocking pool of `--offload` keeps its threads (blocking 1.7),
/// so it must have them before the case.
const HANDFUL: usize = 4;
