//! A load at a fixed rate, whether or not the service keeps up. Each visit asks one question on a connection of its
//! own, and tries again after a failure.
//!
//! `zen-client load --churn --rate --retries` reports only at its end. These tests use the counts while the load runs.
//! They also need the longest time without an answer, which `zen-client` does not measure.

mod generator;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::harness::{WAIT_LIMIT, wait_for};
use generator::Generator;

/// How many visits there are, and how long each waits for an answer before it tries again.
#[derive(Clone, Copy)]
pub(super) struct Behavior {
    pub(super) per_second: u32,
    pub(super) timeout: Duration,
}

impl Behavior {
    /// A thousand visits a second, with a long timeout. A test with this load runs alone: several at a time would be
    /// more than a small machine can serve.
    pub(super) const MANY: Behavior = Behavior { per_second: 1000, timeout: WAIT_LIMIT };
}

/// A load that goes on until [`finish`](Visits::finish).
pub(super) struct Visits {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    counts: Mutex<Counts>,
}

/// Counts of visits and of tries.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) visits: usize,
    pub(super) answers: usize,
    /// Visits that needed more than one try.
    pub(super) retried: usize,
    /// Visits that ended without an answer.
    pub(super) lost: usize,
    /// Tries that were refused: there was no listener, or the server had too many clients (rule 7).
    refused: usize,
    /// Tries whose connection was reset.
    reset: usize,
    /// Tries whose connection the server closed before the answer.
    ended: usize,
    /// Tries without an answer within the timeout.
    pub(super) stuck: usize,
    /// The longest time without an answer.
    pub(super) longest_gap: Duration,
    /// From the first visit to the last answer.
    time: Duration,
    /// The number of the oldest visit that is not over: all visits before it are.
    over: usize,
    /// The error that ended the load early, if there was one.
    trouble: Option<String>,
    last_answer: Option<Instant>,
}

impl Visits {
    /// Starts the load, and returns after the first answer.
    pub(super) fn start(address: SocketAddr, behavior: Behavior) -> Result<Visits> {
        let shared = Arc::<Shared>::default();
        let generator = Generator::new(address, behavior, Arc::clone(&shared))?;
        let of_thread = Arc::clone(&shared);
        let run = move || generator.run().inspect_err(|error| of_thread.counts().trouble = Some(format!("{error:#}")));
        let thread = thread::Builder::new().name("load".into()).spawn(run)?;
        let visits = Visits { shared, thread: Some(thread) };
        visits.wait_for_answers(1).with_context(|| format!("at {address}"))?;
        Ok(visits)
    }

    /// Returns the counts so far.
    pub(super) fn counts(&self) -> Counts {
        self.shared.counts().clone()
    }

    /// Waits until `more` visits have got an answer.
    pub(super) fn wait_for_answers(&self, more: usize) -> Result<()> {
        let before = self.counts().answers;
        self.wait_until(WAIT_LIMIT, |now| now.answers >= before + more)
            .with_context(|| format!("fewer than {more} visits have got an answer: {}", self.counts()))
    }

    /// Waits until all visits that have begun by now are over.
    pub(super) fn wait_until_over(&self, limit: Duration) -> Result<()> {
        let begun = self.counts().visits;
        self.wait_until(limit, |now| now.over >= begun)
            .with_context(|| format!("some visits are not over after {limit:?}: {}", self.counts()))
    }

    fn wait_until(&self, limit: Duration, is_so: impl Fn(&Counts) -> bool) -> Option<()> {
        let now = wait_for(limit, || Some(self.counts()).filter(|now| now.trouble.is_some() || is_so(now)))?;
        now.trouble.is_none().then_some(())
    }

    /// Begins no more visits, and waits for the others. An error if any answer was wrong.
    pub(super) fn finish(mut self) -> Result<Counts> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs until it is finished")?;
        let is_over = wait_for(2 * WAIT_LIMIT, || thread.is_finished().then_some(()));
        is_over.with_context(|| format!("some visits do not end: {}", self.counts()))?;
        thread.join().map_err(|_| anyhow!("the load panicked"))??;
        let counts = self.counts();
        ensure!(counts.visits == counts.answers + counts.lost, "the counts do not add up: {counts}");
        Ok(counts)
    }
}

impl Drop for Visits {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { visits, answers, retried, lost, refused, reset, ended, stuck, longest_gap, time, .. } = self;
        write!(f, "{visits} visits in {time:.1?}, {answers} answers, {retried} retried, {lost} lost")?;
        write!(f, " (tries: {refused} refused, {reset} reset, {ended} ended, {stuck} stuck)")?;
        write!(f, ", longest time without an answer {} ms", longest_gap.as_millis())?;
        self.trouble.iter().try_for_each(|trouble| write!(f, "; {trouble}"))
    }
}

/// The number of answers after which the service counts as working normally.
pub(super) const SOME: usize = 200;
