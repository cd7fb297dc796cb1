//! The results of a run, as they are stored in `results.json`. Tables and pictures are computed from them.
//! `xtask/README.md` documents the fields.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::statistics::{Noise, Series};
use super::workload::Workload;

/// The version of the format. It changes when a field changes its meaning or is removed, not when one is added.
pub(crate) const SCHEMA: &str = "zen bench 2";

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// When the run began, in UTC.
    pub(crate) taken: String,
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    pub(crate) servers: Vec<Row>,
    /// Reasons not to trust the run; with any, the exit status is 1.
    pub(crate) problems: Vec<String>,
    /// Circumstances that a reader of the figures should know.
    pub(crate) notes: Vec<String>,
}

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) workload: Workload,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// How long each measurement lasted, without the warm-up.
    pub(crate) seconds: f64,
    pub(crate) pipeline: usize,
    pub(crate) seed: u64,
    pub(crate) max_connections: usize,
    pub(crate) backlog: usize,
    /// The A/A control: the name of the server that was measured twice, and the name of its duplicate.
    pub(crate) control: Option<(String, String)>,
    pub(crate) server_processors: Vec<usize>,
    pub(crate) load_processors: Vec<usize>,
    pub(crate) load_threads: usize,
    /// How long the run took.
    pub(crate) took_seconds: f64,
}

/// A server that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Its package, or `peer`.
    pub(crate) family: String,
    /// Whether it is the duplicate of another server, for the A/A control.
    pub(crate) is_duplicate: bool,
    pub(crate) command: String,
    /// How many clients it serves at the same time; null: any number.
    pub(crate) at_once: Option<usize>,
    /// The settings that it logged at start.
    pub(crate) reported: Option<String>,
    pub(crate) system_calls: Probe<SystemCalls>,
    pub(crate) idle: Probe<Idle>,
    /// By connections, the fewest first.
    pub(crate) levels: Vec<Level>,
}

/// The result of a separate measurement, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Probe<T> {
    Found(T),
    Missing(String),
}

/// System calls per answer, counted under strace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SystemCalls {
    pub(crate) connections: usize,
    pub(crate) answers: u64,
    pub(crate) per_answer: f64,
    pub(crate) calls: BTreeMap<String, f64>,
}

/// Memory of all processes of a server: pages (PSS) and page tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) clients: usize,
    pub(crate) bytes_before: u64,
    pub(crate) bytes_with: u64,
    pub(crate) bytes_per_client: f64,
}

/// All rounds with one number of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) connections: usize,
    pub(crate) rounds: Vec<Measurement>,
    /// `[percentile, microseconds]` of the answers of all rounds together.
    pub(crate) latency: Vec<(f64, f64)>,
}

/// The figures of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) round: usize,
    pub(crate) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) cpu_us_per_answer: f64,
    /// How many processors the server kept busy.
    pub(crate) busy: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p90_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    pub(crate) voluntary_switches_per_answer: f64,
    pub(crate) involuntary_switches_per_answer: f64,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Questions that failed: without an answer, or with a wrong one.
    pub(crate) failed: u64,
    /// Questions that were due and could not be sent.
    pub(crate) missed: u64,
    /// Clients that asked and were never answered.
    pub(crate) unserved: u64,
    /// Whether every question was sent and answered.
    pub(crate) is_held: bool,
    pub(crate) load_busy: f64,
    pub(crate) load_was_bottleneck: bool,
    /// The objectives of the workload, each with whether it was met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) objectives: Vec<Objective>,
}

/// An objective, and whether a round met it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Objective {
    /// The objective and the measured value: `p99<5ms: p99 was 4.2 ms`.
    pub(crate) text: String,
    pub(crate) is_met: bool,
    /// The measured value: seconds, or a share of 1. `None` if there were no answers to measure.
    pub(crate) value: Option<f64>,
}

/// A function that reads one figure of a measurement. `None`: it was not measured.
pub(crate) type Figure = fn(&Measurement) -> Option<f64>;

pub(crate) const CPU: Figure = |it| (it.answers > 0).then_some(it.cpu_us_per_answer);
pub(crate) const SPEED: Figure = |it| Some(it.answers_per_second);
pub(crate) const P50: Figure = |it| it.p50_us;
pub(crate) const P99: Figure = |it| it.p99_us;
pub(crate) const P999: Figure = |it| it.p999_us;
pub(crate) const SWITCHES: Figure = |it| Some(it.voluntary_switches_per_answer + it.involuntary_switches_per_answer);

