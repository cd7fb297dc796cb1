//! Runs a case against a server that is started for it, then checks the verdict: honest clients are served, no
//! resources are left in use, and the server exits cleanly.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::client::{APHORISMS, Client};
use super::honest::HonestClient;
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
    pub(crate) fn honest(&self) -> Result<HonestClient> {
        HonestClient::start(self.server.address(), self.entry.makes_clients_wait())
    }
}

/// Starts the server, runs the case, then checks the verdict and stops the server.
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
        baseline.verdict(&mut ctx).context("the case itself passed, but not the checks after it")
    });
    explained(&ctx, judged)
}

/// Starts the server, runs the case, which must end the server, and expects that no process is left and the port is
/// free.
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
        left.with_context(|| format!("processes that have not exited: {:?}", ctx.server.processes()))?;
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

/// The server's resources before the case.
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

    /// Expects that the server uses no more resources than before the case.
    fn nothing_left(&self, ctx: &Ctx, limit: Duration) -> Result<()> {
        let before = self.usage;
        // Fewer threads are no fault: a pool may have shrunk. If a needed thread is gone, honest clients are not
        // served.
        let is_back = |now: Usage| {
            now.processes == before.processes
                && now.threads <= before.threads
                && now.descriptors <= before.descriptors
                && now.memory <= before.memory + MEMORY
        };
        let back = wait_for(limit, || is_back(ctx.server.usage()).then_some(()));
        back.with_context(|| {
            format!("{limit:?} after the case the server uses {:?}; before it, {before:?}", ctx.server.usage())
        })
    }
}

/// Connects as many honest clients as are served at the same time, [`HANDFUL`] where that is any number. All of them
/// ask before one reads.
fn honest_clients(ctx: &Ctx) -> Result<()> {
    let together = ctx.entry.at_once.unwrap_or(HANDFUL);
    let mut clients = ctx.server.clients(together)?;
    let questions = || APHORISMS.iter().cycle();
    clients.iter_mut().zip(questions()).try_for_each(|(client, (question, _))| client.send(question))?;
    clients.iter_mut().zip(questions()).try_for_each(|(client, (_, answer))| client.expect(answer))
}

/// Expects that the server uses almost no processor time. On a busy machine, the first samples may see work that was
/// left over; a server that spins is busy in all of them.
fn is_idle(ctx: &Ctx) -> Result<()> {
    let mut looks = Vec::new();
    while looks.len() < LOOKS {
        looks.push(ctx.server.cpu_within(LOOK));
        if looks.last().is_some_and(|&used| used < LOOK / 100) {
            return Ok(());
        }
    }
    bail!("while idle, the server used {looks:?} of processor time in intervals of {LOOK:?}")
}

/// The time limit for the server to free its resources after a case, and to exit after SIGTERM.
const SETTLING: Duration = Duration::from_secs(1);

/// The factor for [`SETTLING`] in a case that runs in parallel with others, where the machine is busy.
const CROWD: u32 = 10;

/// The bytes by which memory may have grown after a case, because the allocator does not return all of it.
const MEMORY: u64 = 4 << 20;

/// The length of one sample of processor time.
const LOOK: Duration = Duration::from_millis(300);

/// The maximum number of samples.
const LOOKS: usize = 3;

/// The number of honest clients where any number is served. It is BLOCKING_MAX_THREADS of [`Server`]: the blocking pool
/// of `--offload` keeps its threads (blocking 1.7), so all of them must exist before the case.
const HANDFUL: usize = 4;
