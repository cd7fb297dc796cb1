//! How many answers are thought about at the same time, which is to say, what a slow answer does to the others.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::{Case, Ctx, case};
use crate::harness::client::APHORISMS;

pub(crate) const CASES: &[Case] = &[
    case("slow_answers", slow_answers).arguments(&["--delay", "200ms"]).alone(),
    // Offloaded to a pool, thinking blocks nobody.
    case("offloaded_answers", offloaded_answers)
        .arguments(&["--delay", "200ms", "--offload"])
        .on(|entry| entry.package == "zen-async")
        .alone(),
];

fn slow_answers(ctx: &mut Ctx) -> Result<()> {
    let thinkers = ctx.entry.thinkers.unwrap_or(CLIENTS);
    // Which of several looping processes takes a client is decided by who wakes first: then only the bounds are known.
    let is_even = ctx.entry.processes == 1 || ctx.entry.makes_wait();
    judge(&arrivals(ctx)?, thinkers, is_even)
}

fn offloaded_answers(ctx: &mut Ctx) -> Result<()> {
    judge(&arrivals(ctx)?, CLIENTS, true)
}

/// When each of the clients, who all ask at once, got its answer, the first first.
fn arrivals(ctx: &Ctx) -> Result<Vec<Duration>> {
    let address = ctx.server.address();
    let together = Barrier::new(CLIENTS);
    let ask = || {
        let client = crate::harness::Client::connect(address);
        together.wait();
        let start = Instant::now();
        let (question, answer) = APHORISMS[0];
        // It leaves when it has its answer, as the next may be waiting for the place.
        client?.ask(question, answer).map(|()| start.elapsed())
    };
    let mut arrivals = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    arrivals.sort_unstable();
    Ok(arrivals)
}

/// Answers come in turns, a delay apart; in each turn as many as there are thinkers.
fn judge(arrivals: &[Duration], thinkers: usize, is_even: bool) -> Result<()> {
    let turns: Vec<usize> = arrivals.chunk_by(|a, b| *b - *a < DELAY / 2).map(<[_]>::len).collect();
    let seen = || format!("{thinkers} at a time were promised; answers came in turns of {turns:?}, at {arrivals:?}");
    if is_even {
        ensure!(turns == vec![thinkers; CLIENTS / thinkers], "{}", seen());
    } else {
        ensure!(turns.iter().all(|&turn| turn <= thinkers) && turns[0] == thinkers, "{}", seen());
    }
    // Nobody can be quicker than thinking takes: answers held back until all are there would come in one late turn.
    let least = DELAY * u32::try_from(CLIENTS / thinkers)?;
    let last = arrivals[CLIENTS - 1];
    ensure!(last >= least && (!is_even || last < least + DELAY), "{}", seen());
    Ok(())
}

const CLIENTS: usize = 8;

/// What `--delay` says above.
const DELAY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: [u64; CLIENTS]) -> Vec<Duration> {
        milliseconds.map(Duration::from_millis).to_vec()
    }

    #[test]
    fn the_shape_is_judged() {
        let one_by_one = at([201, 402, 603, 804, 1005, 1206, 1407, 1608]);
        let in_twos = at([201, 202, 403, 404, 605, 606, 807, 808]);
        let all_late = at([1601, 1601, 1601, 1602, 1602, 1602, 1602, 1602]);
        let uneven = at([201, 202, 403, 404, 605, 806, 1007, 1208]);
        assert!(judge(&one_by_one, 1, true).is_ok());
        assert!(judge(&one_by_one, 2, true).is_err());
        assert!(judge(&in_twos, 2, true).is_ok());
        assert!(judge(&in_twos, 1, true).is_err());
        assert!(judge(&in_twos, 4, true).is_err());
        assert!(judge(&all_late, 8, true).is_err());
        assert!(judge(&all_late, 1, true).is_err());
        assert!(judge(&uneven, 2, true).is_err());
        assert!(judge(&uneven, 2, false).is_ok());
        assert!(judge(&one_by_one, 2, false).is_err());
    }
}
