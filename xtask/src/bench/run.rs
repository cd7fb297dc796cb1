//! One measurement: starts a server, puts a load on it, and samples the server while the load measures.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cost::ProcessSampler;
use super::load::{Load, LoadConfig};
use super::plan::WARMUP;
use super::processors::Processors;
use super::results::Measurement;
use super::target::{Setting, Target};
use super::workload::Workload;

/// The settings that all measurements of a run have in common.
pub(crate) struct Conditions<'a> {
    pub(crate) setting: Setting,
    pub(crate) processors: &'a Processors,
    pub(crate) workload: &'a Workload,
    pub(crate) pipeline: usize,
    pub(crate) measured: Duration,
    pub(crate) folder: &'a Path,
}

/// The result of one measurement.
pub(crate) struct Outcome {
    pub(crate) measurement: Measurement,
    /// Response times, as pairs of microseconds and a count.
    pub(crate) histogram: Vec<(f64, u64)>,
    /// The reason why the measurement is not valid, if there is one.
    pub(crate) problem: Option<String>,
}

/// Measures a target with this number of connections.
pub(crate) fn measure(
    conditions: &Conditions<'_>,
    target: &Target,
    connections: usize,
    round: usize,
    seed: u64,
) -> Result<Outcome> {
    conditions.processors.for_server()?;
    let server = target.start(conditions.setting, &conditions.workload.work, &[])?;
    conditions.processors.for_load()?;
    let config = conditions.config(connections, target.accept_time(), seed);
    let mut load = Load::start(server.address(), config)?;
    let start = load.begins()? + config.warmup;
    // Late in the warm-up, every client is accepted and served by its thread or process.
    sleep_until(start - config.warmup / 3);
    let sampler = ProcessSampler::new(&server.processes())?;
    let descriptors = sampler.descriptors();
    sleep_until(start);
    let (cpu_before, switches_before) = (sampler.cpu()?, sampler.switches());
    // Before the load ends, because the threads of its clients end with it.
    sleep_until(start + config.measured.mul_f64(0.9));
    let switches = sampler.switches().since(&switches_before);
    sleep_until(start + config.measured);
    let busy = sampler.cpu()?.since(&cpu_before);
    let report = load.finish().with_context(|| format!("{} with {connections} connections", target.name))?;
    let problem = report.problem();
    let per_answer = |rate: f64| if report.answers > 0 { rate / report.answers_per_second } else { 0.0 };
    let failed = report.failures();
    let measurement = Measurement {
        round,
        seconds: report.seconds,
        answers: report.answers,
        answers_per_second: report.answers_per_second,
        cpu_us_per_answer: per_answer(busy * 1e6),
        busy,
        p50_us: report.response_time_us.p50,
        p90_us: report.response_time_us.p90,
        p99_us: report.response_time_us.p99,
        p999_us: report.response_time_us.p999,
        max_us: report.response_time_us.max,
        voluntary_switches_per_answer: per_answer(switches.0),
        involuntary_switches_per_answer: per_answer(switches.1),
        threads: sampler.threads,
        descriptors,
        failed,
        missed: report.missed,
        unserved: report.unserved,
        is_held: failed + report.missed + report.unserved == 0,
        load_busy: report.cpu_seconds / report.seconds,
        load_was_bottleneck: report.was_bottleneck(),
        objectives: report.objectives(),
    };
    let histogram = report.histogram.context("the load's result has no histogram")?.response_time_us;
    Ok(Outcome { measurement, histogram, problem })
}

impl Conditions<'_> {
    fn config(&self, connections: usize, accept_time: Duration, seed: u64) -> LoadConfig<'_> {
        LoadConfig {
            profile: self.setting.profile,
            workload: self.workload,
            clients: connections,
            pipeline: self.pipeline,
            threads: self.processors.load.len().clamp(1, self.workload.asking(connections)),
            warmup: warmup(self.measured, accept_time.mul_f64(connections as f64)),
            measured: self.measured,
            seed,
            folder: self.folder,
        }
    }
}

/// Returns the length of the warm-up, during which clients ask and nothing is measured. It is at least `accept_time`,
/// the time to accept all clients.
pub(crate) fn warmup(measured: Duration, accept_time: Duration) -> Duration {
    measured.mul_f64(WARMUP / (1.0 - WARMUP)).max(SHORTEST_WARMUP).max(accept_time)
}

/// The shortest warm-up, in which every server fills its caches.
const SHORTEST_WARMUP: Duration = Duration::from_millis(25);

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
