//! `cargo xtask lab`: common claims about servers, misconceptions and classic bugs, as experiments with real servers.
//!
//! ```console
//! $ cargo xtask lab --list
//! $ cargo xtask lab backlog frozen
//! $ cargo xtask lab nagle --lang zh
//! $ cargo xtask lab all
//! ```
//!
//! Each of the [`EXPERIMENTS`] states a claim and asks the reader for a prediction. Its function measures and notes the
//! results, and fails if they are not as described: a count, an order, a ratio. So each experiment is a test, too.

#[macro_use]
mod notes;

mod costs;
mod crowds;
mod failing;
mod fixture;
mod framing;
mod hosts;
mod loads;
mod queueing;
mod readiness;
mod sockets;
mod taking_turns;
mod waiting;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::harness::Missing;
use crate::trial::Trial;
use crate::workspace;
use notes::{Language, Notes, Text, paragraph, side_by_side};

/// Tests claims about servers with experiments
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// The experiments to run; `all` runs every one
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// List the experiments instead of running them
    #[arg(long)]
    list: bool,
    /// The language of claims and measurements
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let language = flags.lang;
    if flags.list || flags.names.is_empty() {
        EXPERIMENTS.iter().for_each(|experiment| println!("{:14} {}", experiment.name, experiment.claim.in_(language)));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&flags.names)?;
    let broken = workspace::build()?;
    if !broken.is_empty() {
        bail!("these do not build: {}", broken.join(", "));
    }
    let outcomes: Vec<_> = chosen.iter().map(|experiment| (experiment.name, experiment.present(language))).collect();
    let with = |outcome| -> Vec<&str> {
        outcomes.iter().filter(|(_, other)| *other == outcome).map(|(name, _)| *name).collect()
    };
    println!("{} {}", with(Outcome::AsDescribed).len(), AS_DESCRIBED.in_(language));
    let (different, not_tried) = (with(Outcome::Different), with(Outcome::NotTried));
    for (names, what) in [(&different, DIFFERENT), (&not_tried, NOT_TRIED)] {
        if !names.is_empty() {
            println!("{} {}: {}", names.len(), what.in_(language), names.join(", "));
        }
    }
    Ok(if different.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// Returns whether an experiment has this name.
#[cfg(test)]
pub(crate) fn is_experiment(name: &str) -> bool {
    EXPERIMENTS.iter().any(|experiment| experiment.name == name)
}

/// Returns each experiment as a test of its outcome.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    let trials = EXPERIMENTS.iter().map(|experiment| {
        let broken = broken.clone();
        let trial = Trial::new(format!("lab::{}", experiment.name), move || {
            if !broken.is_empty() {
                bail!("these do not build: {}", broken.join(", "));
            }
            let mut notes = Notes::for_test();
            // A missing tool is recognized by the type of its error, so no context may be added to that.
            (experiment.run)(&mut notes).map_err(|error| match error.is::<Missing>() {
                true => error,
                false => error.context(format!("measured: {}", notes.seen().join("; "))),
            })
        });
        let trial = if experiment.is_alone { trial.alone() } else { trial };
        if experiment.is_slow { trial.slow() } else { trial }
    });
    Ok(trials.collect())
}

/// A claim, and how it is tested.
pub(crate) struct Experiment {
    name: &'static str,
    claim: Text,
    /// What the reader is asked to predict.
    question: Text,
    /// Measures, and notes the results. Returns an error if they are not as described.
    run: fn(&mut Notes) -> Result<()>,
    /// The reason for the outcome.
    why: Text,
    /// Files of the checkout to read next.
    read: &'static [&'static str],
    /// Whether it needs a quiet machine: nothing else runs at that time in `test-all`.
    is_alone: bool,
    /// Whether it takes longer than 3 s: `test-all` then runs it in CI, or with a filter that selects it.
    is_slow: bool,
}

