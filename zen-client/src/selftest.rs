//! `zen-client selftest`: tests the load generator against servers whose behavior is known.
//!
//! Each check is a run of `load` and a judgement on its figures. The unit tests below falsify figures as faulty load
//! generators do, and show that the judgement notices.

mod fake;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::load::{Measured, Objectives, Plan, Report, find_max_quietly, measure_quietly};
use crate::text;
use fake::{Behavior, Fake, StoppableServer};

pub(crate) use fake::SERVER_COMMAND;

/// Runs all checks and prints a line for each; succeeds when all pass. Takes about fifteen seconds.
pub(crate) fn selftest() -> Result<ExitCode> {
    let mut stdout = text::stdout();
    let (mut passed, mut failed) = (0, 0);
    for run in [known_delay, frozen_half, steady_rate, wrong_answers, dropped_connections, known_capacity] {
        for Outcome { name, ok, saw } in run()? {
            let verdict = if ok { "ok" } else { "FAILED" };
            *(if ok { &mut passed } else { &mut failed }) += 1;
            text::print(&mut stdout, format_args!("{verdict} {name}: {saw}"))?;
        }
    }
    text::print(&mut stdout, format_args!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves until stdin ends: the server that `frozen_half` stops.
pub(crate) fn serve() -> Result<ExitCode> {
    fake::serve().map(|()| ExitCode::SUCCESS)
}

/// The measurement of a check, and whether it is right.
struct Outcome {
    name: &'static str,
    ok: bool,
    saw: String,
}

/// Four connections to a server that takes 20 ms for an answer: the times and Little's law are known.
fn known_delay() -> Result<Vec<Outcome>> {
    let server = Fake::start(Behavior { delay: DELAY, ..Behavior::default() })?;
    let plan = Plan { connections: 4, warmup: DELAY * 3, ..plan(Duration::from_secs(1)) };
    let report = report(&measure_quietly(&plan, &[server.address])?);
    let delay = milliseconds(DELAY);
    let [p50, max] = [report.service_time_us.p50, report.service_time_us.max].map(in_milliseconds);
    let times = Outcome {
        name: "known-delay",
        ok: p50 >= delay && p50 < 4.0 * delay && max >= p50,
        saw: format!("p50 {p50:.1} ms where the server takes {delay:.1} ms"),
    };
    let law = Outcome {
        name: "littles-law",
        ok: law_holds(&report) && (3.8..=4.2).contains(&report.in_flight),
        saw: format!("{:.2} in flight where 4 connections are never idle", report.in_flight),
    };
    Ok(vec![times, law])
}

/// An open loop goes on while its server is stopped for half of the run.
fn frozen_half() -> Result<Vec<Outcome>> {
    let server = StoppableServer::start()?;
    let plan = Plan { connections: 8, rate: Some(FREEZE_RATE), ..plan(2 * FROZEN) };
    let measured = thread::scope(|scope| -> Result<Measured> {
        let freezing = scope.spawn(|| -> Result<()> {
            thread::sleep(BEFORE_FREEZE);
            server.signal(Signal::STOP)?;
            thread::sleep(FROZEN);
            server.signal(Signal::CONT)
        });
        let measured = measure_quietly(&plan, &[server.address]);
        if let Ok(frozen) = freezing.join() {
            frozen?;
        }
        measured
    })?;
    Ok(judge_freeze(&report(&measured)))
}

/// Half of the questions are due while the server is stopped, and wait between zero and one second: nine in ten wait
/// for less than 0.8 s. Only eight are in flight when it stops.
fn judge_freeze(report: &Report) -> Vec<Outcome> {
    let service_p90 = in_milliseconds(report.service_time_us.p90);
    let [p90, p99] = [report.response_time_us.p90, report.response_time_us.p99].map(in_milliseconds);
    let freeze = Outcome {
        name: "freeze-in-response-time",
        ok: (600.0..1500.0).contains(&p90) && (800.0..2000.0).contains(&p99),
        saw: format!("response time p90 {p90:.0} ms, p99 {p99:.0} ms where half of a run was frozen for 1000 ms"),
    };
    let contrast = Outcome {
        name: "freeze-not-in-service-time",
        ok: service_p90 < 300.0,
        saw: format!("service time p90 {service_p90:.1} ms, because few questions were in flight when it froze"),
    };
    let due = FREEZE_RATE * (2 * FROZEN).as_secs();
    let (answers, missed, holds) = (report.answers, report.missed, law_holds(report));
    let law = if holds { "holds" } else { "does not hold" };
    let all = Outcome {
        name: "nothing-forgotten",
        ok: answers + missed == due && holds,
        saw: format!("{answers} answers and {missed} missed of {due} due, Little's law {law}"),
    };
    vec![freeze, contrast, all]
}

/// Questions at a fixed rate: the server counts how many arrive, when, and over which connections.
fn steady_rate() -> Result<Vec<Outcome>> {
    const CONNECTIONS: usize = 4;
    let server = Fake::start(Behavior::default())?;
    let rate = 250;
    let plan = Plan { connections: CONNECTIONS, rate: Some(rate), ..plan(Duration::from_secs(1)) };
    let report = report(&measure_quietly(&plan, &[server.address])?);
    let arrivals = server.arrivals();
    let (came, missed) = (arrivals.len() as u64, report.missed);
    let rate_kept = Outcome {
        name: "open-loop-rate",
        ok: came + missed == rate && missed <= rate / 5 && report.answers == came,
        saw: format!("{came} questions of {rate} arrived in a second, {missed} were missed"),
    };
    // The median ignores what else the machine does now and then.
    let mut gaps: Vec<_> = arrivals.windows(2).map(|pair| milliseconds(pair[1].0 - pair[0].0)).collect();
    gaps.sort_unstable_by(f64::total_cmp);
    let gap = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
    let usual = 1e3 / rate as f64;
    let mut shares = [0_u64; CONNECTIONS];
    arrivals.iter().for_each(|(_, connection)| shares[connection % CONNECTIONS] += 1);
    let (least, most) = (shares.iter().min().unwrap_or(&0), shares.iter().max().unwrap_or(&0));
    let even = Outcome {
        name: "open-loop-spacing",
        ok: (0.5..=1.5).contains(&(gap / usual)) && most - least <= missed + 1,
        saw: format!("{gap:.2} ms between two questions of {usual:.2}, {least} to {most} over each connection"),
    };
    Ok(vec![rate_kept, even])
}

/// A server sends a wrong answer now and then, and counts them.
fn wrong_answers() -> Result<Vec<Outcome>> {
    let server = Fake::start(Behavior { wrong_every: 10, ..Behavior::default() })?;
    let plan = Plan { connections: 4, ..plan(Duration::from_millis(500)) };
    let report = report(&measure_quietly(&plan, &[server.address])?);
    let (found, sent) = (report.failures.wrong, server.wrong());
    Ok(vec![Outcome {
        name: "wrong-answers",
        ok: found == sent && sent > 0 && report.failures.all() == found && report.answers > 0,
        saw: format!("{found} found where {sent} were sent"),
    }])
}

/// A server closes every tenth connection immediately, and counts them.
fn dropped_connections() -> Result<Vec<Outcome>> {
    let server = Fake::start(Behavior { drop_every: 10, ..Behavior::default() })?;
    let plan = Plan { churn: true, rate: Some(RETRY_RATE), retries: 20, ..plan(Duration::from_secs(1)) };
    let measured = measure_quietly(&plan, &[server.address])?;
    Ok(vec![judge_retries(&report(&measured), server.dropped())])
}

/// Each dropped connection is opened again, late, and no question is lost.
fn judge_retries(report: &Report, dropped: u64) -> Outcome {
    let retries = report.retries;
    let (connections, questions, answered) = (retries.connections, retries.questions, retries.answered);
    let p99 = in_milliseconds(report.response_time_us.p99);
    Outcome {
        name: "retries-counted",
        ok: connections == dropped
            && dropped > 0
            && (1..=connections).contains(&questions)
            && (answered, retries.given_up, report.failures.all()) == (questions, 0, 0)
            && report.answers + report.missed == RETRY_RATE
            && p99 >= SHORTEST_PAUSE,
        saw: format!(
            "{connections} connections reopened where {dropped} were dropped, {answered} of {questions} questions \
             answered in the end, response time p99 {p99:.0} ms"
        ),
    }
}

/// A server sheds every question over its capacity, and counts them: the highest rate is known.
fn known_capacity() -> Result<Vec<Outcome>> {
    let server = Fake::start(Behavior { capacity: Some(CAPACITY), ..Behavior::default() })?;
    let plan = Plan { connections: 4, pipeline: 16, warmup: Duration::from_millis(200), ..Plan::default() };
    let objectives: Objectives = CAPACITY_OBJECTIVE.parse().map_err(anyhow::Error::msg).context("the objective")?;
    let found = find_max_quietly(&objectives, &plan, server.address)?.unwrap_or(0);
    let shed = server.shed();
    Ok(vec![Outcome {
        name: "find-max",
        ok: (0.9..=1.1).contains(&(found as f64 / f64::from(CAPACITY))) && shed > 0,
        saw: format!(
            "{CAPACITY_OBJECTIVE} up to {found} a second where the server sheds beyond {CAPACITY}, {shed} times in all"
        ),
    }])
}

/// Returns a plan without a warm-up.
fn plan(duration: Duration) -> Plan {
    Plan { warmup: Duration::ZERO, duration, ..Plan::default() }
}

fn report(measured: &Measured) -> Report {
    Report::new(measured, None, None, false)
}

fn law_holds(report: &Report) -> bool {
    report.verdicts.iter().any(|verdict| verdict.name == "littles_law" && verdict.ok == Some(true))
}

fn in_milliseconds(micros: Option<f64>) -> f64 {
    micros.unwrap_or(0.0) / 1e3
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The time that the slow server takes for an answer.
const DELAY: Duration = Duration::from_millis(20);
/// When and for how long the server is stopped: half of the run.
const BEFORE_FREEZE: Duration = Duration::from_millis(500);
const FROZEN: Duration = Duration::from_secs(1);
/// Questions a second while the server is stopped.
const FREEZE_RATE: u64 = 500;
/// Questions a second at the server that drops connections.
const RETRY_RATE: u64 = 500;
/// Milliseconds: half of the first pause before a retry.
const SHORTEST_PAUSE: f64 = 25.0;
/// Questions a second that the shedding server answers.
const CAPACITY: u32 = 2_000;
/// A percentile that a busy machine does not disturb, and almost no shedding.
const CAPACITY_OBJECTIVE: &str = "p90<200ms,errors<1%";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Nanos, Tally, Window};

    const MS: Nanos = 1_000_000;

    /// Returns what `frozen_half` measures if all goes well: a question every 2 ms for 2 s, over eight connections, to
    /// a server that is stopped from 0.5 to 1.5 s. With `counts_from_due` times count from when a question was due, as
    /// they must, else from the actual send.
    fn frozen_run(counts_from_due: bool) -> Measured {
        let (duration, thawed) = (2 * FROZEN, 1_500 * MS);
        let mut tally = Tally::new(true);
        tally.begin(Window { start: 0, end: 2_000 * MS });
        let (mut stuck, mut late) = (Vec::new(), Vec::new());
        for due in (0..1_000).map(|n| n * 2 * MS) {
            let mut ask = |at: Nanos| tally.asked(if counts_from_due { due } else { at }, at, 0);
            if !(500 * MS..thawed).contains(&due) {
                if due == thawed {
                    stuck.drain(..).for_each(|asked| tally.answered(asked, thawed));
                    for due in late.drain(..) {
                        let asked = tally.asked(if counts_from_due { due } else { thawed }, thawed, 0);
                        tally.answered(asked, thawed + MS / 10);
                    }
                }
                let asked = tally.asked(due, due, 0);
                tally.answered(asked, due + MS / 10);
            } else if stuck.len() < 8 {
                stuck.push(ask(due));
            } else {
                late.push(due);
            }
        }
        tally.end(2_000 * MS);
        let plan = Plan { connections: 8, rate: Some(FREEZE_RATE), ..plan(duration) };
        Measured { plan, addresses: Vec::new(), tally, seconds: duration.as_secs_f64(), is_interrupted: false }
    }

    fn failed(outcomes: &[Outcome]) -> Vec<&str> {
        outcomes.iter().filter(|outcome| !outcome.ok).map(|outcome| outcome.name).collect()
    }

    #[test]
    fn a_sound_measurement_of_a_freeze_passes() {
        assert_eq!(failed(&judge_freeze(&report(&frozen_run(true)))), [""; 0]);
    }

    #[test]
    fn latency_from_the_actual_send_is_noticed() {
        assert_eq!(failed(&judge_freeze(&report(&frozen_run(false)))), ["freeze-in-response-time"]);
    }

    #[test]
    fn a_histogram_that_forgets_the_frozen_half_is_noticed() {
        let mut measured = frozen_run(true);
        for histogram in [Some(&mut measured.tally.service), measured.tally.response.as_mut()].into_iter().flatten() {
            let all = histogram.clone();
            histogram.clear();
            for bucket in all.iter_recorded().filter(|bucket| bucket.value_iterated_to() < 100 * MS) {
                histogram.record_n(bucket.value_iterated_to(), bucket.count_at_value()).unwrap();
            }
        }
        assert_eq!(failed(&judge_freeze(&report(&measured))), ["freeze-in-response-time", "nothing-forgotten"]);
    }

    #[test]
    fn a_question_that_is_not_counted_is_noticed() {
        let mut measured = frozen_run(true);
        measured.tally.answers -= 1;
        assert_eq!(failed(&judge_freeze(&report(&measured))), ["nothing-forgotten"]);
    }

    #[test]
    fn a_retry_that_is_not_counted_is_noticed() {
        let mut measured = frozen_run(true);
        measured.tally.answers = RETRY_RATE;
        measured.tally.retries.connections = 50;
        (measured.tally.retries.questions, measured.tally.retries.answered) = (40, 40);
        assert!(judge_retries(&report(&measured), 50).ok);
        measured.tally.retries.connections -= 1;
        assert!(!judge_retries(&report(&measured), 50).ok);
    }
}
