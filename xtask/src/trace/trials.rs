//! The shape that each picture must have, as tests: which clients wait while client 1 thinks.

use std::fs;

use anyhow::{Context, Result, anyhow, ensure};

use super::model::{Activity, Kind};
use super::recording::{Recording, Scene};
use super::scenario::{THREE_TALKERS, Visit};
use super::strace::Micros;
use super::summary::Spent;
use super::{IN_README, README_PICTURE, perfetto, svg};
use crate::harness::folder::Folder;
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
    let folder = Folder::new()?;
    let mut judged = Ok(());
    // A machine that pauses for as long as client 1 thinks changes the picture, but hardly three times in a row.
    for _ in 0..ATTEMPTS {
        judged = Scene::new(entry, THREE_TALKERS, &[])
            .map_err(|why| anyhow!(why))
            .and_then(|scene| Recording::of(&scene, folder.path()))
            .and_then(|recording| judge(entry, &recording));
        if judged.is_ok() {
            break;
        }
    }
    judged
}

fn judge(entry: &Entry, recording: &Recording) -> Result<()> {
    let serves_one = entry.at_once == Some(1);
    ensure!(recording.makes_clients_wait() == serves_one, "{}", recording.verdict());
    let first = recording.visits.iter().find(|visit| visit.client == 1).context("there is no client 1")?;
    for visit in recording.visits.iter().filter(|visit| visit.client != 1) {
        let waited_for_first = visit.times(Kind::Answered).next().is_some_and(|answered| answered > first.left);
        ensure!(
            waited_for_first == serves_one,
            "client {} waited for client 1: {waited_for_first}, expected {serves_one}",
            visit.client
        );
    }
    let answers: usize = recording.visits.iter().map(Visit::answers).sum();
    ensure!(answers == CLIENTS * QUESTIONS, "the clients received {answers} answers, not {}", CLIENTS * QUESTIONS);
    let sends = |client| {
        let lanes = recording.model.shown().flat_map(|lane| &lane.intervals);
        lanes.filter(|interval| interval.activity == Activity::Send && interval.client == Some(client)).count()
    };
    for client in 1..=CLIENTS {
        let is_seen = entry.uses_io_uring() || sends(client) >= QUESTIONS;
        ensure!(is_seen, "{} answers to client {client} were seen by strace", sends(client));
    }
    sums_up(recording)?;
    let picture = svg::document(recording);
    ensure!((1..=CLIENTS).all(|client| picture.contains(&format!(">client {client}<"))), "a client has no lane");
    perfetto::json(recording)?;
    if entry.name == IN_README {
        let old = fs::read_to_string(workspace::root()?.join(README_PICTURE)).context(README_PICTURE)?;
        ensure!(gist(&old) == gist(&picture), "{README_PICTURE} is out of date: run `cargo xtask trace --readme`");
    }
    Ok(())
}

/// Returns the style and the words of a picture, without numbers and positions, which differ from run to run.
fn gist(picture: &str) -> String {
    const SAID: [&str; 7] =
        ["<title", "<desc", "<text x", "<text class=\"t", "<text class=\"v", "<text class=\"h", "<g "];
    let mut gist = String::new();
    for line in picture.lines() {
        if !line.starts_with('<') {
            gist += line;
        } else if SAID.iter().any(|beginning| line.starts_with(beginning)) {
            let texts = line.split('<').filter_map(|tag| Some(tag.split_once('>')?.1));
            gist.extend(texts.flat_map(|text| text.split([' ', '.']).filter(|word| word.parse::<u32>().is_err())));
        }
    }
    gist
}

/// Checks that the intervals of each lane have no gap, from the first to the last.
fn sums_up(recording: &Recording) -> Result<()> {
    for lane in recording.model.shown() {
        let (Some(first), Some(last)) = (lane.intervals.first(), lane.intervals.last()) else { continue };
        let gaps = lane.intervals.windows(2).filter(|pair| pair[0].until != pair[1].from).count();
        let all: Micros = Spent::of(lane).each.values().sum();
        ensure!(gaps == 0 && all == last.until - first.from, "{} does not sum up: {gaps} gaps", lane.name);
    }
    Ok(())
}

const ATTEMPTS: usize = 3;
/// The clients of the scenario, and the questions of each.
const CLIENTS: usize = 3;
const QUESTIONS: usize = 3;
