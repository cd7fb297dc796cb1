//! Workloads: the number of clients, how often they ask, and the work on an answer.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What the clients do, and how much work an answer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    /// The numbers of connected clients; each is measured.
    pub(crate) clients: Vec<usize>,
    /// The share of the clients that ask, from 0 to 1; the others stay silent.
    pub(crate) busy: f64,
    /// Questions a second of all clients together, whether or not answers arrive. `None`: each client asks again as
    /// soon as it is answered.
    pub(crate) rate: Option<u64>,
    /// The server's flag for the work on an answer, and its duration: `--delay`, `20ms`.
    pub(crate) work: Vec<String>,
    /// Further flags of `zen-client load`.
    pub(crate) flags: Vec<String>,
    /// The objectives that each round is checked against, in the syntax of `zen-client load --fail-if`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objectives: Option<String>,
}

impl Workload {
    /// Returns the workload of this name; `processors` is how many the server has.
    pub(crate) fn named(name: &str, is_quick: bool, processors: usize) -> Result<Workload> {
        let workload = |clients: &[usize], busy, rate, work: &[&str], flags: &[&str]| Workload {
            name: name.to_owned(),
            clients: clients.to_vec(),
            busy,
            rate,
            work: work.iter().map(ToString::to_string).collect(),
            flags: flags.iter().map(ToString::to_string).collect(),
            objectives: None,
        };
        let crowds: &[usize] = if is_quick { &[1000] } else { &[1000, 10_000] };
        let heavy = (MACHINE_SHARE * processors as f64 / BURN_SECONDS) as u64;
        Ok(match name {
            SATURATED if is_quick => workload(&[1, 16, 256], 1.0, None, &[], &[]),
            SATURATED => workload(&[1, 16, 256, 1000, 10_000], 1.0, None, &[], &[]),
            MOSTLY_IDLE => workload(crowds, 0.01, Some(2000), &[], &[]),
            "churn" => workload(&[16], 1.0, Some(500), &[], &["--churn"]),
            // 80 % of the 50 answers a second that one thread can give, so that every architecture can hold the rate.
            SLOW_ANSWERS => workload(&[100], 1.0, Some(40), &["--delay", "20ms"], &["--arrivals", "poisson"]),
            "heavy-answers" => workload(&[100], 1.0, Some(heavy), &["--burn", "2ms"], &["--arrivals", "poisson"]),
            "mixed" => workload(&[100], 1.0, Some(2000), &[], &["--mix", "good=80,drip=10,silent=10"]),
            _ => return Err(anyhow::anyhow!("no workload is called {name:?}, only {}", WORKLOADS.join(", "))),
        })
    }

    /// Returns whether a client asks again as soon as it is answered.
    pub(crate) fn is_closed(&self) -> bool {
        self.rate.is_none()
    }

    /// Returns the time in which `questions` are asked at the workload's rate; 0 without a rate.
    pub(crate) fn time_of(&self, questions: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(questions as f64 / rate.max(1) as f64))
    }

    /// Returns how many of these clients ask, at least one.
    pub(crate) fn asking(&self, clients: usize) -> usize {
        ((clients as f64 * self.busy).round() as usize).clamp(1, clients)
    }

    /// Returns the seconds that an answer sleeps or computes.
    pub(crate) fn work_seconds(&self) -> Result<f64> {
        let Some(duration) = self.work.get(1) else { return Ok(0.0) };
        Ok(humantime::parse_duration(duration).context("the work on an answer")?.as_secs_f64())
    }

    /// Returns whether an answer sleeps, as one that waits for a database does.
    pub(crate) fn sleeps(&self) -> bool {
        self.work.first().is_some_and(|flag| flag == "--delay")
    }

    /// Returns the workload as one line of text.
    pub(crate) fn shown(&self) -> String {
        let asks = match self.rate {
            Some(rate) => format!("{} questions a second", super::format::count(rate as f64)),
            None => "the next question after each answer".to_owned(),
        };
        let busy =
            if self.busy < 1.0 { format!("{} % of the clients ask, ", self.busy * 100.0) } else { String::new() };
        let work = if self.work.is_empty() { String::new() } else { format!(", server {}", self.work.join(" ")) };
        let flags = if self.flags.is_empty() { String::new() } else { format!(", load {}", self.flags.join(" ")) };
        format!("{}: {busy}{asks}{work}{flags}", self.name)
    }
}

/// The default workload.
pub(crate) const SATURATED: &str = "saturated";
pub(crate) const MOSTLY_IDLE: &str = "mostly-idle";
pub(crate) const SLOW_ANSWERS: &str = "slow-answers";
pub(crate) const WORKLOADS: [&str; 6] = [SATURATED, MOSTLY_IDLE, "churn", SLOW_ANSWERS, "heavy-answers", "mixed"];
/// The largest number of clients, at a fixed rate, of a server that serves few clients at the same time. Most of them
/// only wait, so more would not change the result.
pub(crate) const MOST_WAITING: usize = 1000;
/// The share of the server's processors that `heavy-answers` needs.
const MACHINE_SHARE: f64 = 0.8;
/// The seconds that an answer of `heavy-answers` computes.
const BURN_SECONDS: f64 = 0.002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_can_be_found_by_its_name() {
        for name in WORKLOADS {
            let workload = Workload::named(name, true, 2).expect("it is in the list");
            assert!(workload.shown().starts_with(&format!("{name}: ")));
        }
        assert!(Workload::named("idle", false, 1).is_err());
        let heavy = Workload::named("heavy-answers", false, 2).expect("it is in the list");
        assert_eq!((heavy.rate, heavy.work_seconds().ok()), (Some(800), Some(0.002)));
        let idle = Workload::named("mostly-idle", false, 1).expect("it is in the list");
        assert_eq!(idle.clients.iter().map(|&clients| idle.asking(clients)).collect::<Vec<_>>(), [10, 100]);
    }
}
