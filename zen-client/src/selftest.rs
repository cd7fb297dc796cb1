//! `zen-client selftest`: proves the load generator, against servers whose behaviour is known.
//!
//! Each check is a run of `load` and a judgement on its report. `tests/client/selftest.rs` breaks the instrument on
//! purpose (`--sabotage`, hidden) and sees that the judgement notices.

mod fake;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::load::{Plan, Report, Retries, Sabotage, measured_quietly};
use crate::text;
use fake::{Fake, Freezable, Manner};

pub(crate) use fake::SERVER_COMMAND;

/// What `zen-client selftest` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Break the instrument on purpose: then at least one check must fail
    #[arg(long, hide = true)]
    sabotage: Option<Sabotage>,
}

/// What a check saw, and whether that is as it must be.
struct Outcome {
    ok: bool,
    saw: String,
}

/// Runs all checks, a line for each; succeeds when all pass. Takes some seven seconds.
pub(crate) fn selftest(options: &Options) -> Result<ExitCode> {
    let mut stdout = text::stdout();
    let (mut passed, mut failed) = (0, 0);
    for run in [known_delay, frozen_half, steady_rate, wrong_answers, dropped_connections] {
        for (name, Outcome { ok, saw }) in run(options.sabotage)? {
            let verdict = if ok { "ok" } else { "FAILED" };
            *(if ok { &mut passed } else { &mut failed }) += 1;
            text::print(&mut stdout, format_args!("{verdict} {name}: {saw}"))?;
        }
    }
    text::print(&mut stdout, format_args!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server that `frozen_half` stops.
pub(crate) fn serve() -> Result<ExitCode> {
    fake::serve().map(|()| ExitCode::SUCCESS)
}

type Outcomes = Vec<(&'static str, Outcome)>;

/// In milliseconds: half of the first pause before a retry.
const SHORTEST_PAUSE: f64 = 25.0;
const DELAY: Duration = Duration::from_millis(20);

/// Four connections at a server that thinks for 20 ms: the times and Little's law are known.
fn known_delay(sabotage: Option<Sabotage>) -> Result<Outcomes> {
    let server = Fake::start(Manner { delay: DELAY, ..Manner::default() })?;
    let duration = Duration::from_secs(1);
    let plan = Plan { connections: 4, warmup: DELAY * 3, duration, sabotage, ..Plan::new(vec![server.address]) };
    let report = measured_quietly(&plan)?;
    let delay = milliseconds(DELAY);
    let [p50, max] = [report.service_time_us.p50, report.service_time_us.max].map(|us| us.unwrap_or(0.0) / 1e3);
    let times = Outcome {
        ok: p50 >= delay && p50 < 4.0 * delay && max >= p50,
        saw: format!("p50 {p50:.1} ms where the server thinks for {delay:.1} ms"),
    };
    let law = Outcome {
        ok: law_holds(&report) && (3.8..=4.2).contains(&report.in_flight),
        saw: format!("{:.2} in flight where 4 connections are never idle", report.in_flight),
    };
    Ok(vec![("known-delay", times), ("littles-law", law)])
}

/// When and for how long the server is stopped: half of the run.
const THAWED: Duration = Duration::from_millis(500);
const FROZEN: Duration = Duration::from_secs(1);
const RATE: u64 = 500;

/// An open loop goes on while its server is stopped. Half of the questions are due meanwhile, and wait from zero to a
/// second, so nine in ten wait for less than 0.8 s; but only eight are on their way when it stops.
fn frozen_half(sabotage: Option<Sabotage>) -> Result<Outcomes> {
    let server = Freezable::start()?;
    let duration = 2 * FROZEN;
    let rate = Some(RATE);
    let plan =
        Plan { connections: 8, rate, warmup: Duration::ZERO, duration, sabotage, ..Plan::new(vec![server.address]) };
    let report = thread::scope(|scope| -> Result<Report> {
        let freezing = scope.spawn(|| -> Result<()> {
            thread::sleep(THAWED);
            server.signal(Signal::STOP)?;
            thread::sleep(FROZEN);
            server.signal(Signal::CONT)
        });
        let report = measured_quietly(&plan);
        if let Ok(frozen) = freezing.join() {
            frozen?;
        }
        report
    })?;
    let [service_p90, _] = in_milliseconds(&report.service_time_us);
    let [p90, p99] = in_milliseconds(&report.response_time_us);
    let freeze = Outcome {
        ok: (600.0..1500.0).contains(&p90) && (800.0..2000.0).contains(&p99),
        saw: format!("response time p90 {p90:.0} ms, p99 {p99:.0} ms where half of a run was frozen for 1000 ms"),
    };
    let contrast = Outcome {
        ok: service_p90 < 300.0,
        saw: format!("service time p90 {service_p90:.1} ms, as few questions were on their way when it froze"),
    };
    let due = RATE * duration.as_secs();
    let all = Outcome {
        ok: report.answers + report.missed == due && law_holds(&report),
        saw: format!(
            "{} answers and {} missed of {due} due, Little's law {}",
            report.answers,
            report.missed,
            holds(&report)
        ),
    };
    Ok(vec![("freeze-in-response-time", freeze), ("freeze-not-in-service-time", contrast), ("nothing-forgotten", all)])
}

/// Questions at a fixed rate: the server itself sees how many come, when, and over which connections.
fn steady_rate(sabotage: Option<Sabotage>) -> Result<Outcomes> {
    const CONNECTIONS: usize = 4;
    let server = Fake::start(Manner::default())?;
    let (rate, duration) = (250, Duration::from_secs(1));
    let plan = Plan {
        connections: CONNECTIONS,
        rate: Some(rate),
        warmup: Duration::ZERO,
        duration,
        sabotage,
        ..Plan::new(vec![server.address])
    };
    let report = measured_quietly(&plan)?;
    let arrivals = server.arrivals();
    let came = arrivals.len() as u64;
    let missed = report.missed;
    let rate_kept = Outcome {
        ok: came + missed == rate && missed <= rate / 5 && report.answers == came,
        saw: format!("{came} questions came in a second of {rate}, {missed} were missed"),
    };
    // The median does not mind what else the machine does now and then.
    let mut gaps: Vec<_> = arrivals.windows(2).map(|pair| milliseconds(pair[1].0 - pair[0].0)).collect();
    gaps.sort_unstable_by(f64::total_cmp);
    let gap = gaps.get(gaps.len() / 2).copied().unwrap_or(0.0);
    let usual = 1e3 / rate as f64;
    let mut shares = [0_u64; CONNECTIONS];
    arrivals.iter().for_each(|(_, connection)| shares[connection % CONNECTIONS] += 1);
    let [least, most] = extremes(&shares);
    let even = Outcome {
        ok: (0.5..=1.5).contains(&(gap / usual)) && most - least <= missed + 1,
        saw: format!("{gap:.2} ms between two questions of {usual:.2}, {least} to {most} over each connection"),
    };
    Ok(vec![("open-loop-rate", rate_kept), ("open-loop-spacing", even)])
}

/// A server that lies now and then, and counts its lies.
fn wrong_answers(sabotage: Option<Sabotage>) -> Result<Outcomes> {
    let server = Fake::start(Manner { wrong_every: 10, ..Manner::default() })?;
    let duration = Duration::from_millis(500);
    let plan = Plan { connections: 4, warmup: Duration::ZERO, duration, sabotage, ..Plan::new(vec![server.address]) };
    let report = measured_quietly(&plan)?;
    let (found, told) = (report.failures.wrong, server.wrong());
    let outcome = Outcome {
        ok: found == told && told > 0 && report.failures.all() == found && report.answers > 0,
        saw: format!("{found} found where {told} were told"),
    };
    Ok(vec![("wrong-answers", outcome)])
}

/// A server that hangs up on every tenth visitor, and counts them. Each comes again, late, and none is lost.
fn dropped_connections(sabotage: Option<Sabotage>) -> Result<Outcomes> {
    let server = Fake::start(Manner { drop_every: 10, ..Manner::default() })?;
    let (rate, duration) = (500, Duration::from_secs(1));
    let plan = Plan {
        churn: true,
        rate: Some(rate),
        retries: 20,
        warmup: Duration::ZERO,
        duration,
        sabotage,
        ..Plan::new(vec![server.address])
    };
    let report = measured_quietly(&plan)?;
    let (Retries { connections, questions, answered, given_up, .. }, dropped) = (report.retries, server.dropped());
    let [_, p99] = in_milliseconds(&report.response_time_us);
    let outcome = Outcome {
        ok: connections == dropped
            && dropped > 0
            && (1..=connections).contains(&questions)
            && (answered, given_up, report.failures.all()) == (questions, 0, 0)
            && report.answers + report.missed == rate
            && p99 >= SHORTEST_PAUSE,
        saw: format!(
            "{connections} connections made anew where {dropped} were dropped, {answered} of {questions} questions \
             answered after all, response time p99 {p99:.0} ms"
        ),
    };
    Ok(vec![("retries-counted", outcome)])
}

fn law_holds(report: &Report) -> bool {
    report.verdicts.iter().any(|verdict| verdict.name == "littles_law" && verdict.ok == Some(true))
}

fn holds(report: &Report) -> &'static str {
    if law_holds(report) { "holds" } else { "does not hold" }
}

/// p90 and p99.
fn in_milliseconds(times: &crate::load::Times) -> [f64; 2] {
    [times.p90, times.p99].map(|us| us.unwrap_or(0.0) / 1e3)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn extremes(counts: &[u64]) -> [u64; 2] {
    [counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0)]
}
