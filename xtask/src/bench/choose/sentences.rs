//! The sentences of the answer that are about one figure each.

use std::fmt::Write;

use serde::Serialize;

use super::flags::Flags;
use crate::bench::format::{bytes, comparison, count, number};
use crate::bench::plan;
use crate::bench::results::{CPU, Idle, Results, Row};
use crate::bench::statistics::Comparison;
use crate::bench::target::MOST_PROCESSES;
use crate::servers::{self, SERVERS};

/// A sentence, and the lab that explains it.
#[derive(Debug, Serialize)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) lab: Option<&'static str>,
}

/// Returns a sentence that names the cheapest architectures that meet the objectives, and those that cost measurably
/// more.
pub(super) fn cheapest(results: &Results, met: &[&Row], level: usize) -> String {
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
            "{n} architectures meet the objective and use the least processor time, without a measurable difference \
            between them: {}",
            names(&same)
        ),
    };
    if !dearer.is_empty() {
        let dearer: Vec<String> =
            dearer.iter().map(|row| format!("{} {}", row.name, comparison(compared(row)))).collect();
        let _ = write!(text, "; measurably dearer: {}", dearer.join(", "));
    }
    text
}

/// Returns a sentence that names the architecture with the least memory for an idle client, of those that meet the
/// objectives.
pub(super) fn smallest(met: &[&Row]) -> Option<Sentence> {
    let idle = |row: &Row| Some((row.name.clone(), row.idle.found()?.clone()));
    let mut all: Vec<(String, Idle)> = met.iter().filter_map(|row| idle(row)).collect();
    all.sort_unstable_by(|(_, one), (_, other)| one.bytes_per_client.total_cmp(&other.bytes_per_client));
    let ((least, low), (most, high)) = (all.first()?, all.last()?);
    let most = if least == most { String::new() } else { format!("; {most} needs the most, {}", idle_client(high)) };
    Some(Sentence {
        text: format!("Of these, {least} needs the least memory for an idle client, {}{most}", idle_client(low)),
        lab: Some("unbounded"),
    })
}

/// Formats the memory of an idle client.
pub(super) fn idle_client(idle: &Idle) -> String {
    let shown = FEWEST_PAGES * PAGE / idle.clients.max(1) as f64;
    if idle.bytes_per_client < shown { format!("less than {}", bytes(shown)) } else { bytes(idle.bytes_per_client) }
}

/// Says which servers are left out, and why.
pub(super) fn not_measured(level: usize) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let waiting = SERVERS.iter().filter(|entry| entry.at_once.is_some_and(|most| most < level));
    let waiting: Vec<String> = waiting.map(|it| format!("{} ({})", it.name, it.at_once.unwrap_or(0))).collect();
    if !waiting.is_empty() {
        let text = format!(
            "Not measured, because they serve fewer than {} clients at the same time: {}",
            count(level as f64),
            waiting.join(", ")
        );
        sentences.push(Sentence { text, lab: Some("hog") });
    }
    let forking = SERVERS.iter().filter(|entry| entry.forks && !entry.is_example && level > MOST_PROCESSES);
    let forking: Vec<&str> = forking.map(|entry| entry.name).collect();
    if !forking.is_empty() {
        let text = format!(
            "Not measured, because more than {} processes would measure the memory of this machine: {}",
            count(MOST_PROCESSES as f64),
            forking.join(", ")
        );
        sentences.push(Sentence { text, lab: Some("stacks") });
    }
    sentences
}

