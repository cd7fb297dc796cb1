//! `cargo xtask choose`: which architectures meet an objective under a load of the reader's own, and which is cheapest.
//!
//! 1. Servers that cannot serve this number of clients at once are left out without a measurement.
//! 2. The others are measured under the load, interleaved, with the A/A control of `bench`.
//! 3. Each objective is judged in each round; each sentence of the answer names the lab that explains it.

mod objective;

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::format::{self, bytes, comparison, count, number};
use super::plan::{self, Plan};
use super::ranking::ranked;
use super::results::{CPU, P99, Results, Row};
use super::statistics::Comparison;
use super::target::Target;
use super::workload::Workload;
use crate::servers::SERVERS;
use objective::{Objective, objectives};

/// Says which architectures meet an objective under your load, and which of them is cheapest
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// How many clients are connected at once
    #[arg(long, value_name = "N", value_parser = plan::level)]
    clients: usize,
    /// The share of the clients that ask; the others are connected and silent
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = share)]
    busy: f64,
    /// Questions a second of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// What an answer takes: sleep:20ms (it waits for something) or compute:2ms [default: nothing]
    #[arg(long, value_name = "WORK", value_parser = work)]
    answer: Option<String>,
    /// The objectives, such as 'p99<50ms' or 'p99<5ms,unserved<1%'
    #[arg(long, value_name = "OBJECTIVES", value_parser = objectives)]
    slo: std::sync::Arc<Vec<Objective>>,
    /// Only this server; repeat it for more [default: all that may do]
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// One more server of the protocol: it must listen on 127.0.0.1:{port}, and do {work}
    #[arg(long, value_name = "NAME='COMMAND {port} {work}'")]
    peer: Vec<String>,
    /// Print one JSON object instead of sentences
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let workload = flags.workload();
    let (mut targets, _) = plan::targets(&flags.server, &flags.peer, &workload)?;
    let takes_part = |target: &Target| {
        let is_example = target.entry().is_some_and(|entry| entry.is_example);
        target.at_once.is_none_or(|most| most >= flags.clients) && (!is_example || !flags.server.is_empty())
    };
    targets.retain(|target| !target.is_duplicate && takes_part(target));
    let control = plan::control(&targets);
    targets.extend(control.map(|control| targets[control].duplicate()));
    ensure!(!targets.is_empty(), "none of these serves {} clients at once: see `cargo xtask lab hog`", flags.clients);
    let plan = Plan {
        cells: plan::cells(&targets, &workload.clients, false),
        targets,
        control,
        workload,
        rounds: ROUNDS,
        is_exact: false,
        pipeline: 1,
        seed: 1,
        idle: flags.clients.min(MOST_IDLE),
        budget: BUDGET,
        duration: None,
    };
    super::build()?;
    let results = super::measured(plan, "latest", false)?;
    let advice = Advice::of(flags, &results);
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&advice)?);
    } else {
        print!("{}", advice.told(&super::folder(&results.name)?.join("results.json")));
    }
    Ok(if results.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Flags {
    fn workload(&self) -> Workload {
        Workload {
            name: "choose".to_owned(),
            clients: vec![self.clients],
            busy: self.busy,
            rate: Some(self.rate),
            work: self.answer.iter().flat_map(|work| work.split(' ').map(str::to_owned)).collect(),
            flags: ["--arrivals", "poisson"].map(str::to_owned).into(),
        }
    }
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
    /// Why the measurement must not be trusted.
    problems: Vec<String>,
}

/// A sentence, and the lab that explains it.
#[derive(Debug, Serialize)]
struct Sentence {
    text: String,
    lab: Option<&'static str>,
}

/// An architecture under the load.
#[derive(Debug, Serialize)]
struct Choice {
    name: String,
    verdict: Verdict,
    /// What each objective's metric was, in the median of the rounds.
    observed: Vec<String>,
    cpu_us_per_answer: Option<f64>,
    p99_us: Option<f64>,
    bytes_per_idle_client: Option<f64>,
    unserved: u64,
    next_limit: Sentence,
}

/// How the rounds came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// All objectives in every round.
    Met,
    /// Not in every round: more rounds might decide.
    Uncertain,
    NotMet,
}

