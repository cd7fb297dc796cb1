//! The result on a terminal: a table for each number of connections, the cheapest server first, and one of what does not depend on it.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::figures::{self, bytes, comparison, connections, count, number};
use super::results::{CPU, Figure, Level, Measurement, P50, P99, P999, Probe, Results, Row, SPEED, SWITCHES};
use super::statistics::{Comparison, Noise, places};

/// All of it.
pub(crate) fn of(results: &Results) -> String {
    let mut text = head(results);
    for level in results.levels() {
        let _ = write!(text, "\n{}\n{}\n", connections(level), of_level(results, level));
    }
    let _ = write!(text, "\nWhatever the connections\n{}\n", of_servers(results));
    text.push_str(&foot(results));
    text
}

fn head(results: &Results) -> String {
    let (settings, machine) = (&results.settings, &results.machine);
    let apart = if settings.server_processors == settings.load_processors { "sharing" } else { "apart, each on" };
    let processors = settings.server_processors.len();
    format!(
        "{}\ncommit {}, {}; {} rounds of {:.0} ms{}; server and load {apart} {processors} processor{}\n",
        machine.shown(),
        machine.commit_shown(),
        machine.toolchain,
        settings.rounds,
        settings.seconds * 1e3,
        if settings.pipeline > 1 { format!(", {} questions at once", settings.pipeline) } else { String::new() },
        if processors == 1 { "" } else { "s" },
    )
}

/// The servers that were measured with so many connections, the cheapest first, with their places.
pub(crate) fn ranked(results: &Results, level: usize) -> Vec<(&Row, Option<(usize, usize)>)> {
    let mut rows: Vec<&Row> = results.servers.iter().filter(|row| row.level(level).is_some()).collect();
    let cost = |row: &Row| row.series(level, CPU).range().map_or(f64::INFINITY, |range| range.median);
    rows.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let series: Vec<_> = rows.iter().filter(|row| !row.is_twin).map(|row| row.series(level, CPU)).collect();
    let mut places = places(&series, results.noise(level, CPU)).into_iter();
    // A server's second name has no place of its own.
    rows.into_iter().map(|row| (row, if row.is_twin { None } else { places.next().flatten() })).collect()
}

/// What a server's cost is against the one that was entered twice.
pub(crate) fn against_control(results: &Results, row: &Row, level: usize, figure: Figure) -> Option<Comparison> {
    let (control, _) = results.pair()?;
    if row.name == control.name {
        return None;
    }
    row.series(level, figure).against(&control.series(level, figure), results.noise(level, figure))
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
    ];
    let mut table = plain(&headings);
    for (row, place) in ranked(results, level) {
        let median = |figure: Figure| row.series(level, figure).range().map(|range| range.median);
        let figure = |figure: Figure| median(figure).map_or("–".to_owned(), number);
        let Some(of_level) = row.level(level) else { continue };
        table.add_row([
            figures::place(place),
            row.name.clone(),
            row.series(level, CPU).range().map_or("–".to_owned(), |range| figures::range(&range)),
            against_control(results, row, level, CPU).map_or("–".to_owned(), comparison),
            format!(
                "{}{}",
                if was_limited(of_level) { "≥ " } else { "" },
                median(SPEED).map_or("–".to_owned(), number)
            ),
            figure(P50),
            figure(P99),
            figure(P999),
            figure(SWITCHES),
            most(of_level, |it| it.threads),
            most(of_level, |it| it.descriptors),
        ]);
    }
    table
}

/// A round that was looked at too late counts less than there were.
fn most(level: &Level, held: fn(&Measurement) -> usize) -> String {
    level.rounds.iter().map(held).max().map_or("–".to_owned(), |most| count(most as f64))
}

/// Whether the load was the bottleneck in most rounds.
pub(crate) fn was_limited(level: &Level) -> bool {
    level.rounds.iter().filter(|it| it.load_was_bottleneck).count() * 2 > level.rounds.len()
}

