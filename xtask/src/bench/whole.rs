//! Carries out a plan: first memory and system calls of each server, then the rounds, until the time is over.

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

/// Carries out a plan and returns all results. `folder` is for temporary files.
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
        progress.step_done(&format!("memory of {}", target.name));
        let system_calls = match target.is_duplicate {
            true => Probe::Missing(DUPLICATE.to_owned()),
            false if plan.workload.name != SATURATED => Probe::Missing(ELSEWHERE.to_owned()),
            false => probe(syscalls::per_answer(&conditions, target), &target.name, &mut problems),
        };
        progress.step_done(&format!("system calls of {}", target.name));
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
        // Only whole rounds are measured. With part of a round, some servers would have more measurements than others.
        if !plan.is_exact && round > 0 && start.elapsed() + longest > plan.budget {
            notes.push(format!("there was time for {round} of {} rounds", plan.rounds));
            break;
        }
        for cell in plan.order(round) {
            let target = &plan.targets[cell.target];
            let case = format!("{}, {} connections", target.name, cell.connections);
            let mut failed = |what: String| failures.entry(case.clone()).or_default().push(what);
            // In one round, every server gets the same questions.
            let seed = plan.seed.wrapping_add(round as u64) & u64::from(u32::MAX);
            match measure(&conditions, target, cell.connections, round, seed) {
                Ok(outcome) => {
                    outcome.problem.map(&mut failed);
                    rows[cell.target].level_of(cell.connections).rounds.push(outcome.measurement);
                    histograms.entry((cell.target, cell.connections)).or_default().extend(outcome.histogram);
                }
                Err(error) => failed(format!("{error:#}")),
            }
            progress.step_done(&format!("round {}: {case}", round + 1));
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

/// Returns the time that a measurement takes in addition to its warm-up and its length, as the mean of some trials.
fn overhead(conditions: &mut Conditions<'_>, plan: &Plan) -> Duration {
    let fewest_connections = |target| plan.cells.iter().find(|cell| cell.target == target);
    let mut tried: Vec<_> = (0..plan.targets.len()).filter_map(fewest_connections).collect();
    // At a fixed rate, the load waits until the timeout for clients that a server leaves unserved, so each target is
    // tried.
    tried.truncate(if plan.workload.is_closed() { 1 } else { usize::MAX });
    conditions.measured = TRIAL;
    let begun = Instant::now();
    for cell in &tried {
        // An error is ignored here, because the measurement in the first round reports it.
        let _ = measure(conditions, &plan.targets[cell.target], cell.connections, 0, plan.seed);
    }
    let each = begun.elapsed() / tried.len().max(1) as u32;
    each.saturating_sub(TRIAL + run::warmup(TRIAL, Duration::ZERO))
}

/// Returns notes about circumstances that make the figures less reliable.
fn conditions_to_know(machine: &Machine, processors: &Processors) -> Vec<String> {
    let mut notes = Vec::new();
    if !processors.is_apart() {
        notes.push("server and load shared one processor, because there is no other".to_owned());
    }
    if machine.load_average > BUSY {
        let load = machine.load_average;
        notes.push(format!("the machine was busy with other programs at the start (load average {load:.1})"));
    }
    notes
}

/// Converts the result of a measurement to a probe. Any error but a missing tool is also added to `problems`.
fn probe<T>(result: Result<T>, name: &str, problems: &mut Vec<String>) -> Probe<T> {
    match result {
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

/// The reason why a workload has no count of system calls, or no memory: another workload measures them.
const ELSEWHERE: &str = "counted in the workload saturated";
/// The reason why a duplicate has no count of system calls and no memory: they are those of the first.
const DUPLICATE: &str = "counted under its first name";
/// The length of the measurements by which the overhead is estimated.
const TRIAL: Duration = Duration::from_millis(60);
/// The backlog of every server. It is long, because up to 10,000 clients connect at the same time; the kernel limits it
/// to net.core.somaxconn.
const BACKLOG: usize = 4096;
/// The load average from which the machine counts as busy with other programs.
const BUSY: f64 = 0.5;
