//! `zen-client load`: started, followed until it asks, and read when it has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::workload::Workload;
use crate::harness::capture::Capture;
use crate::harness::group::Group;
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::workspace::{self, Profile};

/// What is asked of it.
#[derive(Clone, Copy)]
pub(crate) struct LoadConfig<'a> {
    pub(crate) profile: Profile,
    pub(crate) workload: &'a Workload,
    /// All clients, also those that stay silent.
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
    pub(crate) seed: u64,
    /// Where it may leave a file.
    pub(crate) folder: &'a Path,
}

/// A load that is under way.
pub(crate) struct Load {
    group: Group,
    stderr: Capture,
    /// Its result may be longer than a pipe or a memory of ours should hold.
    output: PathBuf,
    longest: Duration,
}

/// What is read of its result.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    schema: String,
    pub(crate) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) missed: u64,
    pub(crate) unserved: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) response_time_us: Times,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) histogram: Histogram,
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
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        command.args(["--warmup", &milliseconds(config.warmup), "--duration", &milliseconds(config.measured)]);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(Stdio::piped());
        let mut group = Group::start(&mut command)?;
        let stderr = Capture::of(group.child().stderr.take().context("it is piped")?)?;
        Ok(Load { group, stderr, output, longest: config.warmup + config.measured + WAIT_LIMIT })
    }

    /// Waits until all connections are open and the first question is asked, and returns when that was.
    /// The warm-up begins with the load's threads.
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
                bail!("the load never began: {}", self.stderr.text().trim_end());
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Its result. A failure of the load is part of it; an error is what has no result.
    pub(crate) fn finish(mut self) -> Result<Report> {
        let ended = wait_for(self.longest, || self.group.ended_within(Duration::ZERO));
        let status = ended.with_context(|| format!("the load did not end within {:?}", self.longest))?;
        let text = fs::read_to_string(&self.output)?;
        let said = || format!("the load ended with {status}: {}", self.stderr.text().trim_end());
        let report: Report = serde_json::from_str(&text).with_context(said)?;
        ensure!(report.schema == SCHEMA, "the load speaks {:?}, and not {SCHEMA:?}", report.schema);
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.output);
    }
}

impl Report {
    /// Why the run must not be trusted, if there is a reason: wrong bytes, or figures that contradict each other.
    ///
    /// Clients that were not served, or not in time, are a result.
    pub(crate) fn problem(&self) -> Option<String> {
        let wrong = self.failures.get("wrong").filter(|&&n| n > 0).map(|n| format!("{n} wrong answers"));
        let law = self.verdicts.iter().find(|verdict| verdict.name == "littles_law" && verdict.ok == Some(false));
        let law = law.map(|verdict| verdict.text.clone());
        let problems: Vec<String> = wrong.into_iter().chain(law).collect();
        (!problems.is_empty()).then(|| problems.join(", "))
    }

    /// Returns whether the server could have answered more than was asked.
    pub(crate) fn was_bottleneck(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.name == "processor" && verdict.ok == Some(false))
    }
}

const SCHEMA: &str = "zen-client load 2";

/// How exactly the beginning is known.
const GLANCE: Duration = Duration::from_micros(500);
