//! `cargo xtask choose`: which architectures meet an objective under the reader's own load, and which is the cheapest.
//!
//! 1. Servers that cannot serve this number of clients at the same time are left out without a measurement.
//! 2. The others are measured under the load, interleaved, with the A/A control of `bench`.
//! 3. Each round is checked against each objective. The answer names labs that explain its sentences.

mod flags;
mod sentences;

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::format::{self, count, number};
use super::plan::{self, Plan};
use super::ranking::{control, ranked};
use super::results::{CPU, Measurement, Objective, P99, Results, Row};
use super::target::Target;
pub(crate) use flags::Flags;
use flags::check_objectives;
use sentences::{Sentence, cheapest, idle_client, next_limit, not_measured, smallest};

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let workload = flags.workload();
    let mut targets = plan::targets(&flags.server, &flags.peer, &workload)?;
    let takes_part = |target: &Target| {
        let is_example = target.entry().is_some_and(|entry| entry.is_example);
        target.at_once.is_none_or(|most| most >= flags.clients)
            && target.most_clients() >= flags.clients
            && (!is_example || !flags.server.is_empty())
    };
    targets.retain(takes_part);
    let control = plan::enter_twice(&mut targets);
    ensure!(
        !targets.is_empty(),
        "none of the servers serves {} clients at once: see `cargo xtask lab hog`",
        flags.clients
    );
    let plan = Plan {
        cells: plan::cells(&targets, &workload.clients, false),
        targets,
        control,
        workload,
        rounds: ROUNDS,
        is_exact: false,
        pipeline: 1,
        seed: 1,
        idle: flags.clients.clamp(FEWEST_IDLE, MOST_IDLE),
        fewest_answers: plan::FEWEST_ANSWERS,
        budget: BUDGET,
        duration: None,
    };
    super::build()?;
    check_objectives(&flags.slo)?;
    let results = super::measure_and_store(plan, "latest", false)?;
    let advice = Advice::of(flags, &results);
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&advice)?);
    } else {
        print!("{}", advice.text(&super::folder(&results.name)?.join("results.json")));
    }
    Ok(if results.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The answer, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Advice {
    schema: &'static str,
    load: String,
    objectives: Vec<String>,
    /// Whether any architecture meets all objectives.
    is_met: bool,
    sentences: Vec<Sentence>,
    architectures: Vec<Choice>,
    /// Reasons not to trust the measurement.
    problems: Vec<String>,
}

/// An architecture, and what was measured under the load.
#[derive(Debug, Serialize)]
struct Choice {
    name: String,
    verdict: Verdict,
    /// The median of the rounds of each objective's metric.
    observed: Vec<String>,
    cpu_us_per_answer: Option<f64>,
    p99_us: Option<f64>,
    bytes_per_idle_client: Option<f64>,
    /// `bytes_per_idle_client` as text. It is an upper bound if all clients together need less than [`FEWEST_PAGES`].
    #[serde(skip)]
    idle_client: String,
    unserved: u64,
    next_limit: Sentence,
}

/// Whether an architecture met the objectives. The best verdict is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// All objectives were met in every round.
    Met,
    /// They were met in some rounds: more rounds might decide.
    Uncertain,
    NotMet,
}

impl Advice {
    fn of(flags: &Flags, results: &Results) -> Advice {
        let level = flags.clients;
        let rows: Vec<&Row> =
            ranked(results, level).into_iter().map(|(row, _)| row).filter(|row| !row.is_duplicate).collect();
        let mut architectures: Vec<Choice> = rows.iter().map(|row| Choice::of(flags, results, row)).collect();
        architectures.sort_by_key(|choice| choice.verdict);
        let met: Vec<&Row> = rows.iter().copied().filter(|row| verdict(flags, row) == Verdict::Met).collect();
        let mut sentences = vec![match met.is_empty() {
            true => nearest(flags, results, &architectures),
            false => Sentence { text: cheapest(results, &met, level), lab: Some("best-of-both") },
        }];
        sentences.extend(control(results, level).map(|text| Sentence { text, lab: None }));
        sentences.extend(smallest(&met));
        if flags.server.is_empty() {
            sentences.extend(not_measured(level));
        }
        if results.settings.server_processors.len() == 1 {
            let text = "Each server had one processor, the load the others. What several loops, threads or processes \
                        gain on more processors was not measured";
            sentences.push(Sentence { text: text.to_owned(), lab: Some("best-of-both") });
        }
        let samples: f64 = results.settings.seconds * flags.rate as f64;
        if samples < FEW_SAMPLES {
            let text = format!("Each round has about {} answers, so its p99 depends on a few of them", count(samples));
            sentences.push(Sentence { text, lab: None });
        }
        sentences.extend(results.notes.iter().map(|note| Sentence { text: format!("Note: {note}"), lab: None }));
        Advice {
            schema: "zen choose 1",
            load: results.settings.workload.shown(),
            objectives: flags.slo.split(',').map(|objective| objective.trim().to_owned()).collect(),
            is_met: !met.is_empty(),
            sentences,
            architectures,
            problems: results.problems.clone(),
        }
    }

