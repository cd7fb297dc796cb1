//! Named tests, run by libtest-mimic: first those that may run in parallel, then the others one after the other.

use std::any::Any;
use std::ops::AddAssign;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed};

use crate::harness::{Missing, is_ci};

/// A test of any stage. An error is a failure, except [`Missing`], which fails only in CI.
pub(crate) struct Trial {
    pub(crate) name: String,
    /// Whether it must have the machine to itself.
    pub(crate) is_alone: bool,
    /// Whether it runs only in CI, or with a filter that selects it, because it takes long.
    pub(crate) is_slow: bool,
    pub(crate) run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Trial {
    /// Returns a test that may run in parallel with others.
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
        Trial { name: name.into(), is_alone: false, is_slow: false, run: Box::new(run) }
    }

    /// Marks the test as one that runs alone.
    pub(crate) fn alone(self) -> Trial {
        Trial { is_alone: true, ..self }
    }

    /// Marks the test as slow: it runs in CI, or with a filter that selects it.
    pub(crate) fn slow(self) -> Trial {
        Trial { is_slow: true, ..self }
    }
}

/// How many tests passed, and which failed.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    /// A line for each failed test: its name, and the reason where it is known.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn one_failure(line: String) -> Tally {
        Tally { passed: 0, failures: vec![line] }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

/// Runs the tests and prints a line for each, then the notes that they left.
pub(crate) fn run(trials: Vec<Trial>) -> Tally {
    let (alone, parallel): (Vec<_>, Vec<_>) = trials.into_iter().partition(|trial| trial.is_alone);
    let mut tally = Tally::default();
    for (group, threads) in [(parallel, THREADS), (alone, 1)] {
        if !group.is_empty() {
            tally += run_group(group, threads);
        }
    }
    for note in lock(&NOTES).drain(..) {
        println!("note: {note}");
    }
    print_slowest(lock(&TIMES).drain(..).collect());
    tally
}

/// Stores a line to be printed after the tests: a number that is reported but cannot fail a test.
pub(crate) fn note(line: String) {
    lock(&NOTES).push(line);
}

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The failed tests of the group, each with its reason.
static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How long each test of the stage has taken.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the tests that took longest, if any took long.
fn print_slowest(mut times: Vec<(Duration, String)>) {
    times.retain(|(time, _)| *time >= SLOW);
    times.sort_unstable_by(|a, b| b.cmp(a));
    for (time, name) in times.iter().take(MOST_SLOW) {
        println!("slow: {:.1} s, {name}", time.as_secs_f32());
    }
}

fn run_group(group: Vec<Trial>, threads: usize) -> Tally {
    let arguments = Arguments { test_threads: Some(threads), ..Arguments::default() };
    let trials = group.into_iter().map(|trial| {
        let Trial { name, run, .. } = trial;
        libtest_mimic::Trial::ignorable_test(name.clone(), move || {
            let start = Instant::now();
            let result = panic::catch_unwind(AssertUnwindSafe(run));
            lock(&TIMES).push((start.elapsed(), name.clone()));
            let error = match result {
                Ok(Ok(())) => return Ok(Completion::Completed),
                Ok(Err(error)) if !is_ci() && error.is::<Missing>() => return Ok(Completion::ignored_with(error)),
                Ok(Err(error)) => format!("{error:#}"),
                Err(payload) => format!("it panicked: {}", panic_message(&*payload)),
            };
            let reason: String = error.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHORT).collect();
            lock(&FAILURES).push(format!("{name}: {reason}"));
            Err(Failed::from(error))
        })
    });
    let done = libtest_mimic::run(&arguments, trials.collect());
    // A test that lacks a tool is "ignored" to libtest-mimic, prints the reason, and counts as passed.
    Tally { passed: done.num_passed + done.num_ignored, failures: lock(&FAILURES).drain(..).collect() }
}

fn panic_message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a value that is no text")
}

/// How many characters of a reason are repeated after all stages.
const SHORT: usize = 200;

/// A test that takes this long is listed after its stage.
const SLOW: Duration = Duration::from_secs(5);

/// The maximum length of the list of slow tests.
const MOST_SLOW: usize = 10;

/// The number of tests that run in parallel. They mostly wait, so there may be more of them than processors.
pub(crate) const THREADS: usize = 8;