/// Returns a sentence that says what limits the rate, and at how many answers a second.
pub(super) fn next_limit(flags: &Flags, results: &Results, row: &Row) -> Sentence {
    let workload = &results.settings.workload;
    let way = plan::WAYS.iter().find_map(|(way, _)| row.name.strip_suffix(way)?.strip_suffix('-'));
    let entry = servers::named(way.unwrap_or(&row.name)).ok(); // `None`: the command of the user
    let processors = results.settings.server_processors.len().max(1) as f64;
    let work = workload.work_seconds().unwrap_or(0.0);
    let answers_at_once = entry.and_then(|entry| entry.answers_at_once).map(|n| n as f64);
    let asking = workload.asking(flags.clients) as f64;
    let cost = row.series(flags.clients, CPU).range().map(|range| range.median / 1e6);
    let at_once = if workload.sleeps() {
        // With --await or --offload, an answer does not block a thread of the executor.
        answers_at_once.filter(|_| way.is_none()).unwrap_or(asking)
    } else {
        answers_at_once.unwrap_or(processors).min(processors)
    };
    let by_work = (work > 0.0).then(|| at_once / work);
    let busy = if entry.is_none() { processors } else { answers_at_once.unwrap_or(processors).min(processors) };
    let by_processor = cost.filter(|cost| *cost > 0.0).map(|cost| busy / cost);
    match (by_work, by_processor) {
        // An overloaded server also works for clients that have given up. Then the cost of an answer says
        // nothing about its limit.
        (Some(by_work), by_processor)
            if by_work < flags.rate as f64 || by_processor.is_none_or(|by_processor| by_work <= by_processor) =>
        {
            let lab = if answers_at_once == Some(1.0) { "stall" } else { "workers" };
            let answers = if at_once == 1.0 { "answer is" } else { "answers are" };
            let text = format!("{} {answers} worked out at a time: about {} a second", count(at_once), count(by_work));
            Sentence { text, lab: Some(lab) }
        }
        (_, Some(by_processor)) => Sentence {
            text: format!(
                "processor time: about {} answers a second at this cost, on {} processor{}",
                number(by_processor),
                count(busy),
                if busy == 1.0 { "" } else { "s" }
            ),
            lab: Some("best-of-both"),
        },
        _ => Sentence { text: "no question was answered".to_owned(), lab: Some("stall") },
    }
}

/// The number of pages by which the memory of a server varies for other reasons than its clients.
const FEWEST_PAGES: f64 = 4.0;
const PAGE: f64 = 4096.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_slow_answer_limits_an_executor_unless_it_is_awaited() {
        let flags = Flags::of_test(&["--answer", "sleep:20ms"]);
        let mut results = fixture::results();
        results.settings.workload = flags.workload();
        let smol = results.servers.iter().find(|row| row.name == "smol").expect("it is there").clone();
        let waiting = Row { name: "smol-await".to_owned(), ..smol.clone() };
        let limit = |row: &Row| next_limit(&flags, &results, row).text;
        assert_eq!(limit(&smol), "1 answer is worked out at a time: about 50 a second");
        assert_eq!(limit(&waiting), "1,000 answers are worked out at a time: about 50,000 a second");
    }

    #[test]
    fn the_limit_of_an_overloaded_server_is_its_work() {
        let flags = Flags::of_test(&["--answer", "compute:2ms"]);
        let mut results = fixture::results();
        results.settings.workload = flags.workload();
        for round in results.servers.iter_mut().flat_map(|row| &mut row.levels).flat_map(|level| &mut level.rounds) {
            round.cpu_us_per_answer = 10_000.0;
        }
        let limit = next_limit(&flags, &results, &results.servers[0]).text;
        assert_eq!(limit, "1 answer is worked out at a time: about 500 a second");
    }

    #[test]
    fn memory_of_less_than_a_few_pages_is_given_as_a_bound() {
        let idle = |clients, bytes_per_client| {
            idle_client(&Idle { clients, bytes_before: 0, bytes_with: 0, bytes_per_client })
        };
        assert_eq!(idle(200, 0.0), "less than 82 B");
        assert_eq!(idle(200, -20.0), "less than 82 B");
        assert_eq!(idle(200, 211.0), "211 B");
        assert_eq!(idle(1000, 20.0), "20 B");
    }
}
