//! Named tests, run by libtest-mimic: first those that may run side by side, then the others one after the other.

use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed};

use crate::harness::{Missing, is_ci};

/// A test of any stage. Its error is its failure, except [`Missing`], which only CI takes for one.
pub(crate) struct Trial {
    pub(crate) name: String,
    /// Whether it must have the machine to itself.
    pub(crate) is_alone: bool,
    /// Whether it takes so much time that it runs only in CI, or with a filter that selects it.
    pub(crate) is_slow: bool,
    pub(crate) run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Trial {
    /// A test that may run beside others.
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
        Trial { name: name.into(), is_alone: false, is_slow: false, run: Box::new(run) }
    }

    /// The same, but with nothing beside it.
    pub(crate) fn alone(self) -> Trial {
        Trial { is_alone: true, ..self }
    }

    /// Returns the test as one for CI, or for a filter that selects it.
    pub(crate) fn slow(self) -> Trial {
        Trial { is_slow: true, ..self }
    }
}

/// How many tests passed, and how many did not.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn one(has_passed: bool) -> Tally {
        Tally { passed: has_passed.into(), failed: (!has_passed).into() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs them all and prints a line for each, then what they had to report.
pub(crate) fn run(trials: Vec<Trial>) -> Tally {
    let (alone, beside): (Vec<_>, Vec<_>) = trials.into_iter().partition(|trial| trial.is_alone);
    let mut tally = Tally::default();
    for (group, threads) in [(beside, SIDE_BY_SIDE), (alone, 1)] {
        if !group.is_empty() {
            tally += run_group(group, threads);
        }
    }
    for note in NOTES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        println!("note: {note}");
    }
    tally
}

/// Keeps a line that is printed after the tests: a number that is stated and not judged.
pub(crate) fn note(line: String) {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn run_group(group: Vec<Trial>, threads: usize) -> Tally {
    let arguments = Arguments { test_threads: Some(threads), ..Arguments::default() };
    let trials = group.into_iter().map(|trial| {
        let Trial { name, run, .. } = trial;
        libtest_mimic::Trial::ignorable_test(name, move || match run() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) if !is_ci() && error.is::<Missing>() => Ok(Completion::ignored_with(error)),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        })
    });
    let done = libtest_mimic::run(&arguments, trials.collect());
    // What is not tried for want of a tool says so in its line, and passes.
    Tally { passed: done.num_passed + done.num_ignored, failed: done.num_failed }
}

/// Such tests mostly wait, so there may be more of them than processors.
const SIDE_BY_SIDE: usize = 8;