impl Advice {
    fn of(flags: &Flags, results: &Results) -> Advice {
        let level = flags.clients;
        let rows: Vec<&Row> =
            ranked(results, level).into_iter().map(|(row, _)| row).filter(|row| !row.is_duplicate).collect();
        let mut architectures: Vec<Choice> = rows.iter().map(|row| Choice::of(flags, results, row)).collect();
        architectures.sort_by_key(|choice| choice.verdict as u8);
        let met: Vec<&Row> = rows.iter().copied().filter(|row| verdict(flags, results, row) == Verdict::Met).collect();
        let mut sentences = vec![match met.is_empty() {
            true => nearest(flags, &architectures),
            false => Sentence { text: cheapest(results, &met, level), lab: Some("best-of-both") },
        }];
        sentences.extend(smallest(&met));
        let waiting = SERVERS.iter().filter(|entry| entry.at_once.is_some_and(|most| most < level));
        let waiting: Vec<String> = waiting.map(|it| format!("{} ({})", it.name, it.at_once.unwrap_or(0))).collect();
        if !waiting.is_empty() && flags.server.is_empty() {
            let text = format!(
                "Not measured, as they serve fewer than {} clients at once: {}",
                count(level as f64),
                waiting.join(", ")
            );
            sentences.push(Sentence { text, lab: Some("hog") });
        }
        let samples: f64 = results.settings.seconds * flags.rate as f64;
        if samples < FEW_SAMPLES {
            let text = format!("Each round has about {} answers, so that a p99 rests on few of them", count(samples));
            sentences.push(Sentence { text, lab: None });
        }
        Advice {
            schema: "zen choose 1",
            load: results.settings.workload.shown(),
            objectives: flags.slo.iter().map(ToString::to_string).collect(),
            is_met: !met.is_empty(),
            sentences,
            architectures,
            problems: results.problems.clone(),
        }
    }

    /// Returns the answer for people.
    fn told(&self, results: &Path) -> String {
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
                choice.bytes_per_idle_client.map_or("–".to_owned(), bytes),
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
            verdict: verdict(flags, results, row),
            observed: flags
                .slo
                .iter()
                .map(|objective| objective.show(observed(flags, results, row, objective)))
                .collect(),
            cpu_us_per_answer: median(CPU),
            p99_us: median(P99),
            bytes_per_idle_client: row.idle.found().map(|idle| idle.bytes_per_client),
            unserved: row.level(flags.clients).map_or(0, |level| level.unserved()),
            next_limit: next_limit(flags, results, row),
        }
    }
}

/// Judges every objective in every round.
fn verdict(flags: &Flags, results: &Results, row: &Row) -> Verdict {
    let asking = results.settings.workload.asking(flags.clients) as f64;
    let rounds = row.level(flags.clients).map(|level| level.rounds.as_slice()).unwrap_or_default();
    let met = rounds.iter().filter(|round| flags.slo.iter().all(|objective| objective.is_met(round, asking))).count();
    match met {
        0 => Verdict::NotMet,
        met if met == rounds.len() => Verdict::Met,
        _ => Verdict::Uncertain,
    }
}

/// Returns the median of the rounds.
fn observed(flags: &Flags, results: &Results, row: &Row, objective: &Objective) -> f64 {
    let asking = results.settings.workload.asking(flags.clients) as f64;
    let rounds = row.level(flags.clients).map(|level| level.rounds.as_slice()).unwrap_or_default();
    let mut values: Vec<f64> = rounds.iter().map(|round| objective.value(round, asking)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::INFINITY)
}

