//! The command line of `cargo xtask choose`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench::plan;
use crate::bench::workload::Workload;
use crate::workspace::{self, Profile};

/// Says which architectures meet an objective under your load, and which of them is cheapest
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// How many clients are connected at the same time
    #[arg(long, value_name = "N", value_parser = plan::level)]
    pub(super) clients: usize,
    /// The share of the clients that ask; the others are connected and silent
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share)]
    pub(super) busy: f64,
    /// Questions a second of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) rate: u64,
    /// Work on an answer: sleep:20ms (it waits for something) or compute:2ms [default: none]
    #[arg(long, value_name = "WORK", value_parser = work)]
    pub(super) answer: Option<[String; 2]>,
    /// The objectives, such as 'p99<50ms' or 'p99<5ms,unserved<1%'
    #[arg(long, value_name = "OBJECTIVES")]
    pub(super) slo: String,
    /// Only this server; may be repeated [default: all that can serve the clients]
    #[arg(long, value_name = "NAME")]
    pub(super) server: Vec<String>,
    /// Another server of the protocol: it must listen on 127.0.0.1:{port}, and do {work}
    #[arg(long, value_name = "NAME='COMMAND {port} {work}'")]
    pub(super) peer: Vec<String>,
    /// Print one JSON object instead of sentences
    #[arg(long)]
    pub(super) json: bool,
}

impl Flags {
    pub(super) fn workload(&self) -> Workload {
        Workload {
            name: "choose".to_owned(),
            clients: vec![self.clients],
            busy: self.busy,
            rate: Some(self.rate),
            work: self.answer.iter().flatten().cloned().collect(),
            flags: ["--arrivals", "poisson"].map(str::to_owned).into(),
            objectives: Some(self.slo.clone()),
        }
    }
}

/// Fails if zen-client cannot parse the objectives, so that nothing is measured before a typing error is found.
pub(super) fn check_objectives(slo: &str) -> Result<()> {
    // zen-client parses --fail-if first; then --help ends it before it connects.
    let mut load = Command::new(workspace::built(Profile::Release, "zen-client")?);
    let output = load.args(["load", "--fail-if", slo, "--help"]).output().context("cannot run zen-client")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "--slo: {}", line.strip_prefix("error: ").unwrap_or(line));
    Ok(())
}

fn share(text: &str) -> Result<f64> {
    let percent: f64 = text.trim_end_matches('%').parse().context("not a percentage, such as 2%")?;
    ensure!(percent > 0.0 && percent <= 100.0, "expected more than 0 % and at most 100 %");
    Ok(percent / 100.0)
}

/// Parses `sleep:20ms` into `--delay`, `20ms`.
fn work(text: &str) -> Result<[String; 2]> {
    let (kind, duration) = text.split_once(':').context("not sleep:DURATION or compute:DURATION")?;
    let flag = match kind {
        "sleep" => "--delay",
        "compute" => "--burn",
        _ => anyhow::bail!("'{kind}' is neither sleep nor compute"),
    };
    humantime::parse_duration(duration).with_context(|| format!("'{duration}' is not a duration, such as 20ms"))?;
    Ok([flag.to_owned(), duration.to_owned()])
}

#[cfg(test)]
impl Flags {
    /// Returns the flags of a command line for 1,000 clients and 2,000 questions a second, with `more` words.
    pub(super) fn of_test(more: &[&str]) -> Self {
        #[derive(clap::Parser)]
        struct CommandLine {
            #[command(flatten)]
            choose: Flags,
        }
        let words = [&["choose", "--clients", "1000", "--rate", "2000", "--slo", "p99<5ms"][..], more].concat();
        <CommandLine as clap::Parser>::try_parse_from(words).expect("it is a command line").choose
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_shares_are_read() {
        assert_eq!(work("sleep:20ms").expect("it is work").join(" "), "--delay 20ms");
        assert_eq!(work("compute:2ms").expect("it is work").join(" "), "--burn 2ms");
        assert_eq!(work("sleep:1s 500ms").expect("it is work"), ["--delay", "1s 500ms"]);
        assert!(["sleep", "sleep:x", "rest:1s"].into_iter().all(|text| work(text).is_err()));
        assert_eq!(share("2%").ok(), Some(0.02));
        assert!(share("0%").is_err() && share("101").is_err());
    }
}
