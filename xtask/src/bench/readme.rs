//! The figures in the project's README: one table and one picture, written by this task and never by hand.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::format::{self, bytes, comparison, connections, number};
use super::ranking::{against_control, control, headline, ranked};
use super::report;
use super::results::{CPU, P99, Results, Row, SPEED};
use super::table::unserved;
use crate::workspace;

/// Writes the table and the picture.
pub(crate) fn write(results: &Results) -> Result<()> {
    ensure!(results.problems.is_empty(), "the README keeps its figures: {}", results.problems.join("; "));
    let root = workspace::root()?;
    let (picture, text) = report::picture(results);
    fs::write(root.join(PICTURE), picture).context("cannot write the picture")?;
    let section = section(results, &text);
    for name in READMES {
        let path = root.join(name);
        let readme = fs::read_to_string(&path).context(name)?;
        fs::write(&path, filled(&readme, &section).context(name)?).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Returns the text with what stands between the markers replaced.
fn filled(readme: &str, section: &str) -> Result<String> {
    let markers = || format!("it needs a line {BEGIN} and below it a line {END}");
    let (before, rest) = readme.split_once(BEGIN).with_context(markers)?;
    let (_, after) = rest.split_once(END).with_context(markers)?;
    Ok(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

fn section(results: &Results, finding: &str) -> String {
    let (settings, machine) = (&results.settings, &results.machine);
    let level = headline(results);
    let mut text = format!("![{finding}]({PICTURE})\n\n");
    let control_name = results.pair().map_or("–", |(control, _)| control.name.as_str());
    let _ = writeln!(
        text,
        "| {}: place | server | µs of processor per answer | against {control_name} | answers/s | p99 µs | system calls | idle client |",
        connections(level)
    );
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    let ranked = ranked(results, level);
    let fewer = results.servers.iter().filter(|row| row.level(level).is_none()).map(|row| (row, None));
    for (row, place) in ranked.into_iter().chain(fewer).filter(|(row, _)| !row.is_duplicate) {
        let Some(at) = row.level(level).or(row.levels.last()).map(|level| level.connections) else { continue };
        let name = if at == level { row.name.clone() } else { format!("{}, {}", row.name, connections(at)) };
        let median = |figure| row.series(at, figure).range().map_or("–".to_owned(), |range| number(range.median));
        let cells = [
            format::place(place),
            name,
            row.series(at, CPU).range().map_or("–".to_owned(), |range| format::range(&range)),
            if at == level { compared(results, row, at) } else { "–".to_owned() },
            median(SPEED),
            median(P99),
            row.system_calls.found().map_or("–".to_owned(), |found| number(found.per_answer)),
            row.idle.found().map_or("–".to_owned(), |found| bytes(found.bytes_per_client)),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(
        text,
        "\n{}; commit {}, {}; {} rounds of {:.0} ms, {}. Median (range); servers share places where ranges overlap.",
        machine.shown(),
        machine.commit_shown(),
        machine.toolchain,
        settings.rounds,
        settings.seconds * 1e3,
        &results.taken[..results.taken.len().min(10)],
    );
    if let Some(line) = control(results, level) {
        let _ = writeln!(text, "{line}.");
    }
    for line in unserved(results).lines() {
        let _ = writeln!(text, "\n{line}");
    }
    text
}

fn compared(results: &Results, row: &Row, level: usize) -> String {
    against_control(results, row, level, CPU).map_or("–".to_owned(), comparison)
}

/// The figures are the same in every language.
const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// The top level holds nothing that is not in every repository.
const PICTURE: &str = ".github/bench.svg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = filled(&readme, "new\n").expect("it has markers");
        assert_eq!(once, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(filled(&once, "new\n").expect("it still has them"), once);
        assert!(filled("none", "new").is_err());
    }
}