/// Names the cheapest of those that meet the objectives, and says which differences are real.
fn cheapest(results: &Results, met: &[&Row], level: usize) -> String {
    let compared = |row: &Row| {
        let noise = results.noise(level, CPU);
        row.series(level, CPU).against(&met[0].series(level, CPU), noise).unwrap_or(Comparison::NoDifference)
    };
    let (same, dearer): (Vec<&Row>, Vec<&Row>) =
        met.iter().copied().partition(|row| compared(row) == Comparison::NoDifference);
    let names = |rows: &[&Row]| rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut text = match same.len() {
        1 => format!("{} meets the objective and uses the least processor time", names(&same)),
        n => format!(
            "{n} architectures meet the objective and use the least processor time, with no difference between them: {}",
            names(&same)
        ),
    };
    if !dearer.is_empty() {
        let dearer: Vec<String> =
            dearer.iter().map(|row| format!("{} {}", row.name, comparison(compared(row)))).collect();
        let _ = write!(text, "; really dearer: {}", dearer.join(", "));
    }
    text
}

/// Names the one with the least memory of those that meet the objectives.
fn smallest(met: &[&Row]) -> Option<Sentence> {
    let idle = |row: &Row| Some((row.name.clone(), row.idle.found()?.bytes_per_client));
    let mut all: Vec<(String, f64)> = met.iter().filter_map(|row| idle(row)).collect();
    all.sort_unstable_by(|one, other| one.1.total_cmp(&other.1));
    let ((least, low), (most, high)) = (all.first()?, all.last()?);
    let most = if least == most { String::new() } else { format!(", the most: {most}, {}", bytes(*high)) };
    Some(Sentence {
        text: format!("Of these {least} holds the least memory for an idle client, {}{most}", bytes(*low)),
        lab: Some("unbounded"),
    })
}

/// Says that no architecture meets the objectives, which comes nearest, and what would be met.
fn nearest(flags: &Flags, architectures: &[Choice]) -> Sentence {
    let asked = flags.slo.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let p99 = |choice: &&Choice| choice.p99_us.filter(|_| choice.unserved == 0);
    let served = architectures.iter().filter(|choice| p99(choice).is_some());
    let best = served.min_by(|one, other| one.p99_us.unwrap_or(f64::MAX).total_cmp(&other.p99_us.unwrap_or(f64::MAX)));
    let text = match best {
        Some(best) => format!(
            "No architecture meets {asked} in every round. {} comes nearest ({}, p99 {} ms): ask for less, for fewer questions a second, or for quicker answers",
            best.name,
            best.observed.join(", "),
            number(best.p99_us.unwrap_or(f64::NAN) / 1e3),
        ),
        None => format!("No architecture meets {asked}, and none answers every client: ask fewer questions a second"),
    };
    Sentence { text, lab: Some("workers") }
}

/// Says what ends first when there are more questions, and at how many.
fn next_limit(flags: &Flags, results: &Results, row: &Row) -> Sentence {
    let workload = &results.settings.workload;
    let entry = SERVERS.iter().find(|entry| entry.name == row.name);
    let processors = results.settings.server_processors.len().max(1) as f64;
    let work = workload.work_seconds().unwrap_or(0.0);
    let answers_at_once = entry.and_then(|entry| entry.answers_at_once).map(|n| n as f64);
    let asking = workload.asking(flags.clients) as f64;
    let cost = row.series(flags.clients, CPU).range().map(|range| range.median / 1e6);
    let at_once = if workload.sleeps() {
        answers_at_once.unwrap_or(asking)
    } else {
        answers_at_once.unwrap_or(processors).min(processors)
    };
    let by_work = (work > 0.0).then(|| at_once / work);
    let busy = if entry.is_none() { processors } else { answers_at_once.unwrap_or(processors).min(processors) };
    let by_processor = cost.filter(|cost| *cost > 0.0).map(|cost| busy / cost);
    match (by_work, by_processor) {
        (Some(by_work), by_processor) if by_processor.is_none_or(|by_processor| by_work <= by_processor) => {
            let lab = if answers_at_once == Some(1.0) { "stall" } else { "workers" };
            let what = if workload.sleeps() { "asleep" } else { "worked out" };
            Sentence {
                text: format!("{} answers are {what} at once: about {} a second", count(at_once), count(by_work)),
                lab: Some(lab),
            }
        }
        (_, Some(by_processor)) => Sentence {
            text: format!(
                "processor time: about {} answers a second at this cost, on {} processor",
                number(by_processor),
                count(busy)
            ),
            lab: Some("best-of-both"),
        },
        _ => Sentence { text: "it answered nothing".to_owned(), lab: Some("stall") },
    }
}

