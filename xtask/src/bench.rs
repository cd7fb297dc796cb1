//! `cargo xtask bench`: every server under the same load, what it costs, and whether two of them differ at all.
//!
//! 1. `plan` says what is measured, in which order, and how long.
//! 2. `run` measures once: `subject` starts a server, `place` chooses the processors, `load` asks, `cost` looks at what the
//!    server used. `syscalls`, and memory in `cost`, have runs of their own.
//! 3. `results` keeps everything, with the `machine`, as JSON.
//! 4. `table`, `report`, `diff` and `readme` show it, by the rule in `statistics`.

mod canned;
mod cost;
mod diff;
mod figures;
mod load;
mod machine;
mod place;
mod plan;
mod progress;
mod readme;
mod report;
mod results;
mod run;
mod statistics;
mod subject;
mod syscalls;
mod table;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::Missing;
use crate::servers::SERVERS;
use crate::workspace::{self, Profile};
use machine::Machine;
use place::Place;
use plan::Plan;
use progress::Progress;
use results::{Level, Probe, Results, Row, SCHEMA, Settings};
use run::{Conditions, measure};
use subject::Setting;
pub(crate) use trials::trials;

/// Measures what an answer costs under every architecture
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Less of everything, in less than a minute after building
    #[arg(long)]
    quick: bool,
    /// Only this server; repeat it for more [default: all]
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// One more server of the protocol, in any language; it must listen on 127.0.0.1:{port}
    #[arg(long, value_name = "NAME='COMMAND {port}'")]
    peer: Vec<String>,
    /// How many connections are busy [default: 1,16,256,1000,10000; with --quick 1,16,256]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = plan::level)]
    connections: Vec<usize>,
    /// How often everything is measured [default: as often as fits, 7 at most; with --quick 5]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: Option<usize>,
    /// How long one measurement lasts, such as 500ms [default: as long as fits]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How many questions each connection has on their way
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pipeline: usize,
    /// What the result is called: it is written to target/bench/NAME
    #[arg(long, default_value = "latest", value_parser = plain_name)]
    name: String,
    /// Also write a table and a picture into the README of the project
    #[arg(long)]
    readme: bool,
    /// The same order and the same questions each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(clap::Subcommand)]
enum Instead {
    /// Draws the report of a result once more
    Report {
        /// A results.json, its folder, or its name under target/bench
        of: PathBuf,
    },
    /// Compares two results: which figures differ by more than noise
    Diff {
        /// A results.json, its folder, or its name under target/bench
        before: PathBuf,
        /// The same of the other
        after: PathBuf,
    },
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    match &flags.instead {
        None => bench(flags),
        Some(Instead::Diff { before, after }) => {
            print!("{}", diff::of(&found(before)?, &found(after)?));
            Ok(ExitCode::SUCCESS)
        }
        Some(Instead::Report { of }) => {
            let results = found(of)?;
            println!("{}", report::write(&results, &folder(&results.name)?)?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn bench(flags: &Flags) -> Result<ExitCode> {
    let mut plan = Plan::of(flags)?;
    let left_out = plan.fit(raise_descriptor_limit()?);
    ensure!(!plan.cells.is_empty(), "nothing is left to measure: {}", left_out.unwrap_or_default());
    let packages: BTreeSet<&str> = SERVERS.iter().map(|entry| entry.package).chain(["zen-client"]).collect();
    workspace::build_release(&packages.into_iter().collect::<Vec<_>>())?;
    let folder = folder(&flags.name)?;
    let mut results = measure_all(&plan, Profile::Release, &folder)?;
    results.notes.extend(left_out);
    results.name = flags.name.clone();
    results.settings.quick = flags.quick;
    let json = folder.join("results.json");
    results.write(&json)?;
    print!("{}", table::of(&results));
    println!("\n{}\n{}", json.display(), report::write(&results, &folder)?.display());
    if flags.readme {
        readme::write(&results)?;
    }
    Ok(if results.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Carries out a plan.
fn measure_all(plan: &Plan, profile: Profile, folder: &Path) -> Result<Results> {
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
            let (name, connections) = (&subject.name, cell.connections);
            // The same questions for all of a round.
            let seed = plan.seed.wrapping_add(round as u64) & u64::from(u32::MAX);
            match measure(&conditions, subject, connections, round, seed) {
                Ok(outcome) => {
                    let problem = outcome.problem.map(|it| format!("{name}, {connections} connections: {it}"));
                    problems.extend(problem);
                    rows[cell.subject].level_of(connections).rounds.push(outcome.measurement);
                    histograms.entry((cell.subject, connections)).or_default().extend(outcome.histogram);
                }
                Err(error) => problems.push(format!("{name}, {connections} connections: {error:#}")),
            }
            progress.did(&format!("round {}: {name}, {connections} connections", round + 1));
        }
        rounds = round + 1;
        longest = longest.max(begun.elapsed());
    }
    progress.end();
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

/// Where the result of this name lies.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target()?.join("bench").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// What a measurement takes on this machine beside its own time, from one that is thrown away.
fn besides(conditions: &mut Conditions<'_>, plan: &Plan) -> Duration {
    conditions.measured = TRIAL;
    let begun = Instant::now();
    // If it fails, so will those that count.
    let _ = plan.cells.first().map(|cell| measure(conditions, &plan.subjects[cell.subject], 1, 0, plan.seed));
    begun.elapsed().saturating_sub(TRIAL + run::warmup(TRIAL))
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

/// So that this process can be 10,000 idle clients. Returns how many it may be.
fn raise_descriptor_limit() -> Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the descriptor limit")?;
    Ok(maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX)))
}

/// A result by its path, or by its name.
fn found(place: &Path) -> Result<Results> {
    let by_name = workspace::target()?.join("bench").join(place);
    Results::read(if place.exists() { place } else { &by_name })
}

fn plain_name(text: &str) -> Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(text.chars().all(is_plain) && !text.starts_with('.') && !text.is_empty(), "letters, digits, - _ .");
    Ok(text.to_owned())
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
