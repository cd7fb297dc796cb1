//! Clients are spread evenly over workers, processes and loops. The server's log shows where each was served.

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, case};
use crate::harness::WAIT_LIMIT;
use crate::harness::log::lines_by_writer;

pub(crate) const CASES: &[Case] = &[
    case("even", even).arguments(&["-v"]).on(|entry| entry.parts.is_some()),
    // Four processes of `zen-single` are not in the list of servers, but clients are spread evenly over them too: the
    // kernel wakes the process that has waited longest in accept().
    case("even_over_processes", even_over_four)
        .arguments(&["-v", "--processes", "4"])
        .on(|entry| entry.name == "single"),
];

fn even(ctx: &mut Ctx) -> Result<()> {
    is_even(ctx, ctx.entry.parts.context("the server has no parts")?)
}

fn even_over_four(ctx: &mut Ctx) -> Result<()> {
    is_even(ctx, 4)
}

/// Expects that each part serves its share of the clients, within 20 %.
fn is_even(ctx: &Ctx, parts: usize) -> Result<()> {
    let before = lines_by_writer(&ctx.server.log(), SERVED);
    let mut staying = Vec::new();
    for n in 1..=CLIENTS {
        let mut client = ctx.client()?;
        client.ask_all().with_context(|| format!("client {n}"))?;
        // Where clients wait in the backlog they close immediately; elsewhere they stay, because the loop with the
        // fewest clients is chosen.
        if ctx.entry.makes_clients_wait() {
            drop(client);
        } else {
            staying.push(client);
        }
        // The kernel wakes the thread that has waited longest, but one that is still awake may be quicker: let all of
        // them fall asleep.
        ctx.server.wait_until_asleep(WAIT_LIMIT)?;
    }
    drop(staying);
    let gone = |log: &str| {
        let mut shares = lines_by_writer(log, SERVED);
        before.iter().for_each(|(part, count)| *shares.entry(part.clone()).or_default() -= count);
        shares
    };
    let is_complete = |log: &str| (gone(log).values().sum::<usize>() >= CLIENTS).then_some(());
    ctx.server.wait_for_log(WAIT_LIMIT, is_complete).context("the log does not show every client")?;
    let shares = gone(&ctx.server.log());
    let share = CLIENTS / parts;
    let is_even = shares.len() == parts && shares.values().all(|count| count.abs_diff(share) * 5 <= share);
    ensure!(is_even, "{CLIENTS} clients, {parts} parts, but the shares are {shares:?}");
    Ok(())
}

/// The log line from which the shares are counted: the close of a client, written by the thread that served it. The
/// line of its acceptance would not do, because one loop accepts for all.
const SERVED: &str = " closed: ";

/// The number of clients. At each tick a waiting worker goes to the end of the kernel's queue, which disturbs the
/// order; with enough clients the shares still come out even.
const CLIENTS: usize = 80;
