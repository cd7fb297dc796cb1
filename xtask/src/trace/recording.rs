//! One server, recorded: the play under strace, and once more without it, to see what strace costs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::lanes::{self, ClientLane, Interval, Lane};
use super::scenario::{self, QUESTIONS, Visit, median_answer};
use super::strace::{Call, Log, Micros};
use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::Entry;

/// All that a picture is drawn from.
pub(crate) struct Recording {
    pub(crate) entry: &'static Entry,
    /// Arguments of its command line in addition to those of its entry.
    pub(crate) arguments: Vec<String>,
    pub(crate) visits: Vec<Visit>,
    /// The clients' reports of a run without strace.
    pub(crate) untraced: Vec<Visit>,
    /// When the first client came, by the clock: the zero of all lanes.
    pub(crate) start: Micros,
    /// How long it took until the last client had left, and the server had noticed.
    pub(crate) length: Micros,
    /// The calls in that time, of all threads.
    pub(crate) calls: Vec<Call>,
    pub(crate) threads: Vec<Lane>,
    pub(crate) clients: Vec<ClientLane>,
}

impl Recording {
    /// Records a server several times and keeps the time in which its threads were kept from the processor least.
    pub(crate) fn calmest(entry: &'static Entry, arguments: &[&str], folder: &Path) -> Result<Recording> {
        let mut calmest: Option<Recording> = None;
        for attempt in 1..=ATTEMPTS {
            let own = folder.join(format!("attempt-{attempt}"));
            let mut recording = Recording::of(entry, arguments, &own)?;
            if let Some(calmest) = &mut calmest
                && median_answer(&recording.untraced) < median_answer(&calmest.untraced)
            {
                calmest.untraced = recording.untraced.clone();
            }
            if calmest.as_ref().is_none_or(|calmest| recording.unrest() < calmest.unrest()) {
                recording.untraced = calmest.map_or(recording.untraced, |calmest| calmest.untraced);
                fs::rename(own.join(LOG), folder.join(LOG)).context("cannot keep the log")?;
                calmest = Some(recording);
            }
            fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
        }
        calmest.context("nothing was recorded")
    }

    /// How long the threads that are drawn worked: nearly all of that is strace, and whatever else the machine does.
    fn unrest(&self) -> Micros {
        let intervals = self.shown().flat_map(|lane| &lane.intervals);
        intervals.filter(|interval| !interval.activity.is_waiting()).map(Interval::length).sum()
    }

    /// Records a server into `folder`, where the log stays.
    pub(crate) fn of(entry: &'static Entry, arguments: &[&str], folder: &Path) -> Result<Recording> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(LOG);
        let wrapper = ["strace", "-f", "-ttt", "-T", "-s", "64", "-o", &file.to_string_lossy()];
        let visits = played(Server::start_under(&wrapper, entry, arguments)?).context("under strace")?;
        let untraced = played(Server::start(entry, arguments)?).context("without strace")?;
        let log = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let log = Log::parse(&String::from_utf8_lossy(&log));
        ensure!(!log.calls.is_empty(), "{} holds no call", file.display());
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Ok(Recording { arguments, ..Recording::from(entry, &log, visits, untraced) })
    }

    /// Returns what a log and its clients' reports give.
    pub(crate) fn from(entry: &'static Entry, log: &Log, visits: Vec<Visit>, untraced: Vec<Visit>) -> Recording {
        let start = visits.iter().map(|visit| visit.came).min().unwrap_or_default();
        let left = visits.iter().map(|visit| visit.left).max().unwrap_or_default();
        let end = left + AFTERWARDS;
        let calls = log.calls.iter().filter(|call| (start..end).contains(&call.start)).cloned().collect();
        let threads = lanes::threads(log, &visits, start, end);
        let clients = lanes::clients(log, &visits, start);
        Recording {
            entry,
            arguments: Vec::new(),
            visits,
            untraced,
            start,
            length: end - start,
            calls,
            threads,
            clients,
        }
    }

    /// Returns the lanes that are drawn.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Lane> {
        self.threads.iter().filter(|lane| lane.matters)
    }

    /// Returns the threads that are not: their names, and in how many processes there is one of that name.
    pub(crate) fn left_out(&self) -> Vec<(&str, usize)> {
        let mut names: Vec<(&str, usize)> = Vec::new();
        for lane in self.threads.iter().filter(|lane| !lane.matters) {
            let name = lane.name.split(" of process ").next().unwrap_or(&lane.name);
            match names.iter_mut().find(|(other, _)| *other == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        names
    }
}

/// Runs the scenario with a server and then ends the server, because strace writes everything only after that.
fn played(mut server: Server) -> Result<Vec<Visit>> {
    // Its ready line may come before its last thread is there.
    server.falls_asleep(WAIT_LIMIT)?;
    let visits = scenario::play(server.address())?;
    // What the signal sets going is not part of the picture.
    thread::sleep(Duration::from_millis(10));
    server.signal(Signal::TERM)?;
    server.ended_within(WAIT_LIMIT).context("still there after SIGTERM")?;
    let answers: usize = visits.iter().map(|visit| visit.answered.len()).sum();
    ensure!(answers == scenario::CLIENTS * QUESTIONS, "{answers} answers came");
    Ok(visits)
}

const ATTEMPTS: usize = 3;
/// Under this name strace's own words stay in the folder.
pub(crate) const LOG: &str = "strace.log";
/// The server notices a moment later that the last client has left.
const AFTERWARDS: Micros = 3_000;