    /// Returns the answer as sentences and tables.
    fn text(&self, results: &Path) -> String {
        let mut text = format!("{}\n\n", self.load);
        for Sentence { text: sentence, lab } in &self.sentences {
            let lab = lab.map_or(String::new(), |lab| format!(" (cargo xtask lab {lab})"));
            let _ = writeln!(text, "{sentence}{lab}.");
        }
        let mut table = format::table(&[
            "server",
            &self.objectives.join(","),
            "figure",
            "µs/answer",
            "p99 ms",
            "idle client",
            "not served",
        ]);
        for choice in &self.architectures {
            let verdict = match choice.verdict {
                Verdict::Met => "met",
                Verdict::Uncertain => "not in every round",
                Verdict::NotMet => "not met",
            };
            let number = |value: Option<f64>| value.map_or("–".to_owned(), number);
            table.add_row([
                choice.name.clone(),
                verdict.to_owned(),
                choice.observed.join(", "),
                number(choice.cpu_us_per_answer),
                number(choice.p99_us.map(|us| us / 1e3)),
                choice.idle_client.clone(),
                count(choice.unserved as f64),
            ]);
        }
        let _ = writeln!(text, "\n{table}\n\nThe next limit of each");
        for Choice { name, next_limit: Sentence { text: limit, lab }, .. } in &self.architectures {
            let lab = lab.map_or(String::new(), |lab| format!(" (cargo xtask lab {lab})"));
            let _ = writeln!(text, "- {name}: {limit}{lab}");
        }
        self.problems.iter().for_each(|problem| _ = writeln!(text, "FAILED {problem}"));
        let _ = writeln!(text, "\n{}", results.display());
        text
    }
}

impl Choice {
    fn of(flags: &Flags, results: &Results, row: &Row) -> Choice {
        let median = |figure| row.series(flags.clients, figure).range().map(|range| range.median);
        Choice {
            name: row.name.clone(),
            verdict: verdict(flags, row),
            observed: observed(row.rounds(flags.clients)),
            cpu_us_per_answer: median(CPU),
            p99_us: median(P99),
            bytes_per_idle_client: row.idle.found().map(|idle| idle.bytes_per_client),
            idle_client: row.idle.found().map_or("–".to_owned(), idle_client),
            unserved: row.level(flags.clients).map_or(0, |level| level.unserved()),
            next_limit: next_limit(flags, results, row),
        }
    }
}

/// Returns in how many rounds all objectives were met: in all, in some, or in none.
fn verdict(flags: &Flags, row: &Row) -> Verdict {
    let rounds = row.rounds(flags.clients);
    let is_met = |round: &&Measurement| round.objectives.iter().all(|objective| objective.is_met);
    match rounds.iter().filter(is_met).count() {
        0 => Verdict::NotMet,
        met if met == rounds.len() => Verdict::Met,
        _ => Verdict::Uncertain,
    }
}

/// Returns the median of the rounds for the metric of each objective, as text.
fn observed(rounds: &[Measurement]) -> Vec<String> {
    let objectives = rounds.first().map_or(0, |round| round.objectives.len());
    let median = |at: usize| {
        let mut judged: Vec<&Objective> = rounds.iter().filter_map(|round| round.objectives.get(at)).collect();
        judged.sort_unstable_by(|one, other| value(one).total_cmp(&value(other)));
        let text = judged.get(judged.len() / 2)?.text.as_str();
        Some(text.split_once(": ").map_or(text, |(_, observed)| observed).replace(" was ", " "))
    };
    (0..objectives).filter_map(median).collect()
}

fn value(objective: &Objective) -> f64 {
    objective.value.unwrap_or(f64::INFINITY)
}