fn of_servers(results: &Results) -> Table {
    let mut table = plain(&["server", "system calls/answer", "which", "idle client", "clients at once"]);
    for row in results.servers.iter().filter(|row| !row.is_twin) {
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

/// `recvfrom 1.00, sendto 1.00, …`: the most frequent first.
fn which(calls: &BTreeMap<String, f64>) -> String {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by(|one, other| other.1.total_cmp(one.1));
    let shown: Vec<String> = calls.iter().take(MOST_CALLS).map(|(name, share)| format!("{name} {share:.2}")).collect();
    let rest = if calls.len() > MOST_CALLS { ", …" } else { "" };
    shown.join(", ") + rest
}

/// What the A/A pair says of the run, what was equal, what to know, and what went wrong.
pub(crate) fn foot(results: &Results) -> String {
    let mut text = String::new();
    for line in control(results).iter().chain(&equal_settings(results)) {
        let _ = writeln!(text, "{line}");
    }
    for note in &results.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for problem in &results.problems {
        let _ = writeln!(text, "FAILED {problem}");
    }
    text
}

/// What one server differs by from itself.
pub(crate) fn control(results: &Results) -> Vec<String> {
    let Some((one, twin)) = results.pair() else { return Vec::new() };
    let judged = results.levels().into_iter().filter_map(|level| {
        let (own, other) = (one.series(level, CPU), twin.series(level, CPU));
        let noise = Noise::of(&own, &other)?;
        let verdict = match other.against(&own, Noise::UNKNOWN)? {
            Comparison::NoDifference => "no difference".to_owned(),
            Comparison::Times(ratio) => {
                format!("{}: less than that this run cannot tell", figures::percent(ratio - 1.0))
            }
        };
        let farthest = figures::percent(noise.share());
        Some(format!(
            "A/A control, {} against itself with {}: {verdict} (in one round {farthest})",
            one.name,
            connections(level)
        ))
    });
    judged.collect()
}

/// What the servers said of their settings: once for all that said the same. Only how many they serve may differ.
pub(crate) fn equal_settings(results: &Results) -> Vec<String> {
    let mut said: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for row in results.servers.iter().filter(|row| !row.is_twin) {
        let reported = row.reported.as_deref().and_then(|line| line.split_once(" clients at once, "));
        if let Some((most, settings)) = reported {
            said.entry(settings).or_default().entry(most).or_default().push(&row.name);
        }
    }
    let of_settings = said.iter().flat_map(|(settings, by_most)| {
        let places = by_most.iter().map(|(most, names)| format!("{} ({most})", names.join(", ")));
        [format!("{settings}: so report {}", places.collect::<Vec<_>>().join("; "))]
    });
    of_settings.collect()
}

/// A table of this house: names and words to the left, figures to the right.
pub(crate) fn plain(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings.iter().copied());
    for (at, heading) in headings.iter().enumerate() {
        let is_text = ["server", "figure", "which"].contains(heading);
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(if is_text { CellAlignment::Left } else { CellAlignment::Right });
        }
    }
    table
}

/// The others hardly count.
const MOST_CALLS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::canned;

    #[test]
    fn a_table_says_what_cannot_be_told() {
        let mut results = canned::results();
        results.problems.push("poll, 16 connections: 3 reset".to_owned());
        let text = of(&results);
        assert!(text.contains("poll again") && text.contains("no difference"), "{text}");
        assert!(text.contains("≥ ") && text.contains("FAILED poll, 16 connections: 3 reset"), "{text}");
        assert!(text.contains("A/A control, poll against itself with 16 connections: no difference"), "{text}");
    }

    #[test]
    fn a_twin_has_no_place() {
        let results = canned::results();
        for (row, place) in ranked(&results, 16) {
            assert_eq!(place.is_none(), row.is_twin, "{}", row.name);
        }
    }
}
