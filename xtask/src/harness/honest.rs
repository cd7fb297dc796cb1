//! An honest client that goes on asking in the background while another client misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{APHORISMS, Client};
use super::{WAIT_LIMIT, wait_for};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// A client that asks every 20 ms until [`finish`](HonestClient::finish) is called.
pub(crate) struct HonestClient {
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    asking: Option<JoinHandle<Result<Report>>>,
}

/// What an honest client measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The time of each question, from before it was asked (or connected for) until its answer; the shortest first.
    pub(crate) waits: Vec<Duration>,
}

impl HonestClient {
    /// Starts asking, and returns after the first answer. With `connects_for_each`, the client connects for each
    /// question, which suits servers where clients wait in the backlog; otherwise it stays connected.
    pub(crate) fn start(address: SocketAddr, connects_for_each: bool) -> Result<HonestClient> {
        let is_over = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let ask = {
            let (is_over, answers) = (Arc::clone(&is_over), Arc::clone(&answers));
            move || ask_until(&is_over, &answers, address, connects_for_each)
        };
        let asking = thread::Builder::new().name("honest".into()).spawn(ask)?;
        let honest = HonestClient { is_over, answers, asking: Some(asking) };
        match wait_for(WAIT_LIMIT, || (honest.answers() > 0 || honest.has_given_up()).then_some(())) {
            Some(()) if honest.answers() > 0 => Ok(honest),
            _ => Err(honest.finish().err().unwrap_or_else(|| anyhow!("the honest client was not answered"))),
        }
    }

    /// Returns how many answers it has received so far.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    fn has_given_up(&self) -> bool {
        self.asking.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops asking, and returns the measurements. An error if any question was not answered correctly.
    pub(crate) fn finish(mut self) -> Result<Report> {
        self.is_over.store(true, Ordering::Relaxed);
        let asking = self.asking.take().context("the honest client has stopped already")?;
        asking.join().map_err(|_| anyhow!("the honest client panicked"))?.context("the honest client")
    }
}

impl Drop for HonestClient {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Report {
    /// Returns the wait at this percentile, rounded down to a measured one; 100 is the longest.
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
        // At least one question is asked, even if the test is over already.
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(PAUSE);
    }
    waits.sort_unstable();
    Ok(Report { waits })
}
