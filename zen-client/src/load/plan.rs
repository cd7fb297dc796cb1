//! The settings of a run: parsed from the command line, carried out by the generator, and repeated by `--json`.

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use serde::{Serialize, Serializer};

use super::mix::Mix;
use super::schedule::Arrivals;
use crate::options::duration_within;

/// The settings of a run.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Plan {
    /// How many connections are busy at the same time
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = connections)]
    pub(crate) connections: usize,
    /// How many questions each connection may have in flight
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = pipeline)]
    pub(crate) pipeline: usize,
    /// How long to measure, such as 10s or 500ms
    #[arg(short, long, value_name = "DURATION", default_value = "5s", value_parser = measured_time)]
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// How long to ask before measuring; 0: not at all
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = warmup)]
    #[serde(rename = "warmup_seconds", serialize_with = "seconds")]
    pub(crate) warmup: Duration,
    /// How many threads share the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub(crate) threads: usize,
    /// Ask N questions a second, whether or not answers come [default: ask after each answer]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_RATE))]
    pub(crate) rate: Option<u64>,
    /// How the questions of --rate are spread over time: at equal distances, or at random as from independent clients
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) arrivals: Arrivals,
    /// A new connection for each question
    #[arg(long, conflicts_with = "pipeline")]
    pub(crate) churn: bool,
    /// Keep N silent connections open in addition to the busy ones
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = idle)]
    pub(crate) idle: usize,
    /// Open at most N connections a second at the start [default: as fast as the server accepts]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_RATE))]
    pub(crate) connect_rate: Option<u64>,
    /// What the busy connections do, in parts, such as good=90,drip=5,silent=5
    #[arg(long, value_name = "PARTS", default_value = "good=1")]
    #[serde(skip)]
    pub(crate) mix: Mix,
    /// The longest wait for a connection, and for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    #[serde(rename = "timeout_seconds", serialize_with = "seconds")]
    pub(crate) timeout: Duration,
    /// After a failure reconnect, to the next address, and ask again, at most N times for each question
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=MOST_RETRIES))]
    pub(crate) retries: u32,
    /// Ask the same questions each time [default: a random seed]
    // Every reader of JSON keeps 32 bits exactly.
    #[arg(long, value_name = "N", default_value_t = u64::from(fastrand::u32(..)), hide_default_value = true)]
    pub(crate) seed: u64,
}

impl Default for Plan {
    /// Returns the plan of an empty command line.
    fn default() -> Self {
        let matches = Self::augment_args(Command::new("load")).get_matches_from([""]);
        Self::from_arg_matches(&matches).expect("every flag has a default")
    }
}

impl Plan {
    /// Returns how many connections are good, drip, and are silent.
    pub(super) fn shares(&self) -> [usize; 3] {
        self.mix.shares(self.connections)
    }

    /// Returns how many connections ask.
    pub(super) fn good(&self) -> usize {
        self.shares()[0]
    }

    /// Returns the contradiction between flags that are right by themselves, if there is one.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (threads, good) = (self.threads, self.good());
        if threads > good {
            return Some(format!("--threads {threads}: only {good} connections ask, see -c"));
        }
        let questions = self.rate.unwrap_or(0) as f64 * (self.warmup + self.duration).as_secs_f64();
        (self.arrivals == Arrivals::Poisson && questions > MOST_RANDOM_ARRIVALS).then(|| {
            format!(
                "--arrivals poisson keeps the times of at most {MOST_RANDOM_ARRIVALS:e} questions: lower --rate or -d"
            )
        })
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let n = text.parse().map_err(|_| "not a number".to_owned())?;
    if (least..=most).contains(&n) { Ok(n) } else { Err(format!("must be {least} to {most}")) }
}

fn connections(text: &str) -> Result<usize, String> {
    count(text, 1, MOST_CONNECTIONS)
}

fn idle(text: &str) -> Result<usize, String> {
    count(text, 0, MOST_CONNECTIONS)
}

fn pipeline(text: &str) -> Result<usize, String> {
    count(text, 1, DEEPEST_PIPELINE)
}

fn threads(text: &str) -> Result<usize, String> {
    count(text, 1, MOST_THREADS)
}

fn warmup(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO, LONGEST_RUN)
}

fn measured_time(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1), LONGEST_RUN)
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1), LONGEST_TIMEOUT)
}

/// About as many as Linux allows one process by default (fs.nr_open: 1,048,576 descriptors).
const MOST_CONNECTIONS: usize = 1_000_000;
/// At this depth the questions of one connection fill the network's buffers.
const DEEPEST_PIPELINE: usize = 10_000;
/// Far more than there are processors.
const MOST_THREADS: usize = 1024;
/// A question that failed this often will fail again.
const MOST_RETRIES: i64 = 1000;
/// Questions or connections a second: one in a hundred nanoseconds.
const MOST_RATE: u64 = 10_000_000;
/// Eight bytes for each: 400 MB.
const MOST_RANDOM_ARRIVALS: f64 = 5e7;
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
