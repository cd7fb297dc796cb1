//! Carries out a plan: single measurements first, then round after round, until all is measured or the time is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::machine::Machine;
use super::plan::{self, Plan};
use super::processors::Processors;
use super::progress::Progress;
use super::results::{Level, Probe, Results, Row, SCHEMA, Settings};
use super::run::{self, Conditions, measure};
use super::target::Setting;
use super::workload::SATURATED;
use super::{cost, statistics, syscalls};
use crate::harness::Missing;
use crate::workspace::Profile;

/// Carries out a plan.
pub(crate) fn measure_all(plan: &Plan, profile: Profile, folder: &Path) -> Result<Results> {
    let start = Instant::now();
    let processors = Processors::of_this_machine()?;
    let machine = Machine::here(if profile == Profile::Release { "release" } else { "debug" })?;
    let setting = Setting { profile, max_connections: plan.most_clients() + plan::SPARE, backlog: BACKLOG };
    let mut conditions = Conditions {
        setting,
        processors: &processors,
        workload: &plan.workload,
        pipeline: plan.pipeline,
        measured: Duration::ZERO,
        folder,
    };
    let mut notes = conditions_to_know(&machine, &processors);
    let mut problems = Vec::new();
    let mut progress = Progress::start(plan.targets.len() * 2 + plan.cells.len() * plan.rounds, plan.budget);

    let mut rows = Vec::new();
    for target in &plan.targets {
        let memory = match target.at_once {
            _ if target.is_duplicate => Probe::Missing(DUPLICATE.to_owned()),
            _ if plan.idle == 0 => Probe::Missing(ELSEWHERE.to_owned()),
            Some(at_once) => Probe::Missing(format!("it serves {at_once} at once")),
            None => probe(
                cost::idle(target, setting, &processors, plan.idle.min(target.most_clients())),
                &target.name,
                &mut problems,
            ),
        };
        progress.did(&format!("memory of {}", target.name));
        let system_calls = match target.is_duplicate {
            true => Probe::Missing(DUPLICATE.to_owned()),
            false if plan.workload.name != SATURATED => Probe::Missing(ELSEWHERE.to_owned()),
            false => probe(syscalls::per_answer(&conditions, target), &target.name, &mut problems),
        };
        progress.did(&format!("system calls of {}", target.name));
        rows.push(Row {
            name: target.name.clone(),
            family: target.family().to_owned(),
            is_duplicate: target.is_duplicate,
            command: target.shown(setting, &plan.workload.work),
            at_once: target.at_once,
            reported: target.start(setting, &plan.workload.work, &[]).ok().and_then(|running| running.reported()),
            system_calls,
            idle: memory,
            levels: Vec::new(),
        });
    }

    let overhead = overhead(&mut conditions, plan);
    conditions.measured = plan.measured_time(plan.budget.saturating_sub(start.elapsed()), overhead);
    let mut histograms: BTreeMap<_, Vec<(f64, u64)>> = BTreeMap::new();
    let mut failures: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    for round in 0..plan.rounds {
        let begun = Instant::now();
        // Only whole rounds count: in part of one, some servers would be measured at another time than the others.
        if !plan.is_exact && round > 0 && start.elapsed() + longest > plan.budget {
            notes.push(format!("{round} of {} rounds were completed in the time", plan.rounds));
            break;
        }
        for cell in plan.order(round) {
            let target = &plan.targets[cell.target];
            let case = format!("{}, {} connections", target.name, cell.connections);
            let mut failed = |what: String| failures.entry(case.clone()).or_default().push(what);
            // The same questions in all measurements of a round.
            let seed = plan.seed.wrapping_add(round as u64) & u64::from(u32::MAX);
            match measure(&conditions, target, cell.connections, round, seed) {
                Ok(outcome) => {
                    outcome.problem.map(&mut failed);
                    rows[cell.target].level_of(cell.connections).rounds.push(outcome.measurement);
                    histograms.entry((cell.target, cell.connections)).or_default().extend(outcome.histogram);
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
    for ((target, connections), histogram) in histograms {
        rows[target].level_of(connections).latency = statistics::percentiles(&histogram);
    }
    rows.iter_mut().for_each(|row| row.levels.sort_by_key(|level| level.connections));
    let control = plan.control.map(|control| (&plan.targets[control], plan.targets[control].duplicate()));
    Ok(Results {
        schema: SCHEMA.to_owned(),
        name: String::new(),
        taken: humantime::format_rfc3339_seconds(SystemTime::now() - start.elapsed()).to_string(),
        settings: Settings {
            workload: plan.workload.clone(),
            quick: false,
            rounds,
            seconds: conditions.measured.as_secs_f64(),
            pipeline: plan.pipeline,
            seed: plan.seed,
            max_connections: setting.max_connections,
            backlog: setting.backlog,
            control: control.map(|(one, duplicate)| (one.name.clone(), duplicate.name)),
            server_processors: processors.server.clone(),
            load_processors: processors.load.clone(),
            load_threads: processors.load.len(),
            took_seconds: start.elapsed().as_secs_f64(),
        },
        machine,
        servers: rows,
        problems,
        notes,
    })
}

/// Returns the additional time of a measurement on this machine: the mean of some that are thrown away.
fn overhead(conditions: &mut Conditions<'_>, plan: &Plan) -> Duration {
    let fewest_connections = |target| plan.cells.iter().find(|cell| cell.target == target);
    let mut tried: Vec<_> = (0..plan.targets.len()).filter_map(fewest_connections).collect();
    // At a fixed rate, the load waits until the timeout for clients that a server leaves unserved, so each target is
    // tried.
    tried.truncate(if plan.workload.is_closed() { 1 } else { usize::MAX });
    conditions.measured = TRIAL;
    let begun = Instant::now();
    for cell in &tried {
        // If it fails, so will those that count.
        let _ = measure(conditions, &plan.targets[cell.target], cell.connections, 0, plan.seed);
    }
    let each = begun.elapsed() / tried.len().max(1) as u32;
    each.saturating_sub(TRIAL + run::warmup(TRIAL, Duration::ZERO))
}

/// Returns notes about circumstances that make the figures less reliable.
fn conditions_to_know(machine: &Machine, processors: &Processors) -> Vec<String> {
    let mut notes = Vec::new();
    if !processors.is_apart() {
        notes.push("server and load shared the only processor".to_owned());
    }
    if machine.load_average > BUSY {
        let load = machine.load_average;
        notes.push(format!("other programs kept the machine busy at the start (load average {load:.1})"));
    }
    notes
}

/// Turns an outcome into a probe: a missing tool is stated, and an error is a problem.
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

/// The workloads differ in what an answer waits for, not in its system calls.
const ELSEWHERE: &str = "counted in the workload saturated";
/// A second name has the same system calls and memory.
const DUPLICATE: &str = "counted under its first name";
const TRIAL: Duration = Duration::from_millis(60);
/// Backlog in which no client is dropped while 10,000 connect together; the kernel cuts it to net.core.somaxconn.
const BACKLOG: usize = 4096;
/// The load average of an idle machine is below this.
const BUSY: f64 = 0.5;
