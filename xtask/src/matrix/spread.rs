//! Whether clients are spread evenly over workers, processes and loops, going by what the server logs of each.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, case};
use crate::harness::WAIT_LIMIT;

pub(crate) const CASES: &[Case] = &[
    case("even", even).arguments(&["-v"]).on(|entry| entry.parts.is_some()),
    // Not a row of the table, but the same promise: the kernel wakes whoever has waited longest in accept.
    case("even_over_processes", even_over_four)
        .arguments(&["-v", "--processes", "4"])
        .on(|entry| entry.name == "single"),
];

fn even(ctx: &mut Ctx) -> Result<()> {
    is_even(ctx, ctx.entry.parts.context("it has parts")?)
}

fn even_over_four(ctx: &mut Ctx) -> Result<()> {
    is_even(ctx, 4)
}

/// Each part gets its share of the clients, within 20 %.
fn is_even(ctx: &Ctx, parts: usize) -> Result<()> {
    let before = shares(&ctx.server.log());
    let mut staying = Vec::new();
    for n in 1..=CLIENTS {
        let mut client = ctx.client()?;
        client.ask_all().with_context(|| format!("client {n}"))?;
        // Where clients wait for a place they leave at once; elsewhere they stay, since loops are chosen by how many
        // they have.
        if ctx.entry.makes_wait() {
            drop(client);
        } else {
            staying.push(client);
        }
        // The kernel wakes whoever waits longest, but a worker that is still awake may be there first: let all of them
        // go to sleep again.
        ctx.server.falls_asleep(WAIT_LIMIT)?;
    }
    drop(staying);
    let gone = |log: &str| {
        let mut shares = shares(log);
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

/// How many clients have gone from whom: the lines `TIME [LEVEL WHO] CLIENT closed: …`, where WHO is PID/THREAD. Who
/// saw them come does not say who served them: one loop accepts for all.
fn shares(log: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for line in log.lines() {
        let Some((head, text)) = line.split_once("] ") else { continue };
        let Some(who) = head.split_whitespace().last() else { continue };
        if text.contains(" closed: ") {
            *shares.entry(who.to_owned()).or_default() += 1;
        }
    }
    shares
}

/// Each tick sends a waiting worker to the end of the queue: some clients more make up for that.
const CLIENTS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_from_the_log() {
        let log = "T [INFO 7/main] at most 4 clients\nT [DEBUG 7/main] 127.0.0.1:5 accepted\n\
                   T [DEBUG 7/loop-2] 127.0.0.1:5 closed: finished\nT [DEBUG 8/loop-2] 127.0.0.1:6 closed: finished\n\
                   T [DEBUG 7/loop-2] 127.0.0.1:7 closed: finished\nnoise\n";
        let expected = [("7/loop-2".to_owned(), 2), ("8/loop-2".to_owned(), 1)];
        assert_eq!(shares(log), BTreeMap::from(expected));
    }
}
