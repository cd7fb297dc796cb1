//! `cargo xtask test-all`: runs every test of the project in stages, from `fmt` to the matrix server × case. [`STAGES`]
//! lists them.
//!
//! A failed stage does not stop the others. The last lines name the failed tests and give the totals.

use std::fs;
use std::io::{BufRead, BufReader};
use std::mem;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::harness::is_ci;
use crate::trial::{Tally, Trial};
use crate::{bench, challenge, deploy, lab, manual, matrix, package, play, readme, tidy, trace, trial, workspace};

/// Tests everything, or what has one of the filters in its name
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Only tests that have one of these in their name, which begins with the stage
    filter: Vec<String>,
    /// List the tests instead of running them
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let mut all = Tally::default();
    let mut names: Vec<String> = Vec::new();
    for stage in STAGES.iter().filter(|stage| flags.concerns(stage)) {
        let start = Instant::now();
        let tally = match &stage.work {
            Work::Command(_) | Work::UnitTests if flags.list => {
                names.push(stage.name.to_owned());
                println!("{}", stage.name);
                continue;
            }
            Work::Command(arguments) => {
                names.push(stage.name.to_owned());
                announce(stage);
                run_command(arguments)
            }
            Work::UnitTests => {
                names.push(stage.name.to_owned());
                announce(stage);
                unit_tests()
            }
            Work::Trials(trials) => trials().map(|mut trials| {
                trials.retain(|trial| flags.selects(&trial.name) && (flags.runs_slow() || !trial.is_slow));
                names.extend(trials.iter().map(|trial| trial.name.clone()));
                if flags.list {
                    trials.iter().for_each(|trial| println!("{}", trial.name));
                    return Tally::default();
                }
                if !trials.is_empty() {
                    announce(stage);
                }
                trial::run(trials)
            }),
        };
        let tally = tally.unwrap_or_else(|error| Tally::one_failure(format!("{}: {error:#}", stage.name)));
        let failed = tally.failures.len();
        if tally.passed > 0 || failed > 0 {
            let time = start.elapsed().as_secs_f32();
            println!("---- {}: {} passed, {failed} failed, {time:.1} s\n", stage.name, tally.passed);
        }
        all += tally;
    }
    for filter in &flags.filter {
        ensure!(
            names.iter().any(|name| name.contains(filter.as_str())),
            "no test has {filter:?} in its name: try --list"
        );
    }
    if flags.list {
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &all.failures {
        println!("failed: {failure}");
    }
    println!("{} passed, {} failed", all.passed, all.failures.len());
    // A run without any test is a failure: it has shown nothing.
    Ok(if all.failures.is_empty() && all.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Stage {
    name: &'static str,
    work: Work,
}

enum Work {
    /// One cargo command that counts as one test.
    Command(&'static [&'static str]),
    UnitTests,
    Trials(fn() -> Result<Vec<Trial>>),
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", work: Work::Command(&["fmt", "--all", "--check"]) },
    Stage {
        name: "clippy",
        work: Work::Command(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Stage { name: "unit", work: Work::UnitTests },
    Stage { name: "tidy", work: Work::Trials(tidy::trials) },
    Stage { name: "readme", work: Work::Trials(readme::trials) },
    Stage { name: "manual", work: Work::Trials(manual::trials) },
    Stage { name: "package", work: Work::Trials(package::trials) },
    Stage { name: "challenge", work: Work::Trials(challenge::trials::trials) },
    Stage { name: "bench", work: Work::Trials(bench::trials) },
    Stage { name: "trace", work: Work::Trials(trace::trials) },
    Stage { name: "play", work: Work::Trials(play::trials) },
    Stage { name: "lab", work: Work::Trials(lab::trials) },
    Stage { name: "deploy", work: Work::Trials(deploy::trials) },
    Stage { name: "matrix", work: Work::Trials(matrix::trials) },
];

impl Flags {
    /// Returns whether a filter may select a test of the stage. A filter that begins with a stage's name selects in
    /// that stage only, so that the others need not be built.
    fn concerns(&self, stage: &Stage) -> bool {
        let names = |filter: &str, stage: &Stage| filter.split("::").next() == Some(stage.name);
        let may_select = |filter: &String| match STAGES.iter().find(|stage| names(filter, stage)) {
            Some(named) => named.name == stage.name,
            None => matches!(stage.work, Work::Trials(_)),
        };
        self.filter.is_empty() || self.filter.iter().any(may_select)
    }

    /// Returns whether slow tests run too: in CI, or with any filter.
    fn runs_slow(&self) -> bool {
        is_ci() || !self.filter.is_empty()
    }

    fn selects(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|filter| name.contains(filter.as_str()))
    }
}

fn announce(stage: &Stage) {
    println!("---- {}", stage.name);
}

/// Runs a stage that is one cargo command, with its output visible.
fn run_command(arguments: &[&str]) -> Result<Tally> {
    let status = workspace::cargo().args(arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(Tally { passed: 1, failures: Vec::new() })
}

/// Runs unit, property and doc tests, and takes the results from the lines that libtest prints.
fn unit_tests() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
    command.env("RUST_TEST_THREADS", trial::THREADS.to_string());
    // Doc tests are built and run in the folder of temporary files, from which programs may not be executable.
    let folder = workspace::target()?.join("tmp");
    fs::create_dir_all(&folder)?;
    command.env("TMPDIR", folder);
    let mut child = command.spawn().context("cannot run cargo test")?;
    let mut results = LibtestResults::default();
    for line in BufReader::new(child.stdout.take().context("stdout is not piped")?).lines() {
        let line = line?;
        results.add_line(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    // A binary that does not build, or aborts, prints no results.
    ensure!(status.success() || !results.tally.failures.is_empty(), "cargo test ended with {status}");
    Ok(results.tally)
}

/// Test results, parsed from the output of libtest.
#[derive(Default)]
struct LibtestResults {
    tally: Tally,
    /// Lines after the last `failures:` that may be names of failed tests.
    names: Vec<String>,
}

impl LibtestResults {
    /// Takes the next line. A test binary prints `failures:` twice, before the output of its failed tests and before
    /// their names, and then a line of counts.
    fn add_line(&mut self, line: &str) {
        if line == "failures:" {
            self.names.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.names.push(format!("unit: {name}"));
        } else if let Some(passed) = passed(line) {
            let names = mem::take(&mut self.names);
            let failures = if line.starts_with("test result: ok") { Vec::new() } else { names };
            self.tally += Tally { passed, failures };
        }
    }
}

/// Parses the number of passed tests in `test result: ok. 3 passed; 1 failed; …`.
fn passed(line: &str) -> Option<u64> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    counts.split_once(" passed;")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted() {
        let output = "
running 4 tests
..
failures:

---- frame::split stdout ----
thread 'frame::split' panicked:
    an indented line

failures:
    frame::split
    src/lib.rs - Answer (line 7)

test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s

running 1 test
.
    an indented line
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let mut results = LibtestResults::default();
        output.lines().for_each(|line| results.add_line(line));
        assert_eq!(results.tally.passed, 13);
        assert_eq!(results.tally.failures, ["unit: frame::split", "unit: src/lib.rs - Answer (line 7)"]);
    }

    #[test]
    fn a_filter_searches_the_stage_that_it_names_or_all() {
        let flags =
            |filter: &str| Flags { filter: filter.split_whitespace().map(str::to_owned).collect(), list: false };
        let concerned = |filter: &str| -> Vec<&str> {
            let flags = flags(filter);
            STAGES.iter().filter(|stage| flags.concerns(stage)).map(|stage| stage.name).collect()
        };
        let searched: Vec<&str> =
            STAGES.iter().filter(|stage| matches!(stage.work, Work::Trials(_))).map(|stage| stage.name).collect();
        assert_eq!(concerned("").len(), STAGES.len());
        assert_eq!(concerned("tidy"), ["tidy"]);
        assert_eq!(concerned("matrix::poll:: fmt"), ["fmt", "matrix"]);
        assert_eq!(concerned("poll::"), searched);
        assert!(flags("poll::").selects("matrix::poll::capacity::processes"));
    }

    #[test]
    fn a_filter_that_selects_nothing_fails() {
        let flags = Flags { filter: vec!["fmt::no_such_test".to_owned()], list: true };
        assert!(run(&flags).is_err());
    }
}
