//! A plan carried out: probes first, then round after round, until all is measured or the time is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::machine::Machine;
use super::place::Place;
use super::plan::{self, Plan};
use super::progress::Progress;
use super::results::{Level, Probe, Results, Row, SCHEMA, Settings};
use super::run::{self, Conditions, measure};
use super::subject::Setting;
use super::{cost, statistics, syscalls};
use crate::harness::Missing;
use crate::workspace::Profile;

/// Carries out a plan.
pub(crate) fn measure_all(plan: &Plan, profile: Profile, folder: &Path) -> Result<Results> {
    let start = Instant::now();
    let place = Place::of_this_machine()?;
    let machine = Machine::here(if profile == Profile::Release { "release" } else { "debug" })?;
    let setting = Setting { profile, max_connections: plan.most_clients() + plan::SPARE, backlog: BACKLOG };
    let mut conditions =
        Conditions { setting, place: &place, pipeline: plan.pipeline, measured: Duration::ZERO, folder };
    let mut notes = conditions_to_know(&machine, &place);
    let mut problems = Vec::new();
    let mut progress = Progress::start(plan.subjects.len() * 2 + plan.cells.len() * plan.rounds, plan.budget);

    let mut rows = Vec::new();
    for subject in &plan.subjects {
        let memory = match subject.at_once {
            _ if subject.is_twin => Probe::Missing(TWIN.to_owned()),
            Some(at_once) => Probe::Missing(format!("it serves {at_once} at once")),
            None => probe(cost::idle(subject, setting, &place, plan.idle), &subject.name, &mut problems),
        };
        progress.did(&format!("memory of {}", subject.name));
        let system_calls = match subject.is_twin {
            true => Probe::Missing(TWIN.to_owned()),
            false => probe(syscalls::per_answer(&conditions, subject), &subject.name, &mut problems),
        };
        progress.did(&format!("system calls of {}", subject.name));
        rows.push(Row {
            name: subject.name.clone(),
            family: subject.family().to_owned(),
            is_twin: subject.is_twin,
            command: subject.shown(setting),
            at_once: subject.at_once,
            reported: subject.start(setting, &[]).ok().and_then(|running| running.reported()),
            system_calls,
            idle: memory,
            levels: Vec::new(),
        });
    }

    let besides = besides(&mut conditions, plan);
    conditions.measured = plan.measured_time(plan.budget.saturating_sub(start.elapsed()), besides);
    let mut histograms: BTreeMap<_, Vec<(f64, u64)>> = BTreeMap::new();
    let mut failures: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    for round in 0..plan.rounds {
        let begun = Instant::now();
        // Only whole rounds count: in part of one some servers would have been measured at another time than the others.
        if !plan.is_exact && round > 0 && start.elapsed() + longest > plan.budget {
            notes.push(format!("{round} of {} rounds fitted into the time", plan.rounds));
            break;
        }
        for cell in plan.order(round) {
            let subject = &plan.subjects[cell.subject];
            let case = format!("{}, {} connections", subject.name, cell.connections);
            let mut failed = |what: String| failures.entry(case.clone()).or_default().push(what);
            // The same questions for all of a round.
            let seed = plan.seed.wrapping_add(round as u64) & u64::from(u32::MAX);
            match measure(&conditions, subject, cell.connections, round, seed) {
                Ok(outcome) => {
                    outcome.problem.map(&mut failed);
                    rows[cell.subject].level_of(cell.connections).rounds.push(outcome.measurement);
                    histograms.entry((cell.subject, cell.connections)).or_default().extend(outcome.histogram);
                }
                Err(error) => failed(format!("{error:#}")),
            }
            progress.did(&format!("round {}: {case}", round + 1));
        }
        rounds = round + 1;
        longest = longest.max(begun.elapsed());
    }
    progress.end();
    problems.extend(failures.into_iter().map(|(case, rounds)| format!("{case}: {}", rounds.join("; "))));
    for ((subject, connections), histogram) in histograms {
        rows[subject].level_of(connections).latency = statistics::percentiles(&histogram);
    }
    rows.iter_mut().for_each(|row| row.levels.sort_by_key(|level| level.connections));
    let control = plan.control.map(|control| (&plan.subjects[control], plan.subjects[control].twin()));
    Ok(Results {
        schema: SCHEMA.to_owned(),
        name: String::new(),
        taken: humantime::format_rfc3339_seconds(SystemTime::now() - start.elapsed()).to_string(),
        settings: Settings {
            quick: false,
            rounds,
            seconds: conditions.measured.as_secs_f64(),
            pipeline: plan.pipeline,
            seed: plan.seed,
            max_connections: setting.max_connections,
            backlog: setting.backlog,
            control: control.map(|(one, twin)| (one.name.clone(), twin.name)),
            server_processors: place.server.clone(),
            load_processors: place.load.clone(),
            load_threads: place.load.len(),
            took_seconds: start.elapsed().as_secs_f64(),
        },
        machine,
        servers: rows,
        problems,
        notes,
    })
}

/// What a measurement takes on this machine beside its own time, from one that is thrown away.
fn besides(conditions: &mut Conditions<'_>, plan: &Plan) -> Duration {
    conditions.measured = TRIAL;
    let begun = Instant::now();
    // If it fails, so will those that count.
    let _ = plan.cells.first().map(|cell| measure(conditions, &plan.subjects[cell.subject], 1, 0, plan.seed));
    begun.elapsed().saturating_sub(TRIAL + run::warmup(TRIAL, 1))
}

/// What makes figures worth less than they look.
fn conditions_to_know(machine: &Machine, place: &Place) -> Vec<String> {
    let mut notes = Vec::new();
    if !place.is_apart() {
        notes.push("server and load shared the only processor".to_owned());
    }
    if machine.load_average > BUSY {
        let load = machine.load_average;
        notes.push(format!("the machine was busy with something else when this began (load average {load:.1})"));
    }
    notes
}

/// A probe that lacks a tool says so; one that fails is a problem.
fn probe<T>(done: Result<T>, name: &str, problems: &mut Vec<String>) -> Probe<T> {
    match done {
        Ok(found) => Probe::Found(found),
        Err(error) if error.is::<Missing>() => Probe::Missing(error.to_string()),
        Err(error) => {
            problems.push(format!("{name}: {error:#}"));
            Probe::Missing(format!("{error:#}"))
        }
    }
}

impl Row {
    fn level_of(&mut self, connections: usize) -> &mut Level {
        let at = self.levels.iter().position(|level| level.connections == connections).unwrap_or_else(|| {
            self.levels.push(Level { connections, rounds: Vec::new(), latency: Vec::new() });
            self.levels.len() - 1
        });
        &mut self.levels[at]
    }
}

/// Of what is counted and not measured, a second name would say the same.
const TWIN: &str = "counted under its first name";
const TRIAL: Duration = Duration::from_millis(60);
/// So long that nobody is refused while 10,000 connect at once; the kernel cuts it to net.core.somaxconn.
const BACKLOG: usize = 4096;
/// On an idle machine the load average is below this.
const BUSY: f64 = 0.5;
