//! `cargo xtask test-all`: format, clippy, unit tests, the invariants, the READMEs, the experiments, the deployment,
//! and the matrix server × case.
//!
//! A stage that fails does not hide those after it; the last line counts all their tests together.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::harness::is_ci;
use crate::trial::{Tally, Trial};
use crate::{bench, challenge, deploy, lab, manual, matrix, package, readme, tidy, trace, trial, workspace};

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
                Ok(Tally::one(succeeds(workspace::cargo().args(*arguments))))
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
        let tally = tally.unwrap_or_else(|error| {
            println!("{}: {error:#}", stage.name);
            Tally::one(false)
        });
        if tally.passed + tally.failed > 0 {
            let time = start.elapsed().as_secs_f32();
            println!("---- {}: {} passed, {} failed, {time:.1} s\n", stage.name, tally.passed, tally.failed);
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
    println!("{} passed, {} failed", all.passed, all.failed);
    Ok(if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    Stage { name: "lab", work: Work::Trials(lab::trials) },
    Stage { name: "deploy", work: Work::Trials(deploy::trials) },
    Stage { name: "matrix", work: Work::Trials(matrix::trials) },
];

impl Flags {
    /// Whether a test of the stage may be selected. A filter that begins with a stage's name selects in that stage
    /// only, so that the others need not be built.
    fn concerns(&self, stage: &Stage) -> bool {
        let names = |filter: &str, stage: &Stage| filter.split("::").next() == Some(stage.name);
        let may_select = |filter: &String| match STAGES.iter().find(|stage| names(filter, stage)) {
            Some(named) => named.name == stage.name,
            None => matches!(stage.work, Work::Trials(_)),
        };
        self.filter.is_empty() || self.filter.iter().any(may_select)
    }

    /// Whether tests that take long run, too: in CI, or with any filter.
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

/// Runs the command where its output can be seen.
fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// Unit, property and doc tests, counted from what libtest says of each binary.
fn unit_tests() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
    // Doc tests are built where temporary files lie, and run from there, which may be forbidden.
    let folder = workspace::target()?.join("tmp");
    fs::create_dir_all(&folder)?;
    command.env("TMPDIR", folder);
    let mut child = command.spawn().context("cannot run cargo test")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("it is piped")?).lines() {
        let line = line?;
        tally += counted(&line).unwrap_or_default();
        println!("{line}");
    }
    let status = child.wait()?;
    // What does not build, or aborts, has no line that counts it.
    ensure!(status.success() || tally.failed > 0, "cargo test ended with {status}");
    Ok(tally)
}

/// The numbers in `test result: ok. 3 passed; 1 failed; …`.
fn counted(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
    Some(Tally { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s";
        let tally = counted(line).expect("it is such a line");
        assert_eq!((tally.passed, tally.failed), (12, 3));
        assert!(counted("running 4 tests").is_none());
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