/// Returns a sentence that says that no architecture meets the objectives, and which one comes nearest.
fn nearest(flags: &Flags, results: &Results, architectures: &[Choice]) -> Sentence {
    let served = architectures.iter().filter(|choice| choice.unserved == 0);
    let served = served.filter_map(|choice| Some((choice, choice.p99_us?)));
    // An architecture that meets the objectives in some rounds is nearer than one that never meets them.
    let best = served.min_by(|(one, p99), (other, slower)| one.verdict.cmp(&other.verdict).then(p99.total_cmp(slower)));
    let workload = &results.settings.workload;
    let computing = workload.work_seconds().ok().filter(|seconds| *seconds > 0.0 && !workload.sleeps());
    let processors = results.settings.server_processors.len().max(1) as f64;
    let advice = match computing.map(|seconds| processors / seconds) {
        Some(most) if most < flags.rate as f64 => {
            format!("the server's processors compute at most {} answers a second: ask for fewer", count(most))
        }
        _ => "ask for less, for fewer questions a second, or for quicker answers".to_owned(),
    };
    let text = match best {
        Some((best, p99)) => {
            let mut observed = best.observed.clone();
            if !observed.iter().any(|text| text.starts_with("p99 ")) {
                observed.push(format!("p99 {} ms", number(p99 / 1e3)));
            }
            let observed = observed.join(", ");
            format!(
                "No architecture meets {} in every round. {} comes nearest ({observed}): {advice}",
                flags.slo, best.name
            )
        }
        None => format!("No architecture meets {}, and none answers every client: {advice}", flags.slo),
    };
    Sentence { text, lab: Some("workers") }
}

const ROUNDS: usize = 3;
/// The documentation promises three minutes.
const BUDGET: Duration = Duration::from_secs(150);
/// Memory is counted in pages, so a few idle clients would not show what one needs.
const FEWEST_IDLE: usize = 200;
const MOST_IDLE: usize = 1000;
/// With fewer answers, fewer than ten are above the 99th percentile.
const FEW_SAMPLES: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    /// Returns the advice for the fixture. `p99` returns the seconds of a server's 99th percentile in a round.
    fn advice(p99: impl Fn(&str, usize) -> f64) -> Advice {
        let flags = Flags::of_test(&[]);
        let mut results = fixture::results();
        for row in &mut results.servers {
            for round in row.levels.iter_mut().flat_map(|level| &mut level.rounds) {
                let p99 = p99(&row.name, round.round);
                let text = format!("p99<5ms: p99 was {} ms", p99 * 1e3);
                round.objectives = vec![Objective { text, is_met: p99 < 0.005, value: Some(p99) }];
                round.p99_us = Some(p99 * 1e6);
            }
        }
        Advice::of(&flags, &results)
    }

    #[test]
    fn an_objective_that_is_met_has_a_cheapest_architecture() {
        let advice = advice(|_, _| 0.001);
        assert!(advice.is_met && advice.architectures.iter().all(|choice| choice.verdict == Verdict::Met));
        assert!(advice.architectures.iter().all(|choice| choice.observed == ["p99 1 ms"]));
        assert!(advice.sentences[0].text.contains("the least processor time"), "{advice:?}");
        assert!(
            advice.sentences.iter().any(|it| it.text.starts_with("Not measured") && it.text.contains("single (1)"))
        );
        assert!(advice.text(Path::new("here")).contains("The next limit of each"));
    }

    #[test]
    fn an_unmet_objective_is_reported() {
        let advice = advice(|_, _| 0.006);
        assert!(!advice.is_met);
        assert!(advice.sentences[0].text.starts_with("No architecture meets p99<5ms in every round."), "{advice:?}");
    }

    #[test]
    fn one_that_meets_the_objective_in_some_rounds_is_nearest() {
        let advice = advice(|name, round| match name {
            "smol" if round == 0 => 0.004,
            "smol" => 0.009,
            _ => 0.008,
        });
        let text = &advice.sentences[0].text;
        assert!(text.contains(" smol comes nearest (p99 9 ms): ask for less, "), "{text}");
    }

    #[test]
    fn more_than_the_processors_compute_is_reported() {
        let flags = Flags::of_test(&["--answer", "compute:2ms"]);
        let mut results = fixture::results();
        results.settings.workload = flags.workload();
        let best = nearest(&flags, &results, &[]).text;
        assert!(
            best.ends_with(
                "none answers every client: the server's processors compute at most 500 answers a second: ask for fewer"
            ),
            "{best}"
        );
    }

    #[test]
    fn every_lab_in_a_sentence_exists() {
        for advice in [advice(|_, _| 0.001), advice(|_, _| 0.006)] {
            let limits = advice.architectures.iter().map(|choice| &choice.next_limit);
            for lab in advice.sentences.iter().chain(limits).filter_map(|sentence| sentence.lab) {
                assert!(crate::lab::is_experiment(lab), "{lab}");
            }
        }
    }
}
