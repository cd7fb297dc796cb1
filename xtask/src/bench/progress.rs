//! The progress of a run and the time it still takes: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    steps: usize,
    done: usize,
    start: Instant,
    reported: Instant,
    /// The time after which the run ends, however much an estimate from a few quick steps exceeds it.
    budget: Duration,
}

impl Progress {
    pub(crate) fn start(steps: usize, budget: Duration) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
            style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
        });
        let now = Instant::now();
        Progress { bar, steps, done: 0, start: now, reported: now, budget }
    }

    /// Records that one step is done.
    pub(crate) fn did(&mut self, what: &str) {
        self.done += 1;
        let left = self.left().as_secs();
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done as u64);
                bar.set_message(format!("about {left} s left  {what}"));
            }
            None if self.reported.elapsed() >= PAUSE => {
                self.reported = Instant::now();
                eprintln!("{} of {} done, about {left} s left: {what}", self.done, self.steps);
            }
            None => {}
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn left(&self) -> Duration {
        let so_far = self.start.elapsed();
        let by_steps = so_far.mul_f64((self.steps - self.done.min(self.steps)) as f64 / self.done.max(1) as f64);
        let by_budget = self.budget.saturating_sub(so_far);
        if by_budget.is_zero() { by_steps } else { by_steps.min(by_budget) }
    }
}

/// Time between two lines of a log.
const PAUSE: Duration = Duration::from_secs(5);
