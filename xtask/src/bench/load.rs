//! Runs `zen-client load` and reads its result.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::results::Objective;
use super::workload::Workload;
use crate::harness::capture::Capture;
use crate::harness::group::Group;
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::workspace::{self, Profile};

/// The parameters of a load.
#[derive(Clone, Copy)]
pub(crate) struct LoadConfig<'a> {
    pub(crate) profile: Profile,
    pub(crate) workload: &'a Workload,
    /// The number of clients, including those that stay silent.
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
    pub(crate) seed: u64,
    /// A folder for its result.
    pub(crate) folder: &'a Path,
}

/// A running load.
pub(crate) struct Load {
    group: Group,
    stderr: Capture,
    /// The file for its result, which may be too long for the buffer of a pipe.
    output: PathBuf,
    /// The longest time that it may take.
    longest: Duration,
}

/// The fields of the load's result that are used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    schema: String,
    pub(crate) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) retries: Retries,
    pub(crate) missed: u64,
    pub(crate) unserved: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) response_time_us: Times,
    pub(crate) verdicts: Vec<Verdict>,
    /// `None` without `--histogram`.
    pub(crate) histogram: Option<Histogram>,
}

/// What was tried again after a failure.
#[derive(Debug, Deserialize)]
pub(crate) struct Retries {
    pub(crate) connections: u64,
    pub(crate) questions: u64,
    pub(crate) answered: u64,
    pub(crate) given_up: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    /// `None`: there was nothing to judge.
    pub(crate) ok: Option<bool>,
    pub(crate) text: String,
    /// The value of an objective's metric: seconds, or a share of 1. `None` if there were no answers to measure.
    value: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Histogram {
    pub(crate) response_time_us: Vec<(f64, u64)>,
}

impl Load {
    pub(crate) fn start(server: SocketAddr, config: LoadConfig<'_>) -> Result<Load> {
        let output = config.folder.join("load.json");
        let mut command = Command::new(workspace::built(config.profile, "zen-client")?);
        let asking = config.workload.asking(config.clients);
        let numbers = [
            ("--port", u64::from(server.port())),
            ("--connections", asking as u64),
            ("--idle", (config.clients - asking) as u64),
            ("--threads", config.threads as u64),
            ("--seed", config.seed),
        ];
        command.args(["load", &server.ip().to_string(), "--json", "--histogram"]);
        numbers.iter().for_each(|(flag, number)| _ = command.args([flag, number.to_string().as_str()]));
        if config.pipeline > 1 {
            command.args(["--pipeline", &config.pipeline.to_string()]);
        }
        config.workload.rate.iter().for_each(|rate| _ = command.args(["--rate", &rate.to_string()]));
        command.args(&config.workload.flags);
        config.workload.objectives.iter().for_each(|objectives| _ = command.args(["--fail-if", objectives]));
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        command.args(["--warmup", &milliseconds(config.warmup), "--duration", &milliseconds(config.measured)]);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(Stdio::piped());
        let mut group = Group::start(&mut command)?;
        let stderr = group.capture_stderr()?;
        Ok(Load { group, stderr, output, longest: config.warmup + config.measured + WAIT_LIMIT })
    }

    /// Waits until the threads of the load have started, which is when the warm-up begins, and returns that time.
    ///
    /// By then all connections have been opened.
    pub(crate) fn begins(&mut self) -> Result<Instant> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.group.id()));
        let asks = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("load-"));
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let now = Instant::now();
            if fs::read_dir(&tasks).into_iter().flatten().flatten().any(|task| asks(&task.path())) {
                return Ok(now);
            }
            if self.group.ended_within(Duration::ZERO).is_some() || now > deadline {
                bail!("the load did not start: {}", self.stderr.text().trim_end());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the load ends and returns its result. Failed questions are part of the result. An error means that
    /// there is no result.
    pub(crate) fn finish(mut self) -> Result<Report> {
        let ended = wait_for(self.longest, || self.group.ended_within(Duration::ZERO));
        let status = ended.with_context(|| format!("the load did not end within {:?}", self.longest))?;
        let text = fs::read_to_string(&self.output)?;
        let ending = || format!("the load ended with {status}: {}", self.stderr.text().trim_end());
        Report::parse(text.as_bytes()).with_context(ending)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.output);
    }
}

impl Report {
    /// Reads what `zen-client load --json` prints.
    pub(crate) fn parse(json: &[u8]) -> Result<Report> {
        let report: Report = serde_json::from_slice(json)?;
        ensure!(report.schema == SCHEMA, "the load's result has the schema {:?}, expected {SCHEMA:?}", report.schema);
        Ok(report)
    }

    /// Returns how many questions failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn p50(&self) -> Duration {
        micros(self.response_time_us.p50)
    }

    pub(crate) fn p99(&self) -> Duration {
        micros(self.response_time_us.p99)
    }

    /// Returns why the run is not valid, if there is a reason: wrong answers, or figures that contradict Little's law.
    ///
    /// Clients that were not served, or not in time, do not make the run invalid: they are part of its result.
    pub(crate) fn problem(&self) -> Option<String> {
        let wrong = self.failures.get("wrong").filter(|&&n| n > 0).map(|n| format!("{n} wrong answers"));
        let law = self.verdicts.iter().find(|verdict| verdict.name == "littles_law" && verdict.ok == Some(false));
        let law = law.map(|verdict| verdict.text.clone());
        let problems: Vec<String> = wrong.into_iter().chain(law).collect();
        (!problems.is_empty()).then(|| problems.join(", "))
    }

    /// Returns the workload's objectives, each with whether it is met.
    pub(crate) fn objectives(&self) -> Vec<Objective> {
        let verdicts = self.verdicts.iter().filter(|verdict| verdict.name == "objective");
        // An objective is passed as a condition of --fail-if: its verdict is not ok where the condition is true.
        let objective =
            |it: &Verdict| Objective { text: it.text.clone(), is_met: it.ok == Some(false), value: it.value };
        verdicts.map(objective).collect()
    }

    /// Returns whether the load was the bottleneck, so that the server could have answered more questions.
    pub(crate) fn was_bottleneck(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.name == "processor" && verdict.ok == Some(false))
    }
}

/// Converts microseconds to a duration, and `None` to zero.
fn micros(time: Option<f64>) -> Duration {
    Duration::from_secs_f64(time.unwrap_or_default() / 1e6)
}

const SCHEMA: &str = "zen-client load 2";

/// The time between two looks for the load's threads. The start of the load is known to this precision.
const POLL_INTERVAL: Duration = Duration::from_micros(500);
