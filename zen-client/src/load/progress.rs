//! The progress bar of a run, and the signals that end it early.

use std::fs;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The interval at which progress is shown and interrupts are noticed.
pub(super) const WATCH_PERIOD: Duration = Duration::from_millis(100);
/// The error of a run that was interrupted too early to have a result.
pub(super) const INTERRUPTED: &str = "interrupted before any answer was measured";

/// The progress of one run.
pub(super) struct Progress {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    /// Draws on stderr if that is a terminal, and handles SIGINT and SIGTERM unless they are ignored. The second signal
    /// ends the process immediately.
    pub(super) fn start() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal)) {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
                .context("cannot handle signals")?;
        }
        // This process may have been started with them blocked.
        SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]).thread_unblock().context("cannot unblock signals")?;
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
            bar.set_style(style);
        }
        Ok(Self { bar, interrupted })
    }

    /// Returns a progress without a bar and without signals.
    pub(super) fn none() -> Self {
        Self { bar: ProgressBar::hidden(), interrupted: Arc::default() }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Runs `work` on a thread of its own, because neither the resolver nor `connect` notices an interrupt.
    pub(super) fn unless_interrupted<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        let run = move || sender.send(work());
        thread::Builder::new().name("connect".to_owned()).spawn(run).context("cannot start a thread")?;
        loop {
            match receiver.recv_timeout(WATCH_PERIOD) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) if !self.is_interrupted() => {}
                Err(_) => bail!(INTERRUPTED),
            }
        }
    }

    pub(super) fn opening(&self, connections: usize) {
        self.bar.set_message(format!("opening {connections} connections"));
        self.bar.tick();
    }

    /// Shows how much of `total` is over.
    pub(super) fn show(&self, so_far: Duration, total: Duration, answers: u64) {
        self.bar.set_length(millis(total));
        self.bar.set_position(millis(so_far.min(total)));
        let left = total.saturating_sub(so_far).as_secs_f64().ceil();
        self.bar.set_message(match left {
            0.0 => format!("{answers} answers, waiting for the last"),
            _ => format!("{answers} answers, {left:.0} s left"),
        });
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whether this process was started with `signal` ignored, as by a shell without job control for a background
/// command. The mask is that of proc_pid_status(5).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default(); // without /proc the mask is not known
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| (mask >> (signal - 1)) & 1 == 1)
}