fn share(text: &str) -> Result<f64> {
    let percent: f64 = text.trim_end_matches('%').parse().context("not a percentage, such as 2%")?;
    ensure!(percent > 0.0 && percent <= 100.0, "more than 0 % and at most 100 %");
    Ok(percent / 100.0)
}

/// `sleep:20ms` → `--delay 20ms`.
fn work(text: &str) -> Result<String> {
    let (kind, duration) = text.split_once(':').context("not sleep:DURATION or compute:DURATION")?;
    let flag = match kind {
        "sleep" => "--delay",
        "compute" => "--burn",
        _ => anyhow::bail!("'{kind}' is neither sleep nor compute"),
    };
    humantime::parse_duration(duration).with_context(|| format!("'{duration}' is not a duration, such as 20ms"))?;
    Ok(format!("{flag} {duration}"))
}

const ROUNDS: usize = 3;
/// What the documentation promises is three minutes.
const BUDGET: Duration = Duration::from_secs(150);
const MOST_IDLE: usize = 1000;
/// A hundredth of them is ten.
const FEW_SAMPLES: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::fixture;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        choose: Flags,
    }

    fn advice(slo: &str) -> Advice {
        let words = ["choose", "--clients", "1000", "--rate", "2000", "--slo", slo];
        let flags = CommandLine::try_parse_from(words).expect("it is a command line").choose;
        Advice::of(&flags, &fixture::results())
    }

    #[test]
    fn an_objective_that_is_met_has_a_cheapest_architecture() {
        let advice = advice("p99<1h");
        assert!(advice.is_met && advice.architectures.iter().all(|choice| choice.verdict == Verdict::Met));
        assert!(advice.sentences[0].text.contains("the least processor time"), "{advice:?}");
        assert!(
            advice.sentences.iter().any(|it| it.text.starts_with("Not measured") && it.text.contains("single (1)"))
        );
        assert!(advice.told(Path::new("here")).contains("The next limit of each"));
    }

    #[test]
    fn an_objective_that_none_meets_is_said_so() {
        let advice = advice("p99<1ns");
        assert!(!advice.is_met);
        assert!(advice.sentences[0].text.starts_with("No architecture meets p99<1ns in every round."), "{advice:?}");
    }

    #[test]
    fn every_sentence_names_a_lab_that_there_is() {
        for advice in [advice("p99<1h"), advice("p99<1ns")] {
            let limits = advice.architectures.iter().map(|choice| &choice.next_limit);
            for lab in advice.sentences.iter().chain(limits).filter_map(|sentence| sentence.lab) {
                assert!(crate::lab::is_experiment(lab), "{lab}");
            }
        }
    }

    #[test]
    fn work_and_shares_are_read() {
        assert_eq!(work("sleep:20ms").expect("it is work"), "--delay 20ms");
        assert_eq!(work("compute:2ms").expect("it is work"), "--burn 2ms");
        assert!(["sleep", "sleep:x", "rest:1s"].into_iter().all(|text| work(text).is_err()));
        assert_eq!(share("2%").ok(), Some(0.02));
        assert!(share("0%").is_err() && share("101").is_err());
    }
}
