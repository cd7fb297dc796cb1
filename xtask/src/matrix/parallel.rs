//! How many answers are worked out at the same time, and so how a slow answer delays other clients.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Case, Ctx, case};
use crate::harness::client::APHORISMS;
use crate::harness::{self, Client};

pub(crate) const CASES: &[Case] = &[
    case("slow_answers", slow_answers).arguments(&["--delay", "200ms"]).alone(),
    // An answer that is awaited or offloaded delays its own client alone.
    case("awaited_answers", each_on_its_own)
        .arguments(&["--delay", "200ms", "--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example)
        .alone(),
    case("offloaded_answers", each_on_its_own)
        .arguments(&["--delay", "200ms", "--offload"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example)
        .alone(),
];

fn slow_answers(ctx: &mut Ctx) -> Result<()> {
    let Some(answers_at_once) = ctx.entry.answers_at_once else { return each_on_its_own(ctx) };
    // Several processes with event loops accept from one listener: the first to wake up may accept a whole burst.
    let at_once = ctx.entry.processes == 1 || ctx.entry.makes_clients_wait();
    // Twice as many clients as answers at a time: the second half is answered a turn later.
    judge(&arrivals(ctx, 2 * answers_at_once, at_once)?, answers_at_once, ctx.entry.reaches_limit)
}

fn each_on_its_own(ctx: &mut Ctx) -> Result<()> {
    const CLIENTS: usize = 4;
    judge(&arrivals(ctx, CLIENTS, true)?, CLIENTS, true)
}

/// Returns when each client received its answer, sorted. With `at_once` all connect, then all ask. Otherwise each
/// connects and asks while the previous one is being answered, so that it finds an idle thread.
fn arrivals(ctx: &Ctx, clients: usize, at_once: bool) -> Result<Vec<Duration>> {
    let address = ctx.server.address();
    let together = Barrier::new(clients);
    let ask = |n: usize| {
        let early = at_once.then(|| Client::connect(address));
        together.wait();
        let start = Instant::now();
        if !at_once {
            thread::sleep(APART * u32::try_from(n)?);
        }
        let mut client = early.unwrap_or_else(|| Client::connect(address))?;
        let (question, answer) = APHORISMS[0];
        client.ask(question, answer)?;
        // It closes now, because the next client may be waiting for the thread.
        Ok(start.elapsed())
    };
    let mut arrivals = harness::at_once(clients, ask)?;
    arrivals.sort_unstable();
    Ok(arrivals)
}

/// Expects that answers arrive in turns, one [`DELAY`] apart. With `reaches_limit`, each turn has `answers_at_once`
/// answers. Otherwise at least one turn has that many, and none has more.
fn judge(arrivals: &[Duration], answers_at_once: usize, reaches_limit: bool) -> Result<()> {
    let turns = turns(arrivals, DELAY);
    let is_full = |turn: &usize| *turn == answers_at_once;
    let is_right = if reaches_limit {
        turns.iter().all(is_full)
    } else {
        turns.iter().any(is_full) && turns.iter().all(|&turn| turn <= answers_at_once)
    };
    // No answer can arrive before its delay is over. A server that holds answers back until all are ready would send
    // the first one too late.
    let first = arrivals.first().copied().unwrap_or_default();
    let is_in_time = (DELAY..DELAY * 2).contains(&first);
    ensure!(
        is_right && is_in_time,
        "{answers_at_once} answers at a time are expected; they arrived in turns of {turns:?}, at {arrivals:?}"
    );
    Ok(())
}

/// Returns how many answers arrived in each turn, where an answer takes `delay`.
pub(crate) fn turns(arrivals: &[Duration], delay: Duration) -> Vec<usize> {
    arrivals.chunk_by(|a, b| *b - *a < delay / 2).map(<[_]>::len).collect()
}

/// `--delay` in the arguments.
const DELAY: Duration = Duration::from_millis(200);

/// The time between two clients. It is long enough that a thread has begun the previous question, and short enough that
/// both answers arrive in the same turn.
const APART: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(milliseconds: &[u64], answers_at_once: usize, reaches_limit: bool) -> bool {
        let arrivals: Vec<Duration> = milliseconds.iter().copied().map(Duration::from_millis).collect();
        judge(&arrivals, answers_at_once, reaches_limit).is_ok()
    }

    #[test]
    fn turns_are_compared_with_the_promise() {
        let (one_by_one, in_twos, uneven) = ([201, 402, 603, 804], [201, 202, 403, 404], [201, 401, 402, 601]);
        assert!(is_met(&one_by_one, 1, true));
        assert!(is_met(&in_twos, 2, true));
        assert!(is_met(&in_twos, 2, false));
        assert!(is_met(&uneven, 2, false));
        for (arrivals, answers_at_once) in
            [(one_by_one, 2), (one_by_one, 4), (in_twos, 1), (in_twos, 4), (uneven, 2), (uneven, 4)]
        {
            assert!(!is_met(&arrivals, answers_at_once, true), "{arrivals:?}, {answers_at_once}");
        }
        assert!(!is_met(&one_by_one, 2, false));
        assert!(!is_met(&in_twos, 1, false));
        assert!(!is_met(&[801, 801, 802, 802], 4, true), "held back");
        assert!(!is_met(&[1, 1, 2, 2], 4, true), "without any delay");
    }
}
