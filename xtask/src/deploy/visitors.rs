//! Visitors: people who come at a fixed rate whether or not the service keeps up, ask one question each on a connection
//! of their own, and try again where they find no answer.

mod crowd;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::harness::{WAIT_LIMIT, wait_for};
use crowd::Crowd;

/// How many of them come, and how long each waits for an answer before trying again.
#[derive(Clone, Copy)]
pub(super) struct Behavior {
    pub(super) a_second: u32,
    pub(super) timeout: Duration,
}

impl Behavior {
    /// A thousand a second, none of whom is in a hurry.
    pub(super) const MANY: Behavior = Behavior { a_second: 1000, timeout: WAIT_LIMIT };
}

/// Visitors that come until they are told to [`finish`](Visitors::finish).
pub(super) struct Visitors {
    shared: Arc<Shared>,
    coming: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    counts: Mutex<Counts>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) visits: usize,
    pub(super) answers: usize,
    /// Visitors who needed more than one try.
    pub(super) retried: usize,
    /// Visitors who went without an answer.
    pub(super) lost: usize,
    /// Tries that failed: nobody listened, or there was no place.
    refused: usize,
    /// The connection was reset.
    reset: usize,
    /// The connection ended.
    ended: usize,
    /// Nothing came for as long as a visitor has patience.
    pub(super) stuck: usize,
    /// The longest time without an answer to anybody.
    pub(super) longest_gap: Duration,
    /// From the first visit to the last answer.
    time: Duration,
    /// So many of the first who came have left.
    left: usize,
    /// Why nobody comes any more.
    trouble: Option<String>,
    last_answer: Option<Instant>,
}

impl Visitors {
    /// Lets them come, and has the first answer when this returns.
    pub(super) fn start(address: SocketAddr, behavior: Behavior) -> Result<Visitors> {
        let shared = Arc::<Shared>::default();
        let crowd = Crowd::new(address, behavior, Arc::clone(&shared))?;
        let told = Arc::clone(&shared);
        let come = move || crowd.come().inspect_err(|error| told.counts().trouble = Some(format!("{error:#}")));
        let coming = thread::Builder::new().name("visitors".into()).spawn(come)?;
        let visitors = Visitors { shared, coming: Some(coming) };
        visitors.have_answers(1).with_context(|| format!("at {address}"))?;
        Ok(visitors)
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> Counts {
        self.shared.counts().clone()
    }

    /// Waits until `more` visitors have had an answer.
    pub(super) fn have_answers(&self, more: usize) -> Result<()> {
        let before = self.counts().answers;
        self.wait_until(WAIT_LIMIT, |now| now.answers >= before + more)
            .with_context(|| format!("no {more} visitors have had an answer: {}", self.counts()))
    }

    /// Waits until everybody who is here now has left.
    pub(super) fn have_left(&self, limit: Duration) -> Result<()> {
        let here = self.counts().visits;
        self.wait_until(limit, |now| now.left >= here)
            .with_context(|| format!("{limit:?} later somebody is still here: {}", self.counts()))
    }

    fn wait_until(&self, limit: Duration, is_so: impl Fn(&Counts) -> bool) -> Option<()> {
        let now = wait_for(limit, || Some(self.counts()).filter(|now| now.trouble.is_some() || is_so(now)))?;
        now.trouble.is_none().then_some(())
    }

    /// Lets nobody come any more, and waits for those who are here. An error if anybody has had a wrong answer.
    pub(super) fn finish(mut self) -> Result<Counts> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let coming = self.coming.take().context("they come until it is finished")?;
        let gone = wait_for(2 * WAIT_LIMIT, || coming.is_finished().then_some(()));
        gone.with_context(|| format!("some visitors do not leave: {}", self.counts()))?;
        coming.join().map_err(|_| anyhow!("the visitors panicked"))??;
        let counts = self.counts();
        ensure!(counts.visits == counts.answers + counts.lost, "somebody is missing: {counts}");
        Ok(counts)
    }
}

impl Drop for Visitors {
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

/// So many have answers after a moment of ordinary operation.
pub(super) const SOME: usize = 200;
