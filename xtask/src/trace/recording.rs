//! A recording of one server: a scenario under strace, and for `trace` also without it, to see what strace costs.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::lanes;
use super::model::{Interval, Model, SCHEMA};
use super::scenario::{Scenario, Visit, median_answer, now};
use super::sources::Lines;
use super::strace::{Call, Log, Micros, STRACE};
use crate::harness::process::limit_descriptors;
use crate::harness::{Server, WAIT_LIMIT};
use crate::servers::Entry;

/// The model of a run, and what it was made from.
pub(crate) struct Recording {
    pub(crate) model: Model,
    pub(crate) visits: Vec<Visit>,
    /// The clients' reports of a run without strace; empty if there was no such run.
    pub(crate) untraced: Vec<Visit>,
    /// When the first client connected, by the clock: the zero of all lanes.
    pub(crate) start: Micros,
    /// The calls in that time, of all threads.
    pub(crate) calls: Vec<Call>,
}

impl Recording {
    /// Records a server several times and keeps the run that the rest of the machine disturbed least. After each it
    /// also runs the server without strace; the fastest of these runs shows what strace costs.
    pub(crate) fn calmest(scene: &Scene, folder: &Path) -> Result<Recording> {
        let mut calmest: Option<Recording> = None;
        for attempt in 1..=ATTEMPTS {
            let own = folder.join(format!("attempt-{attempt}"));
            let mut recording = Recording::of(scene, &own)?;
            let server = Server::start(scene.entry, &scene.arguments())?;
            recording.untraced = scene.played(server).context("without strace")?.visits;
            if let Some(calmest) = &mut calmest
                && median_answer(&recording.untraced) < median_answer(&calmest.untraced)
            {
                calmest.untraced = recording.untraced.clone();
            }
            if calmest.as_ref().is_none_or(|calmest| recording.busy_time() < calmest.busy_time()) {
                recording.untraced = calmest.map_or(recording.untraced, |calmest| calmest.untraced);
                fs::rename(own.join(LOG), folder.join(LOG)).context("cannot keep the log")?;
                calmest = Some(recording);
            }
            fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
        }
        calmest.context("nothing was recorded")
    }

    /// Returns how long the threads that are drawn worked: nearly all of that is due to strace and to other programs.
    fn busy_time(&self) -> Micros {
        let intervals = self.model.shown().flat_map(|lane| &lane.intervals);
        intervals.filter(|interval| !interval.activity.is_waiting()).map(Interval::length).sum()
    }

