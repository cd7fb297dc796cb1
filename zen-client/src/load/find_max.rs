//! `--find-max`: the highest rate of an open loop at which objectives hold.
//!
//! 1. A short closed loop finds a rate to begin with.
//! 2. The rate is doubled until the objectives fail, or halved until they hold.
//! 3. Between the two rates it is bisected until they are a few percent apart.
//! 4. The highest rate that held is run again. If that fails, the bisection goes on below it.
//!
//! A run lasts long enough for 100 questions beyond the highest percentile, so there is a lowest rate that can be
//! tried.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::measured::Measured;
use super::objective::Objectives;
use super::plan::Plan;
use super::progress::INTERRUPTED;

/// The highest rate that was found, and how.
#[derive(Debug, Serialize)]
pub(crate) struct Search {
    objective: String,
    /// Questions a second; `None`: the objectives held at no rate.
    pub(crate) rate: Option<u64>,
    /// The result as a sentence.
    pub(super) text: String,
    /// The runs, in their order.
    pub(super) steps: Vec<Step>,
}

/// One run at one rate.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) rate: u64,
    pub(super) held: bool,
    seconds: f64,
    /// The value for each objective.
    pub(super) outcomes: Vec<String>,
}

/// Searches with `run`; returns the search, and the last run that held, else the last of all.
pub(super) fn find_max(
    objectives: &Objectives,
    plan: &Plan,
    mut run: impl FnMut(&Plan) -> Result<Measured>,
) -> Result<(Search, Measured)> {
    let probe = run(&Plan { rate: None, duration: PROBE, ..plan.clone() })?;
    let objective = objectives.to_string();
    if let Some(time) = objectives.out_of_reach(&probe) {
        let text = format!("{objective} holds at no rate: the fastest answer took {time}");
        return Ok((Search { objective, rate: None, text, steps: Vec::new() }, probe));
    }
    let samples = objectives.samples();
    let lowest = (samples / LONGEST_STEP.as_secs_f64()).ceil() as u64;
    let begin = (probe.answers_per_second() as u64).max(lowest);
    let (mut steps, mut best, mut last) = (Vec::new(), None, None);
    let rate = bisect(begin, lowest, |rate| {
        let duration = SHORTEST_STEP.max(Duration::from_secs_f64(samples / rate as f64));
        let plan = Plan { rate: Some(rate), duration, ..plan.clone() };
        let measured = run(&plan)?;
        if measured.is_interrupted {
            bail!(INTERRUPTED);
        }
        if measured.tally.failures.wrong > 0 {
            bail!(measured.failure_reason().unwrap_or_default());
        }
        let outcomes = objectives.judge(&measured);
        let held = outcomes.iter().all(|outcome| outcome.is_true);
        let outcomes = outcomes.into_iter().map(|outcome| outcome.text).collect();
        steps.push(Step { rate, held, seconds: measured.seconds, outcomes });
        *(if held { &mut best } else { &mut last }) = Some(measured);
        Ok(held)
    })?;
    let text = match rate {
        Some(rate) => format!("{rate} questions a second is the highest rate at which {objective} held twice"),
        None => format!("{objective} held at no rate down to {lowest} a second, the lowest that can be measured"),
    };
    Ok((Search { objective, rate, text, steps }, best.or(last).unwrap_or(probe)))
}

/// Returns the highest rate that holds twice, to a few percent, and not below `lowest`; searches from `begin` on.
fn bisect(begin: u64, lowest: u64, mut holds: impl FnMut(u64) -> Result<bool>) -> Result<Option<u64>> {
    // The rates that held once, each above the one before, and the lowest that failed.
    let (mut held, mut failed) = (Vec::<u64>::new(), None);
    loop {
        let low = held.last().copied();
        if let Some(low) = low.filter(|low| *low == HIGHEST_RATE || failed.is_some_and(|high| is_near(*low, high))) {
            if holds(low)? {
                return Ok(Some(low));
            }
            held.pop();
            failed = Some(low);
            continue;
        }
        let rate = match (low, failed) {
            (None, None) => begin,
            (None, Some(high)) if high <= lowest => return Ok(None),
            (None, Some(high)) => lowest.max(high / 2),
            (Some(low), None) => HIGHEST_RATE.min(low * 2),
            (Some(low), Some(high)) => ((low as f64 * high as f64).sqrt() as u64).clamp(low + 1, high - 1),
        };
        if holds(rate)? {
            held.push(rate);
        } else {
            failed = Some(rate);
        }
    }
}

fn is_near(low: u64, high: u64) -> bool {
    high - low <= 1 || high as f64 / low as f64 <= PRECISION
}

/// The length of the closed loop that finds a rate to begin with.
const PROBE: Duration = Duration::from_millis(500);
/// In shorter runs the start would count too much.
const SHORTEST_STEP: Duration = Duration::from_millis(500);
/// A search of ten such runs takes ten minutes.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// The ratio of the lowest rate that fails to the highest that holds, at the end of the search.
const PRECISION: f64 = 1.04;
/// The highest `--rate`.
const HIGHEST_RATE: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_is_found_wherever_the_search_begins() {
        for capacity in [1, 2, 7, 500, 12_345, HIGHEST_RATE] {
            for begin in [1, 100, 10_000, HIGHEST_RATE] {
                let mut tried = 0;
                let found = bisect(begin, 1, |rate| {
                    tried += 1;
                    Ok(rate <= capacity)
                });
                let found = found.unwrap().unwrap();
                assert!(found <= capacity && (found + 1) as f64 * PRECISION > capacity as f64, "{found} of {capacity}");
                assert!(tried <= 34, "{tried} tries from {begin} to {capacity}");
            }
        }
    }

    #[test]
    fn where_no_rate_holds_there_is_none() {
        let mut tried = Vec::new();
        let found = bisect(1000, 300, |rate| {
            tried.push(rate);
            Ok(false)
        });
        assert_eq!((found.unwrap(), tried), (None, vec![1000, 500, 300]));
    }

    #[test]
    fn a_rate_that_held_by_chance_is_not_the_highest() {
        let mut lucky = true;
        let found = bisect(1000, 1, |rate| Ok(rate <= 1000 || rate < 1500 && std::mem::take(&mut lucky)));
        assert!((960..=1000).contains(&found.unwrap().unwrap()));
    }
}
