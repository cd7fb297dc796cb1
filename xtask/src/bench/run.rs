//! One measurement: a fresh server, a load, and what the server used while the load measured.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cost::Watched;
use super::load::{Load, Report, Wish};
use super::place::Place;
use super::plan::WARMUP;
use super::results::Measurement;
use super::subject::{Setting, Subject};

/// What all measurements of a run have in common.
pub(crate) struct Conditions<'a> {
    pub(crate) setting: Setting,
    pub(crate) place: &'a Place,
    pub(crate) pipeline: usize,
    pub(crate) measured: Duration,
    pub(crate) folder: &'a Path,
}

/// What came out of one measurement.
pub(crate) struct Outcome {
    pub(crate) measurement: Measurement,
    /// `[microseconds, count]`.
    pub(crate) histogram: Vec<(f64, u64)>,
    /// Why it must not be trusted.
    pub(crate) problem: Option<String>,
}

/// Measures a subject under so many connections.
pub(crate) fn measure(
    conditions: &Conditions<'_>,
    subject: &Subject,
    connections: usize,
    round: usize,
    seed: u64,
) -> Result<Outcome> {
    conditions.place.for_server()?;
    let server = subject.start(conditions.setting, &[])?;
    conditions.place.for_load()?;
    let wish = conditions.wish(connections, seed);
    let mut load = Load::start(server.address(), wish)?;
    let start = load.begins()? + wish.warmup;
    // Late in the warm-up, when everybody is accepted and has the thread that serves him.
    sleep_until(start - wish.warmup / 3);
    let watched = Watched::new(&server.processes())?;
    let descriptors = watched.descriptors();
    sleep_until(start);
    let (cpu_before, switches_before) = (watched.cpu()?, watched.switches());
    // A little earlier: when the load has ended, so have the threads that served it.
    sleep_until(start + wish.measured.mul_f64(0.9));
    let switches = watched.switches().since(&switches_before);
    sleep_until(start + wish.measured);
    let busy = watched.cpu()?.since(&cpu_before);
    let report = load.finish().with_context(|| format!("{} with {connections} connections", subject.name))?;
    ensure!(report.answers > 0, "no answer at all");
    let problem = report.problem();
    let per_answer = |rate: f64| rate / report.answers_per_second;
    let measurement = Measurement {
        round,
        seconds: report.seconds,
        answers: report.answers,
        answers_per_second: report.answers_per_second,
        cpu_us_per_answer: per_answer(busy * 1e6),
        busy,
        p50_us: report.service_time_us.p50,
        p90_us: report.service_time_us.p90,
        p99_us: report.service_time_us.p99,
        p999_us: report.service_time_us.p999,
        max_us: report.service_time_us.max,
        voluntary_switches_per_answer: per_answer(switches.0),
        involuntary_switches_per_answer: per_answer(switches.1),
        threads: watched.threads,
        descriptors,
        load_busy: report.cpu_seconds / report.seconds,
        load_was_bottleneck: report.was_bottleneck(),
    };
    let Report { histogram, .. } = report;
    Ok(Outcome { measurement, histogram: histogram.service_time_us, problem })
}

impl Conditions<'_> {
    fn wish(&self, connections: usize, seed: u64) -> Wish<'_> {
        Wish {
            profile: self.setting.profile,
            connections,
            pipeline: self.pipeline,
            threads: self.place.load.len().clamp(1, connections),
            warmup: warmup(self.measured, connections),
            measured: self.measured,
            seed,
            folder: self.folder,
        }
    }
}

/// What is asked before it is measured.
pub(crate) fn warmup(measured: Duration, connections: usize) -> Duration {
    measured.mul_f64(WARMUP / (1.0 - WARMUP)).max(SHORTEST_WARMUP).max(ACCEPTING.mul_f64(connections as f64))
}

/// What a server takes at most to accept one client, with a thread for him.
const ACCEPTING: Duration = Duration::from_micros(60);
/// Long enough that every server has filled its caches.
const SHORTEST_WARMUP: Duration = Duration::from_millis(25);

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