/// The field `schema` alone, which is read before the others.
#[derive(Deserialize)]
struct Schema {
    schema: String,
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Results> {
        let path = if path.is_dir() { &path.join("results.json") } else { path };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_no_result = || format!("{} is not a result of bench", path.display());
        let Schema { schema } = serde_json::from_str(&text).with_context(is_no_result)?;
        ensure!(schema == SCHEMA, "{} has the schema {schema:?}, not {SCHEMA:?}: measure again", path.display());
        serde_json::from_str(&text).with_context(is_no_result)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns all numbers of connections, the smallest first.
    pub(crate) fn levels(&self) -> Vec<usize> {
        let mut levels: Vec<usize> =
            self.servers.iter().flat_map(|row| &row.levels).map(|level| level.connections).collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.servers.iter().find(|row| row.name == name)
    }

    /// Returns the A/A pair: the server that was measured twice, and its duplicate.
    pub(crate) fn pair(&self) -> Option<(&Row, &Row)> {
        let (name, duplicate) = self.settings.control.as_ref()?;
        Some((self.row(name)?, self.row(duplicate)?))
    }

    /// Returns by how much the A/A pair differs in this figure with this number of connections. If the pair was not
    /// measured with it, the largest difference at any other number counts.
    pub(crate) fn noise(&self, connections: usize, figure: Figure) -> Noise {
        let Some((one, other)) = self.pair() else { return Noise::UNKNOWN };
        let at = |level: usize| Noise::of(&one.series(level, figure), &other.series(level, figure));
        at(connections)
            .or_else(|| self.levels().into_iter().filter_map(at).reduce(Noise::larger))
            .unwrap_or(Noise::UNKNOWN)
    }

    /// Returns a line for each set of settings that servers logged at start, with the names of these servers and their
    /// limits of clients.
    pub(crate) fn equal_settings(&self) -> Vec<String> {
        let mut settings_of: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for row in self.servers.iter().filter(|row| !row.is_duplicate) {
            let reported = row.reported.as_deref().and_then(|line| line.split_once(" clients at once, "));
            if let Some((most, settings)) = reported {
                settings_of.entry(settings).or_default().entry(most).or_default().push(&row.name);
            }
        }
        let of_settings = settings_of.iter().flat_map(|(settings, by_most)| {
            let limits = by_most.iter().map(|(most, names)| format!("{} ({most})", names.join(", ")));
            [format!("{settings}: reported by {}", limits.collect::<Vec<_>>().join("; "))]
        });
        of_settings.collect()
    }
}

impl Row {
    pub(crate) fn level(&self, connections: usize) -> Option<&Level> {
        self.levels.iter().find(|level| level.connections == connections)
    }

    /// Returns all rounds with this number of connections; none if it was not measured.
    pub(crate) fn rounds(&self, connections: usize) -> &[Measurement] {
        self.level(connections).map(|level| level.rounds.as_slice()).unwrap_or_default()
    }

    /// Returns a figure of all rounds with this number of connections; empty if there were none.
    pub(crate) fn series(&self, connections: usize, figure: Figure) -> Series {
        Series::new(self.rounds(connections).iter().filter_map(|it| Some((it.round, figure(it)?))))
    }
}

impl Level {
    /// Returns whether every question was sent and answered, in each round.
    pub(crate) fn is_held(&self) -> bool {
        self.rounds.iter().all(|it| it.is_held)
    }

    /// Returns how many clients were never served, in the worst round.
    pub(crate) fn unserved(&self) -> u64 {
        self.rounds.iter().map(|it| it.unserved).max().unwrap_or(0)
    }

    /// Returns whether the load was the bottleneck in most rounds.
    pub(crate) fn was_limited(&self) -> bool {
        self.rounds.iter().filter(|it| it.load_was_bottleneck).count() * 2 > self.rounds.len()
    }
}

impl<T> Probe<T> {
    pub(crate) fn found(&self) -> Option<&T> {
        match self {
            Probe::Found(found) => Some(found),
            Probe::Missing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_result_survives_writing_and_reading() {
        let results = fixture::results();
        let text = serde_json::to_string_pretty(&results).expect("it is plain data");
        assert_eq!(serde_json::from_str::<Results>(&text).expect("it is a result"), results);
        // Readers rely on these names.
        for field in ["\"schema\": \"zen bench 2\"", "\"cpu_us_per_answer\"", "\"found\"", "\"missing\"", "\"latency\""]
        {
            assert!(text.contains(field), "{field}");
        }
    }

    #[test]
    fn the_pair_measures_the_noise() {
        let mut results = fixture::results();
        assert_eq!(results.noise(16, CPU), Noise::UNKNOWN);
        let (_, duplicate) = results.settings.control.clone().expect("there is a pair");
        let duplicate = results.servers.iter_mut().find(|row| row.name == duplicate).expect("it is there");
        duplicate.levels[2].rounds[0].cpu_us_per_answer *= 1.25;
        assert!((results.noise(256, CPU).share() - 0.25).abs() < 1e-9);
        assert_eq!(results.noise(16, CPU).share(), 0.0);
        // Where the pair was not measured, the worst of the other levels counts.
        assert!((results.noise(4, CPU).share() - 0.25).abs() < 1e-9);
    }
}