impl Experiment {
    /// Prints and runs the experiment for a reader.
    fn present(&self, language: Language) -> Outcome {
        let print = |head: Text, text: &str| println!("{}", paragraph(head.in_(language), text));
        let claim = self.claim.in_(language);
        println!("──── {}\n", self.name);
        print(Text("Claim:", "有人说："), claim);
        println!();
        print(Text("Predict:", "请预测："), self.question.in_(language));
        // Wait only where a person can answer.
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            println!("\n{}", ENTER.in_(language));
            let _ = io::stdin().read_line(&mut String::new());
        }
        let (mut notes, start) = (Notes::for_reader(language), Instant::now());
        let done = (self.run)(&mut notes);
        notes.clear_line();
        println!("\n{}", side_by_side(language, claim, notes.seen()));
        let outcome = match done {
            Ok(()) => Outcome::AsDescribed,
            Err(error) if error.is::<Missing>() => {
                println!("{error}\n");
                Outcome::NotTried
            }
            Err(error) => {
                print(Text("NOT AS DESCRIBED:", "与描述不符："), &format!("{error:#}"));
                println!();
                Outcome::Different
            }
        };
        print(Text("Why:", "原因："), self.why.in_(language));
        print(Text("Read:", "阅读："), &self.read.join(", "));
        println!("({:.1} s)\n", start.elapsed().as_secs_f32());
        outcome
    }
}

/// How an experiment came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    AsDescribed,
    /// The results are not as described, or the experiment failed.
    Different,
    /// A tool or a permission is missing.
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
    sockets::ONE_PORT,
    crowds::PORTS,
    crowds::TEN_THOUSAND,
    crowds::STACKS,
    sockets::WAKE_ACCEPT,
    sockets::SENT,
    sockets::CLOSE_WAIT,
    sockets::TWO_OWNERS,
    hosts::UNPLUGGED,
    sockets::NAGLE,
    readiness::EDGE,
    readiness::ONE_POLLER,
    queueing::REUSEPORT,
    loads::ACCEPTOR,
    loads::POOL_SIZE,
    loads::OVERLOAD,
    taking_turns::LOST_UPDATE,
    costs::ASYNC_FASTER,
    costs::COMPLETION,
    loads::OMISSION,
    hosts::LOOPBACK,
];

const AS_DESCRIBED: Text = Text("came out as described", "个结果与描述相符");
const DIFFERENT: Text = Text("did not", "个结果不同");
const NOT_TRIED: Text = Text("not tried", "个没有试");
const ENTER: Text = Text("What do you expect? Press Enter to run it.", "您预期会怎样？按回车键开始实验。");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_is_complete() {
        let root = workspace::root().expect("this is a checkout");
        for (index, experiment) in EXPERIMENTS.iter().enumerate() {
            let Experiment { name, claim, question, why, read, .. } = experiment;
            assert!(EXPERIMENTS[..index].iter().all(|other| other.name != *name), "{name} is listed twice");
            for language in [Language::En, Language::Zh] {
                assert!(!claim.in_(language).is_empty() && !why.in_(language).is_empty(), "{name}");
                assert!(question.in_(language).ends_with(['?', '？']), "{name}");
            }
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
    fn every_experiment_is_in_a_unit_for_teachers() {
        let pages = workspace::pages().expect("this is a checkout");
        let units = pages.iter().filter(|page| page.parent().is_some_and(|folder| folder.ends_with("teach")));
        let text: String = units.map(|page| std::fs::read_to_string(page).expect("it can be read")).collect();
        let missing = EXPERIMENTS.iter().filter(|experiment| !text.contains(&format!("| `{}` |\n", experiment.name)));
        assert_eq!(missing.map(|experiment| experiment.name).collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(chosen(&["backlog".into(), "blacklog".into()]).is_err());
        assert_eq!(chosen(&["all".into()]).map(|all| all.len()).ok(), Some(EXPERIMENTS.len()));
    }
}
