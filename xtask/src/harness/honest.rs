//! An honest client that goes on asking in the background, while somebody else misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{APHORISMS, Client};
use super::{WAIT_LIMIT, wait_for};

/// How often it asks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks every 20 ms until it is told to [`finish`](Honest::finish).
pub(crate) struct Honest {
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    asking: Option<JoinHandle<Result<Report>>>,
}

/// What an honest client went through.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// One time per question, from before it was asked (or connected for) until its answer, the shortest first.
    pub(crate) waits: Vec<Duration>,
}

impl Honest {
    /// Starts asking, and has its first answer when this returns. Where clients wait for their turn it
    /// `connects_for_each` question, and else stays connected.
    pub(crate) fn start(address: SocketAddr, connects_for_each: bool) -> Result<Honest> {
        let is_over = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (Arc::clone(&is_over), Arc::clone(&answers));
        let ask = move || ask_until(&told, &counted, address, connects_for_each);
        let asking = thread::Builder::new().name("honest".into()).spawn(ask)?;
        let honest = Honest { is_over, answers, asking: Some(asking) };
        match wait_for(WAIT_LIMIT, || (honest.answers() > 0 || honest.has_given_up()).then_some(())) {
            Some(()) if honest.answers() > 0 => Ok(honest),
            _ => Err(honest.finish().err().unwrap_or_else(|| anyhow!("the honest client has no answer"))),
        }
    }

    /// How many answers it has had so far.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    fn has_given_up(&self) -> bool {
        self.asking.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the asking. An error if any question was not answered as it should be.
    pub(crate) fn finish(mut self) -> Result<Report> {
        self.is_over.store(true, Ordering::Relaxed);
        let asking = self.asking.take().context("it asks until it is finished")?;
        asking.join().map_err(|_| anyhow!("the honest client panicked"))?.context("the honest client, meanwhile")
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Report {
    /// The wait which `percent` of all waits do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.waits.len().saturating_sub(1);
        self.waits.get(last * percent / 100).copied().unwrap_or_default()
    }
}

fn ask_until(
    is_over: &AtomicBool,
    answers: &AtomicUsize,
    address: SocketAddr,
    connects_for_each: bool,
) -> Result<Report> {
    let mut waits = Vec::new();
    let mut client = None;
    for (question, answer) in APHORISMS.iter().cycle() {
        let start = Instant::now();
        let mut asking = match client.take() {
            Some(client) => client,
            None => Client::connect(address)?,
        };
        asking.ask(question, answer).with_context(|| format!("question {}", waits.len() + 1))?;
        waits.push(start.elapsed());
        answers.fetch_add(1, Ordering::Relaxed);
        client = (!connects_for_each).then_some(asking);
        // At least one question is asked, however short the meantime was.
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(PAUSE);
    }
    waits.sort_unstable();
    Ok(Report { waits })
}
