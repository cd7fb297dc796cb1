//! The result on a terminal: a table for each number of connections, the cheapest server first, and one for figures
//! that do not depend on it.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;

use super::format::{self, bytes, connections, count, number};
use super::ranking::{cells, control, ranked};
use super::results::{Level, Measurement, Probe, Results};

/// Returns all tables of a result.
pub(crate) fn of(results: &Results) -> String {
    let mut text = head(results);
    for level in results.levels() {
        let _ = write!(text, "\n{}\n{}\n", connections(level), of_level(results, level));
    }
    let _ = write!(text, "\nWith any number of connections\n{}\n", of_servers(results));
    text.push_str(&foot(results));
    text
}

fn head(results: &Results) -> String {
    let (settings, machine) = (&results.settings, &results.machine);
    let apart = if settings.server_processors == settings.load_processors { "share" } else { "have each" };
    let processors = settings.server_processors.len();
    format!(
        "{}\n{}\ncommit {}, {}; {} rounds of {:.0} ms{}; server and load {apart} {processors} processor{}\n",
        settings.workload.shown(),
        machine.shown(),
        machine.commit_shown(),
        machine.toolchain,
        settings.rounds,
        settings.seconds * 1e3,
        if settings.pipeline > 1 { format!(", {} questions in flight", settings.pipeline) } else { String::new() },
        if processors == 1 { "" } else { "s" },
    )
}

fn of_level(results: &Results, level: usize) -> Table {
    let control = results.pair().map_or("–", |(control, _)| control.name.as_str());
    let against = format!("against {control}");
    let headings = [
        "",
        "server",
        "processor µs/answer",
        &against,
        "answers/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "switches",
        "threads",
        "files",
        "not served",
        "rate held",
    ];
    let mut table = format::table(&headings);
    for (row, rank) in ranked(results, level) {
        let Some(of_level) = row.level(level) else { continue };
        let more = [
            most(of_level, |it| it.threads),
            most(of_level, |it| it.descriptors),
            count(of_level.unserved() as f64),
            if of_level.is_held() { "yes" } else { "no" }.to_owned(),
        ];
        table.add_row(cells(results, (row, rank), level).into_iter().chain(more));
    }
    table
}

/// Returns the largest count of all rounds. In a round that was sampled too late, some threads have ended.
fn most(level: &Level, count_of: fn(&Measurement) -> usize) -> String {
    level.rounds.iter().map(count_of).max().map_or("–".to_owned(), |most| count(most as f64))
}

fn of_servers(results: &Results) -> Table {
    let mut table = format::table(&["server", "system calls/answer", "which", "idle client", "clients at once"]);
    for row in results.servers.iter().filter(|row| !row.is_duplicate) {
        let system_calls = match &row.system_calls {
            Probe::Found(found) => (number(found.per_answer), which(&found.calls)),
            Probe::Missing(why) => ("–".to_owned(), why.clone()),
        };
        let idle = match &row.idle {
            Probe::Found(found) => bytes(found.bytes_per_client),
            Probe::Missing(why) => format!("– {why}"),
        };
        let at_once = row.at_once.map_or("limit".to_owned(), |n| n.to_string());
        table.add_row([row.name.clone(), system_calls.0, system_calls.1, idle, at_once]);
    }
    table
}

/// Lists the most frequent calls: `recvfrom 1.00, sendto 1.00, …`.
fn which(calls: &BTreeMap<String, f64>) -> String {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by(|one, other| other.1.total_cmp(one.1));
    let shown: Vec<String> = calls.iter().take(MOST_CALLS).map(|(name, share)| format!("{name} {share:.2}")).collect();
    let rest = if calls.len() > MOST_CALLS { ", …" } else { "" };
    shown.join(", ") + rest
}

/// Returns the lines below the tables: the A/A pair, equal settings, notes, and problems.
pub(crate) fn foot(results: &Results) -> String {
    let mut text = String::new();
    let control = results.levels().into_iter().filter_map(|level| control(results, level));
    for line in control.chain(results.equal_settings()) {
        let _ = writeln!(text, "{line}");
    }
    text.push_str(&unserved(results));
    for note in &results.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for problem in &results.problems {
        let _ = writeln!(text, "FAILED {problem}");
    }
    text
}

/// Returns a sentence for each number of connections at which some clients were never served. This is not a failure.
pub(super) fn unserved(results: &Results) -> String {
    let mut text = String::new();
    for level in results.levels() {
        let asking = results.settings.workload.asking(level);
        let left =
            results.servers.iter().filter_map(|row| Some((row, row.level(level)?.unserved()))).filter(|(_, n)| *n > 0);
        let left: Vec<String> = left.map(|(row, n)| format!("{} {}", row.name, count(n as f64))).collect();
        if !left.is_empty() {
            let _ = writeln!(
                text,
                "Never served in the worst round, of {} clients that asked ({} connected): {}.",
                count(asking as f64),
                count(level as f64),
                left.join(", ")
            );
        }
    }
    text
}

/// The number of system calls that are listed. Further ones are rare.
const MOST_CALLS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_table_shows_bottlenecks_failures_and_the_control() {
        let mut results = fixture::results();
        results.problems.push("poll, 16 connections: 3 reset".to_owned());
        let text = of(&results);
        assert!(text.contains("poll again") && text.contains("no difference"), "{text}");
        assert!(text.contains("≥ ") && text.contains("FAILED poll, 16 connections: 3 reset"), "{text}");
        assert!(text.contains("A/A control, poll against itself with 16 connections: no difference"), "{text}");
    }
}
