//! Shows the progress of a run and the time that is left: as a bar on a terminal, else as a line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    steps: usize,
    done: usize,
    start: Instant,
    reported: Instant,
    /// The time after which the run ends. It bounds the estimate, which is too high after a few steps.
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
    pub(crate) fn step_done(&mut self, what: &str) {
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

/// The shortest time between two lines, where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);
