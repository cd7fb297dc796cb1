//! An honest client that goes on asking in the background, while somebody else misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{APHORISMS, Client};

/// How often it asks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks every 20 ms until it is told to [`finish`](Honest::finish).
pub(crate) struct Honest {
    is_over: Arc<AtomicBool>,
    asking: Option<JoinHandle<Result<Report>>>,
}

/// What an honest client went through.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// One time per question, from before it was asked (or connected for) until its answer, the shortest first.
    pub(crate) waits: Vec<Duration>,
}

impl Honest {
    /// Starts asking. Where clients wait for their turn it `connects_for_each` question, and else stays connected.
    pub(crate) fn start(address: SocketAddr, connects_for_each: bool) -> Result<Honest> {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let ask = move || ask_until(&told, address, connects_for_each);
        let asking = thread::Builder::new().name("honest".into()).spawn(ask)?;
        Ok(Honest { is_over, asking: Some(asking) })
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

fn ask_until(is_over: &AtomicBool, address: SocketAddr, connects_for_each: bool) -> Result<Report> {
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
