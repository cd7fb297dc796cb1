//! `cargo xtask lab`: the ancestor's claims, and the bugs that are left in its servers, as experiments with the real ones.
//!
//! ```console
//! $ cargo xtask lab --list
//! $ cargo xtask lab backlog frozen
//! $ cargo xtask lab all
//! ```
//!
//! A row of [`EXPERIMENTS`] says what is claimed and what a reader is to predict; its function does it, notes what it sees, and fails
//! if that has not the shape described: more or fewer, before or after, a count, a ratio. So each row is a test, too.

mod apparatus;
mod failing;
mod framing;
mod notes;
mod queueing;
mod readiness;
mod taking_turns;
mod waiting;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::harness::Missing;
use crate::trial::Trial;
use crate::workspace;
use notes::{Notes, paragraph, side_by_side};

/// Puts claims about servers to the test
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// The experiments to do; `all` does every one
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// List them instead
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    if flags.list || flags.names.is_empty() {
        EXPERIMENTS.iter().for_each(|experiment| println!("{:14} {}", experiment.name, experiment.claim));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&flags.names)?;
    let broken = workspace::build()?;
    if !broken.is_empty() {
        bail!("these do not build: {}", broken.join(", "));
    }
    let outcomes: Vec<_> = chosen.iter().map(|experiment| (experiment.name, experiment.present())).collect();
    let with = |outcome| -> Vec<&str> {
        outcomes.iter().filter(|(_, other)| *other == outcome).map(|(name, _)| *name).collect()
    };
    println!("{} came out as described", with(Outcome::AsDescribed).len());
    let (otherwise, not_tried) = (with(Outcome::Otherwise), with(Outcome::NotTried));
    for (names, what) in [(&otherwise, "otherwise"), (&not_tried, "not tried")] {
        if !names.is_empty() {
            println!("{} {what}: {}", names.len(), names.join(", "));
        }
    }
    Ok(if otherwise.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Experiment>> {
    if names.iter().any(|name| name == "all") {
        return Ok(EXPERIMENTS.iter().collect());
    }
    let called = |name: &String| {
        let found = EXPERIMENTS.iter().find(|experiment| experiment.name == name);
        found.with_context(|| format!("no experiment is called {name:?}; lab --list names them"))
    };
    names.iter().map(called).collect()
}

/// Whether an experiment has this name.
#[cfg(test)]
pub(crate) fn is_experiment(name: &str) -> bool {
    EXPERIMENTS.iter().any(|experiment| experiment.name == name)
}

/// Each experiment as a test of its outcome.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    let trials = EXPERIMENTS.iter().map(|experiment| {
        let broken = broken.clone();
        let trial = Trial::new(format!("lab::{}", experiment.name), move || {
            if !broken.is_empty() {
                bail!("these do not build: {}", broken.join(", "));
            }
            let mut notes = Notes::brief();
            // A missing tool is told by its type: nothing may be wrapped around it.
            (experiment.run)(&mut notes).map_err(|error| match error.is::<Missing>() {
                true => error,
                false => error.context(format!("seen: {}; but", notes.seen().join("; "))),
            })
        });
        if experiment.is_alone { trial.alone() } else { trial }
    });
    Ok(trials.collect())
}

/// A claim, and how it is put to the test.
pub(crate) struct Experiment {
    name: &'static str,
    /// What is said.
    claim: &'static str,
    /// What the reader is to predict.
    question: &'static str,
    /// Does it and notes what is seen. An error, if that has not the shape described.
    run: fn(&mut Notes) -> Result<()>,
    /// Why it comes out as it does.
    why: &'static str,
    /// Where to read on: files of the checkout.
    read: &'static [&'static str],
    /// For what needs a quiet machine: nothing runs beside it in `test-all`.
    is_alone: bool,
}

impl Experiment {
    /// Tells and does it for a reader.
    fn present(&self) -> Outcome {
        println!("──── {}\n\n{}\n", self.name, paragraph("It is said:", self.claim));
        println!("{}", paragraph("Predict:", self.question));
        // Only a person at a terminal can think about it.
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            println!("\nWhat do you expect? Press Enter to see.");
            let _ = io::stdin().read_line(&mut String::new());
        }
        let (mut notes, start) = (Notes::told(), Instant::now());
        let done = (self.run)(&mut notes);
        notes.clear_line();
        println!("\n{}", side_by_side(self.claim, notes.seen()));
        let outcome = match done {
            Ok(()) => Outcome::AsDescribed,
            Err(error) if error.is::<Missing>() => {
                println!("{error}\n");
                Outcome::NotTried
            }
            Err(error) => {
                println!("{}\n", paragraph("NOT AS DESCRIBED:", &format!("{error:#}")));
                Outcome::Otherwise
            }
        };
        println!("{}", paragraph("Why:", self.why));
        println!("{}", paragraph("Read:", &self.read.join(", ")));
        println!("({:.1} s)\n", start.elapsed().as_secs_f32());
        outcome
    }
}

/// How an experiment came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    AsDescribed,
    Otherwise,
    /// A tool or a right is missing here.
    NotTried,
}

/// All experiments, in the order in which they are best done.
const EXPERIMENTS: &[Experiment] = &[
    queueing::BACKLOG,
    waiting::IDLE,
    waiting::FIRST_RECV,
    waiting::HOG,
    waiting::WORKERS,
    queueing::ONE_LISTEN,
    failing::PROCESSES,
    failing::UNBOUNDED,
    readiness::BLOCKING_FD,
    readiness::POLL_EPOLL,
    readiness::STALE_KEY,
    framing::ENDS_WITH,
    framing::NO_FULL_STOP,
    taking_turns::STALL,
    taking_turns::BEST_OF_BOTH,
    failing::CRASH,
    queueing::SPREAD,
    taking_turns::STARVE,
    framing::LOST_ANSWER,
    failing::EMFILE,
    queueing::FROZEN,
    queueing::REUSE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_is_complete() {
        let root = workspace::root().expect("this is a checkout");
        for (index, experiment) in EXPERIMENTS.iter().enumerate() {
            let Experiment { name, claim, question, why, read, .. } = experiment;
            assert!(EXPERIMENTS[..index].iter().all(|other| other.name != *name), "{name} stands twice");
            assert!(!claim.is_empty() && !why.is_empty() && question.ends_with('?'), "{name}");
            for file in *read {
                assert!(root.join(file).is_file(), "{name}: there is no {file}");
            }
        }
    }

    #[test]
    fn every_advice_names_its_experiment() {
        let root = workspace::root().expect("this is a checkout");
        let readme = std::fs::read_to_string(root.join("README.md")).expect("it has a README");
        let advice = readme.split("\n## ").find(|section| section.starts_with("Which one should I choose?"));
        for sentence in advice.expect("it advises").split("\n- ").skip(1) {
            let names: Vec<&str> = sentence.split("(`").skip(1).filter_map(|rest| rest.split('`').next()).collect();
            assert!(!names.is_empty(), "{sentence}");
            assert!(names.iter().all(|name| chosen(&[(*name).into()]).is_ok()), "{names:?}");
        }
    }

    #[test]
    fn a_wrong_name_is_not_passed_over() {
        assert!(chosen(&["backlog".into(), "blacklog".into()]).is_err());
        assert_eq!(chosen(&["all".into()]).map(|all| all.len()).ok(), Some(EXPERIMENTS.len()));
    }
}
