//! `cargo xtask bench`: every server under the same load, what it costs, and whether two of them differ at all.
//!
//! 1. `plan` says what is measured, in which order, and how long; `whole` carries it out.
//! 2. `run` measures once: `subject` starts a server, `place` chooses the processors, `load` asks, `cost` looks at what the
//!    server used. `syscalls`, and memory in `cost`, have runs of their own.
//! 3. `results` keeps everything, with the `machine`, as JSON.
//! 4. `ranking` says who is cheapest, by the rule in `statistics`; `table`, `report`, `readme` and `diff` show it.
//! 5. `capacity` calculates how many machines are needed.

mod canned;
pub(crate) mod capacity;
mod cost;
mod diff;
mod figures;
mod load;
mod machine;
mod place;
mod plan;
mod progress;
mod ranking;
mod readme;
mod report;
mod results;
mod run;
mod statistics;
mod subject;
mod syscalls;
mod table;
mod trials;
mod whole;

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
use results::Results;
pub(crate) use trials::trials;
use whole::measure_all;

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

/// Where the result of this name lies.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = workspace::target()?.join("bench").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
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
