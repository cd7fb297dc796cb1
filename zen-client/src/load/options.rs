//! What `zen-client load` takes.

use std::net::SocketAddr;
use std::time::Duration;

use super::mix::Mix;
use super::plan::Plan;
use crate::options::{Server, duration};

/// What `zen-client load` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) server: Server,
    /// How many connections are busy at once
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = connections)]
    connections: usize,
    /// How many questions each connection may have on their way
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = pipeline)]
    pipeline: usize,
    /// How long to measure, such as 10s or 500ms
    #[arg(short, long, value_name = "DURATION", default_value = "5s", value_parser = measured_time)]
    duration: Duration,
    /// How long to ask before measuring; 0: not at all
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = warmup)]
    warmup: Duration,
    /// How many threads share the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    threads: usize,
    /// Ask N questions a second, spread evenly, whether or not answers come [default: ask after each answer]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// A new connection for each question
    #[arg(long, conflicts_with = "pipeline")]
    churn: bool,
    /// Keep N silent connections beside the busy ones
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = idle)]
    idle: usize,
    /// What the busy connections do, in parts, such as good=90,drip=5,silent=5 [default: all are good]
    #[arg(long, value_name = "PARTS")]
    mix: Option<Mix>,
    /// The longest wait for a connection, and for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
    /// After a failure connect anew, to the next address, and ask again, at most N times for each question
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=MOST_RETRIES))]
    pub(super) retries: u32,
    /// Ask the same questions each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object instead of the tables
    #[arg(long)]
    pub(super) json: bool,
    /// Add the histograms to the JSON object: [microseconds, count] of all that was counted
    #[arg(long, requires = "json")]
    pub(super) histogram: bool,
}

impl Options {
    /// The plan for servers at `addresses`.
    pub(super) fn plan(&self, addresses: Vec<SocketAddr>) -> Plan {
        let fresh = Plan::new(addresses);
        Plan {
            connections: self.connections,
            mix: self.mix.unwrap_or(Mix::GOOD),
            idle: self.idle,
            pipeline: self.pipeline,
            threads: self.threads,
            rate: self.rate,
            churn: self.churn,
            warmup: self.warmup,
            duration: self.duration,
            timeout: self.timeout,
            retries: self.retries,
            seed: self.seed.unwrap_or(fresh.seed),
            ..fresh
        }
    }

    /// What no single flag shows to be wrong.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let good = self.mix.unwrap_or(Mix::GOOD).shares(self.connections)[0];
        (self.threads > good)
            .then(|| format!("--threads {}: there are only {good} connections that ask, see -c", self.threads))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// More connections than any Linux lets one process have, so that a sum of two such numbers stays sensible.
const MOST_CONNECTIONS: usize = 1_000_000;
/// At this depth the questions of one connection fill the network's buffers.
const DEEPEST_PIPELINE: usize = 10_000;
/// Far more than processors.
const MOST_THREADS: usize = 1024;
/// A question that found no answer so often will find none.
const MOST_RETRIES: i64 = 1000;
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

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

fn at_most(text: &str, most: Duration) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > most {
        return Err(format!("at most {}", humantime::format_duration(most)));
    }
    Ok(duration)
}

fn warmup(text: &str) -> Result<Duration, String> {
    at_most(text, LONGEST_RUN)
}

fn measured_time(text: &str) -> Result<Duration, String> {
    let duration = at_most(text, LONGEST_RUN)?;
    if duration < Duration::from_millis(1) { Err("a run lasts for 1ms at least".to_owned()) } else { Ok(duration) }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = at_most(text, LONGEST_TIMEOUT)?;
    if timeout < Duration::from_millis(1) {
        Err("an answer must be given 1ms at least".to_owned())
    } else {
        Ok(timeout)
    }
}
