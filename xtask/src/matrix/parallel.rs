//! How many answers are thought about at the same time, which is to say, what a slow answer does to the others.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::{Case, Ctx, case};
use crate::harness::Client;
use crate::harness::client::APHORISMS;

pub(crate) const CASES: &[Case] = &[
    case("slow_answers", slow_answers).arguments(&["--delay", "200ms"]).alone(),
    // Awaited or offloaded, an answer delays its own client alone.
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
    // Each of several looping processes accepts for itself: the first to wake may take all clients of a burst.
    let at_once = ctx.entry.processes == 1 || ctx.entry.makes_wait();
    // Two for each thinker: whoever cannot be thought about at once is answered a turn later.
    judge(&arrivals(ctx, 2 * answers_at_once, at_once)?, answers_at_once, ctx.entry.is_even)
}

fn each_on_its_own(ctx: &mut Ctx) -> Result<()> {
    const CLIENTS: usize = 4;
    judge(&arrivals(ctx, CLIENTS, true)?, CLIENTS, true)
}

/// When each client got its answer, the first first. All connect, then all ask `at_once`; or else each connects and
/// asks a little later than the one before, while that one is thought about: so it finds whoever is idle.
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
        // It leaves now, as the next may be waiting for the place.
        Ok(start.elapsed())
    };
    let mut arrivals = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|n| scope.spawn(move || ask(n))).collect();
        let answered = clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        answered.collect::<Result<Vec<_>>>()
    })?;
    arrivals.sort_unstable();
    Ok(arrivals)
}

/// Answers come in turns, a delay apart; in each turn as many as there are answers_at_once, or, where that is not
/// `is_even`,
/// in some turn, and in none of them more.
fn judge(arrivals: &[Duration], answers_at_once: usize, is_even: bool) -> Result<()> {
    let turns: Vec<usize> = arrivals.chunk_by(|a, b| *b - *a < DELAY / 2).map(<[_]>::len).collect();
    let is_full = |turn: &usize| *turn == answers_at_once;
    let is_right = if is_even {
        turns.iter().all(is_full)
    } else {
        turns.iter().any(is_full) && turns.iter().all(|&turn| turn <= answers_at_once)
    };
    // Nobody can be quicker than thinking takes: answers held back until all are there would come in one late turn.
    let first = arrivals.first().copied().unwrap_or_default();
    let is_in_time = (DELAY..DELAY * 2).contains(&first);
    ensure!(
        is_right && is_in_time,
        "{answers_at_once} at a time were promised; answers came in turns of {turns:?}, at {arrivals:?}"
    );
    Ok(())
}

/// What `--delay` says above.
const DELAY: Duration = Duration::from_millis(200);

/// Late enough for the one before to be thought about, early enough to be in its turn.
const APART: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(milliseconds: &[u64], answers_at_once: usize, is_even: bool) -> bool {
        let arrivals: Vec<Duration> = milliseconds.iter().copied().map(Duration::from_millis).collect();
        judge(&arrivals, answers_at_once, is_even).is_ok()
    }

    #[test]
    fn the_shape_is_judged() {
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
        assert!(!is_met(&[1, 1, 2, 2], 4, true), "without thinking");
    }
}
