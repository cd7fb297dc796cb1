//! `cargo xtask bench`: measures what an answer costs on every server under the same load, and which servers differ.
//!
//! 1. `plan` lists what is measured, in which order, and for how long; `whole` carries it out.
//! 2. `run` makes one measurement: `target` starts a server, `processors` pins server and load, `load` runs the
//!    clients, and `cost` reads the processor time that the server used. System calls (`syscalls`) and memory (`cost`)
//!    are measured separately.
//! 3. `results` stores all figures and the `machine` as JSON.
//! 4. `ranking` sorts the servers by cost, with the rule in `statistics`. `table`, `report` and `readme` show the
//!    result; `diff` compares two results.
//! 5. `capacity` calculates how many machines a load needs.

pub(crate) mod capacity;
pub(crate) mod choose;
mod cost;
mod diff;
mod fixture;
mod format;
pub(crate) mod load;
mod machine;
mod plan;
mod processors;
mod progress;
mod ranking;
mod readme;
mod report;
mod results;
mod run;
mod statistics;
mod syscalls;
mod table;
mod target;
mod trials;
mod whole;
mod workload;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::servers::SERVERS;
use crate::workspace::{self, Profile};
use plan::Plan;
use processors::Processors;
use results::Results;
pub(crate) use trials::trials;
use whole::measure_all;
use workload::Workload;

/// Measures what an answer costs under every architecture
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,
    /// Measure fewer connections and shorter rounds, within a minute after building
    #[arg(long)]
    quick: bool,
    /// The workload: saturated, mostly-idle, churn, slow-answers, heavy-answers, mixed; may be repeated
    #[arg(long, value_name = "NAME", default_value = workload::SATURATED)]
    workload: Vec<String>,
    /// Only this server; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// Another server of the protocol, in any language; it must listen on 127.0.0.1:{port}, and do {work}
    #[arg(long, value_name = "NAME='COMMAND {port}'")]
    peer: Vec<String>,
    /// How many clients are connected [default: as the workload says]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = plan::level)]
    connections: Vec<usize>,
    /// The number of rounds [default: as many as the time allows, at most 7; with --quick 5]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: Option<usize>,
    /// How long one measurement lasts, such as 500ms [default: as long as the time allows]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How many questions each connection sends before it waits for an answer
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pipeline: usize,
    /// Name of the result, which is written to target/bench/NAME
    #[arg(long, default_value = "latest", value_parser = plain_name)]
    name: String,
    /// Measure what the project's READMEs compare, within half an hour, and write their table and picture
    #[arg(long, conflicts_with_all = ["workload", "server", "peer", "connections"])]
    readme: bool,
    /// Measure in the same order and ask the same questions each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// Writes the report of a stored result again
    Report {
        /// A results.json, its folder, or its name under target/bench
        of: PathBuf,
    },
    /// Compares two results and lists the figures that differ by more than noise
    Diff {
        /// A results.json, its folder, or its name under target/bench
        before: PathBuf,
        /// The other result: a results.json, its folder, or its name
        after: PathBuf,
    },
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    match &flags.subcommand {
        None => bench(flags),
        Some(Subcommand::Diff { before, after }) => {
            print!("{}", diff::of(&read_result(before)?, &read_result(after)?));
            Ok(ExitCode::SUCCESS)
        }
        Some(Subcommand::Report { of }) => {
            let results = read_result(of)?;
            println!("{}", report::write(&results, &folder(&results.name)?)?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn bench(flags: &Flags) -> Result<ExitCode> {
    let (workloads, servers) = if flags.readme {
        (readme::WORKLOADS.map(str::to_owned).to_vec(), readme::servers())
    } else {
        (flags.workload.clone(), flags.server.clone())
    };
    let processors = Processors::of_this_machine()?.server.len();
    let plan = |name: &String| Plan::of(flags, &servers, Workload::named(name, flags.quick, processors)?);
    let plans = workloads.iter().map(plan).collect::<Result<Vec<_>>>()?;
    build()?;
    let mut all = Vec::new();
    for plan in plans {
        let results = measure_and_store(plan, &flags.name, flags.quick)?;
        print!("{}", table::of(&results));
        let folder = folder(&results.name)?;
        println!("\n{}\n{}\n", folder.join("results.json").display(), report::write(&results, &folder)?.display());
        all.push(results);
    }
    if flags.readme {
        readme::write(&all)?;
    }
    let has_no_problems = all.iter().all(|results| results.problems.is_empty());
    Ok(if has_no_problems { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the servers and the client in release mode.
fn build() -> Result<()> {
    let packages: BTreeSet<&str> = SERVERS.iter().map(|entry| entry.package).chain(["zen-client"]).collect();
    workspace::build_release(&packages.into_iter().collect::<Vec<_>>())
}

/// Carries out a plan and stores the result: under `name` for the default workload, else under `name/WORKLOAD`.
fn measure_and_store(mut plan: Plan, name: &str, is_quick: bool) -> Result<Results> {
    let left_out = plan.fit(raise_descriptor_limit()?);
    ensure!(!plan.cells.is_empty(), "nothing is left to measure: {}", left_out.unwrap_or_default());
    let is_default = plan.workload.name == workload::SATURATED;
    let name = if is_default { name.to_owned() } else { format!("{name}/{}", plan.workload.name) };
    let folder = folder(&name)?;
    let mut results = measure_all(&plan, Profile::Release, &folder)?;
    results.notes.extend(left_out);
    results.name = name;
    results.settings.quick = is_quick;
    results.write(&folder.join("results.json"))?;
    Ok(results)
}

/// Returns the folder of the result with this name, which is created if it does not exist.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target()?.join("bench").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Raises this process's descriptor limit to its maximum, and returns that maximum.
fn raise_descriptor_limit() -> Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the descriptor limit")?;
    Ok(maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX)))
}

/// Reads a result. `name` is its path, or its name under `target/bench`.
fn read_result(name: &Path) -> Result<Results> {
    let by_name = workspace::target()?.join("bench").join(name);
    Results::read(if name.exists() { name } else { &by_name })
}

/// Parses the name of a result, which is also the name of a folder.
fn plain_name(text: &str) -> Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        text.chars().all(is_plain) && !text.starts_with('.') && !text.is_empty(),
        "expected letters, digits, -, _ and ."
    );
    Ok(text.to_owned())
}
