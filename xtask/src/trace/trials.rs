//! The shape that each picture must have, as tests: which clients wait while client 1 thinks.

use anyhow::{Context, Result, ensure};

use super::recording::Recording;
use super::scenario::{CLIENTS, QUESTIONS};
use super::strace::Micros;
use super::summary::Spent;
use super::{perfetto, svg};
use crate::harness::strace;
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// Returns one test for each server.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    let trial = |entry: &'static Entry| {
        let is_broken = broken.contains(&entry.package);
        Trial::new(format!("trace::{}", entry.name), move || {
            ensure!(!is_broken, "{} does not build", entry.package);
            strace()?;
            has_its_shape(entry)
        })
        .alone()
    };
    Ok(SERVERS.iter().map(trial).collect())
}

fn has_its_shape(entry: &'static Entry) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("zen-timeline-{}-{}", std::process::id(), entry.name));
    let mut judged = Ok(());
    // A machine that halts for as long as client 1 thinks draws another picture; not three times in a row.
    for _ in 0..ATTEMPTS {
        judged = Recording::of(entry, &[], &folder).and_then(|recording| judge(&recording));
        if judged.is_ok() {
            break;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    judged
}

fn judge(recording: &Recording) -> Result<()> {
    let serves_one = recording.entry.at_once == Some(1);
    ensure!(recording.makes_wait() == serves_one, "{}", recording.verdict());
    let first = recording.visits.iter().find(|visit| visit.client == 1).context("client 1 came")?;
    for visit in recording.visits.iter().filter(|visit| visit.client != 1) {
        let waited_for_first = visit.answered.first().is_some_and(|answered| *answered > first.left);
        ensure!(waited_for_first == serves_one, "client {} is answered as if it were elsewhere", visit.client);
    }
    let answers: usize = recording.clients.iter().map(|lane| lane.answered.len()).sum();
    ensure!(answers == CLIENTS * QUESTIONS, "{answers} answers are drawn");
    let sends = |client| {
        let lanes = recording.shown().flat_map(|lane| &lane.intervals);
        lanes
            .filter(|interval| interval.activity == super::lanes::Activity::Send && interval.client == Some(client))
            .count()
    };
    for client in 1..=CLIENTS {
        let is_seen = recording.entry.makes_requests() || sends(client) >= QUESTIONS;
        ensure!(is_seen, "{} answers to client {client} were seen by strace", sends(client));
    }
    sums_up(recording)?;
    let picture = svg::document(recording);
    ensure!((1..=CLIENTS).all(|client| picture.contains(&format!(">client {client}<"))), "a client has no lane");
    perfetto::json(recording)?;
    Ok(())
}

/// Each lane is divided without a gap, from its thread's birth to its end.
fn sums_up(recording: &Recording) -> Result<()> {
    for lane in recording.shown() {
        let (Some(first), Some(last)) = (lane.intervals.first(), lane.intervals.last()) else { continue };
        let gaps = lane.intervals.windows(2).filter(|pair| pair[0].until != pair[1].from).count();
        let all: Micros = Spent::of(lane).each.values().sum();
        ensure!(gaps == 0 && all == last.until - first.from, "{} does not sum up: {gaps} gaps", lane.name);
    }
    Ok(())
}

const ATTEMPTS: usize = 3;