    /// Records a scene once into `folder`, where the log stays.
    pub(crate) fn of(scene: &Scene, folder: &Path) -> Result<Recording> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(LOG);
        let output = file.to_string_lossy();
        let server = Server::start_under(&[&STRACE[..], &[&*output]].concat(), scene.entry, &scene.arguments())?;
        let played = scene.played(server).context("under strace")?;
        let log = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let log = Log::parse(&String::from_utf8_lossy(&log));
        ensure!(!log.calls.is_empty(), "{} has no system call", file.display());
        let mut recording = Recording::from(scene, &log, played);
        let lines = Lines::of(scene.entry)?;
        lines.set_sources(&mut recording.model.threads);
        recording.model.sources = lines.sources();
        Ok(recording)
    }

    /// Returns what a log and its clients' reports give, without the sources.
    pub(crate) fn from(scene: &Scene, log: &Log, Played { visits, drained }: Played) -> Recording {
        let start = visits.iter().map(|visit| visit.came).min().unwrap_or_default();
        let left = visits.iter().map(|visit| visit.left).max().unwrap_or_default();
        let end = left + AFTERWARDS;
        let calls = log.calls.iter().filter(|call| (start..end).contains(&call.start)).cloned().collect();
        let ports = visits.iter().map(|visit| (visit.port, visit.client)).collect();
        let work = scene.scenario.work.as_micros() as Micros;
        let prompt = if scene.entry.forks { work + STARTS_PROCESS } else { work };
        let subjects = visits.iter().filter(|visit| visit.is_subject).map(|visit| visit.client).collect();
        let model = Model {
            schema: SCHEMA,
            server: scene.entry.name,
            command: scene.command(),
            scenario: scene.scenario.name,
            length: end - start,
            work,
            seats: scene.seats(),
            drained: drained.map(|drained| drained - start),
            subjects,
            threads: lanes::threads(log, &ports, start, end),
            clients: lanes::clients(log, &visits, start, prompt),
            sources: Vec::new(),
        };
        Recording { model, visits, untraced: Vec::new(), start, calls }
    }

    /// Returns the threads that are not drawn: their names, and in how many processes there is one of that name.
    pub(crate) fn left_out(&self) -> Vec<(&str, usize)> {
        let mut names: Vec<(&str, usize)> = Vec::new();
        for lane in self.model.threads.iter().filter(|lane| !lane.matters) {
            let name = lane.name.split(" of process ").next().unwrap_or(&lane.name);
            match names.iter_mut().find(|(other, _)| *other == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        names
    }
}

/// A scenario for a server.
pub(crate) struct Scene {
    pub(crate) entry: &'static Entry,
    pub(crate) scenario: &'static Scenario,
    /// Options that the scenario asks for, and those of the user.
    options: Vec<String>,
}

impl Scene {
    /// Returns a scene, or why the scenario does not apply to the server.
    pub(crate) fn new(
        entry: &'static Entry,
        scenario: &'static Scenario,
        more: &[&str],
    ) -> Result<Scene, &'static str> {
        let options = (scenario.arguments)(entry)?.into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
        Ok(Scene { entry, scenario, options })
    }

    fn arguments(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }

    /// Returns how the server is started.
    fn command(&self) -> String {
        let binary = self.entry.binary.trim_start_matches("examples/");
        let arguments = self.entry.arguments.iter().copied().chain(self.arguments());
        [binary].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    }

    /// Returns how many connections the kernel keeps until the server accepts them: one more than the backlog.
    fn seats(&self) -> usize {
        let backlog = self.options.iter().skip_while(|option| *option != "--backlog").nth(1);
        backlog.and_then(|backlog| backlog.parse().ok()).unwrap_or(DEFAULT_BACKLOG) + 1
    }

    /// Runs the scenario and then ends the server, because strace writes everything only after that.
    fn played(&self, mut server: Server) -> Result<Played> {
        // The ready line may be printed before the last thread has started.
        server.wait_until_asleep(WAIT_LIMIT)?;
        if self.scenario.lacks_descriptors {
            leave_one_descriptor(server.pid())?;
        }
        let mut drained = None;
        let drain = || {
            drained = Some(now());
            server.signal(Signal::TERM)
        };
        let visits = self.scenario.play(self.entry, server.address(), drain)?;
        if drained.is_none() {
            // The reaction to the signal is not part of the picture.
            thread::sleep(Duration::from_millis(10));
            server.signal(Signal::TERM)?;
        }
        server.ended_within(WAIT_LIMIT).context("the server still runs after SIGTERM")?;
        Ok(Played { visits, drained })
    }
}

/// The result of a scenario.
pub(crate) struct Played {
    pub(crate) visits: Vec<Visit>,
    /// When the server was sent SIGTERM, if the scenario does that.
    pub(crate) drained: Option<Micros>,
}

/// Lowers a process's limit of descriptors so that it can open one more.
fn leave_one_descriptor(pid: i32) -> Result<()> {
    let open = |number: u64| Path::new(&format!("/proc/{pid}/fd/{number}")).is_symlink();
    let free = (0..).find(|&number| !open(number)).context("every number is in use")?;
    limit_descriptors(pid, Some(free + 1)).context("cannot limit the server's descriptors").map(drop)
}

/// How long it takes, under strace, to start a process for a client.
const STARTS_PROCESS: Micros = 100_000;
const ATTEMPTS: usize = 3;
/// The file with strace's output, which stays in the folder.
pub(crate) const LOG: &str = "strace.log";
/// The time that is drawn after the last client has left, because the server notices that a moment later.
const AFTERWARDS: Micros = 3_000;
/// The backlog of a server without `--backlog`.
pub(crate) const DEFAULT_BACKLOG: usize = 1024;
