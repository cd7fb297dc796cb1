//! Compares two results. A figure differs if its ranges do not overlap, and its medians differ by more than the noise
//! of both A/A pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use comfy_table::Table;

use super::format::{self, bytes, comparison, connections, number};
use super::results::{CPU, Figure, P50, P99, Results, Row, SPEED, Settings};
use super::statistics::Comparison;

/// Returns the comparison of two results as text.
pub(crate) fn of(before: &Results, after: &Results) -> String {
    let mut text = circumstances(before, after);
    let mut differences = 0;
    for level in before.levels() {
        let rows = before.servers.iter().filter(|row| !row.is_duplicate);
        let pairs = rows.filter_map(|row| Some((row, after.row(&row.name)?)));
        let mut table = format::table(&["server", "figure", "before", "after", "after against before"]);
        for (one, other) in pairs {
            for (name, figure) in FIGURES {
                let (own, new) = (one.series(level, figure), other.series(level, figure));
                let noise = before.noise(level, figure).larger(after.noise(level, figure));
                let (Some(was), Some(is)) = (own.range(), new.range()) else { continue };
                let Some(compared) = new.against_other_run(&own, noise) else { continue };
                differences += usize::from(compared != Comparison::NoDifference);
                table.add_row([
                    one.name.clone(),
                    name.to_owned(),
                    format::range(&was),
                    format::range(&is),
                    comparison(compared),
                ]);
            }
        }
        if !table.is_empty() {
            let _ = write!(text, "\n{}\n{table}\n", connections(level));
        }
    }
    let counted = counted(before, after);
    if !counted.is_empty() {
        let _ = write!(text, "\nSystem calls and memory\n{counted}\n");
    }
    let verdict = match differences {
        0 => "no difference".to_owned(),
        1 => "1 figure differs by more than a server differs from itself".to_owned(),
        n => format!("{n} figures differ by more than a server differs from itself"),
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// Lists what has changed between the two runs other than the figures: the A/A pair of one run cannot show it.
fn circumstances(before: &Results, after: &Results) -> String {
    let mut text = String::new();
    for (name, results) in [("before", before), ("after", after)] {
        let commit = results.machine.commit_shown();
        let _ = writeln!(text, "{name}: {}, {}, commit {commit}", results.name, results.taken);
    }
    let (one, other) = (&before.machine, &after.machine);
    let settings = |results: &Results| {
        let Settings { rounds, seconds, pipeline, .. } = &results.settings;
        format!("{rounds} rounds of {:.0} ms, {pipeline} questions in flight", seconds * 1e3)
    };
    let mut changed = vec![
        ("workload", before.settings.workload.shown(), after.settings.workload.shown()),
        ("machine", one.shown(), other.shown()),
        ("toolchain", one.toolchain.clone(), other.toolchain.clone()),
        ("profile", one.profile.clone(), other.profile.clone()),
        ("measured", settings(before), settings(after)),
    ];
    for (old, new) in [(&one.sysctls, &other.sysctls), (&one.versions, &other.versions)] {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let value = |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or_else(|| "–".to_owned());
        changed.extend(names.into_iter().map(|name| (name.as_str(), value(old, name), value(new, name))));
    }
    for (what, was, is) in changed.into_iter().filter(|(_, was, is)| was != is) {
        let _ = writeln!(text, "{what} changed: {was} → {is}");
    }
    text
}

/// Returns the table of system calls and memory. They are measured once and hardly vary, so they have no ranges.
fn counted(before: &Results, after: &Results) -> Table {
    let mut table = format::table(&["server", "figure", "before", "after", "after against before"]);
    for (one, other) in
        before.servers.iter().filter(|row| !row.is_duplicate).filter_map(|row| Some((row, after.row(&row.name)?)))
    {
        let calls = |row: &Row| row.system_calls.found().map(|found| found.per_answer);
        let idle = |row: &Row| row.idle.found().map(|found| found.bytes_per_client);
        let mut add = |name: &str, was: Option<f64>, is: Option<f64>, write: fn(f64) -> String| {
            if let (Some(was), Some(is)) = (was, is) {
                let ratio = is / was;
                let is_same = ratio.is_finite() && (ratio - 1.0).abs() < COUNTED_ALIKE;
                let compared = if is_same { Comparison::NoDifference } else { Comparison::Times(ratio) };
                table.add_row([one.name.clone(), name.to_owned(), write(was), write(is), comparison(compared)]);
            }
        };
        add("system calls/answer", calls(one), calls(other), number);
        add("bytes/idle client", idle(one), idle(other), bytes);
    }
    table
}

const FIGURES: [(&str, Figure); 4] =
    [("processor µs/answer", CPU), ("answers/s", SPEED), ("p50 µs", P50), ("p99 µs", P99)];

/// The share up to which system calls and memory differ by chance, for example because of timers.
const COUNTED_ALIKE: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_result_does_not_differ_from_itself() {
        let results = fixture::results();
        let text = of(&results, &results);
        assert!(text.ends_with("\nno difference\n"), "{text}");
        assert!(!text.contains(" changed") && !text.contains('×') && !text.contains('+'), "{text}");
    }

    #[test]
    fn another_workload_is_named() {
        let before = fixture::results();
        let mut after = fixture::results();
        after.settings.workload.rate = Some(40);
        let text = of(&before, &after);
        assert!(
            text.contains("workload changed: saturated: ") && text.contains(" → saturated: 40 questions"),
            "{text}"
        );
    }

    #[test]
    fn a_server_that_became_dearer_is_listed() {
        let before = fixture::results();
        let mut after = fixture::results();
        after.machine.sysctls.insert("net.core.somaxconn".to_owned(), "128".to_owned());
        let smol = after.servers.iter_mut().find(|row| row.name == "smol").expect("it is there");
        smol.levels[1].rounds.iter_mut().for_each(|round| round.cpu_us_per_answer *= 1.5);
        let text = of(&before, &after);
        assert!(text.contains("net.core.somaxconn changed: 4096 → 128"), "{text}");
        assert!(
            text.contains("+50 %") && text.ends_with("1 figure differs by more than a server differs from itself\n"),
            "{text}"
        );
    }

    #[test]
    fn a_difference_within_the_noise_does_not_count() {
        let before = fixture::results();
        let mut after = fixture::results();
        for (name, times) in [("poll again", 1.5), ("smol", 1.45)] {
            let row = after.servers.iter_mut().find(|row| row.name == name).expect("it is there");
            row.levels[1].rounds.iter_mut().for_each(|round| round.cpu_us_per_answer *= times);
        }
        assert!(of(&before, &after).ends_with("\nno difference\n"));
    }
}
