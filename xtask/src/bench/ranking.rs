//! Ranks the servers by processor time per answer, for one number of connections. Table, report and README show it.

use super::format::{self, comparison, connections, number};
use super::results::{CPU, Figure, Level, P50, P99, P999, Results, Row, SPEED, SWITCHES};
use super::statistics::{Comparison, Noise, ranks};

/// Returns a sentence that names the cheapest server, or all servers that do not differ from it.
pub(crate) fn finding(results: &Results) -> String {
    let level = headline(results);
    let ranked: Vec<_> = ranked(results, level).into_iter().filter(|(row, _)| !row.is_duplicate).collect();
    let first: Vec<&Row> =
        ranked.iter().filter(|(_, rank)| matches!(rank, Some((1, _)))).map(|(row, _)| *row).collect();
    let Some(cheapest) = first.first() else { return String::new() };
    let names: Vec<&str> = first.iter().map(|row| row.name.as_str()).collect();
    let cost = cheapest.series(level, CPU).range().map_or(0.0, |range| range.median);
    let speed = cheapest.series(level, SPEED).range().map_or(0.0, |range| range.median);
    let cheapest = match &names[..] {
        [one] => format!("{one} answers cheapest"),
        [before @ .., last] => {
            format!("{} and {last} answer cheapest, without a difference between them", before.join(", "))
        }
        [] => String::new(),
    };
    format!(
        "With {}, {cheapest}: {} µs of processor time per answer, {} answers a second.",
        connections(level),
        number(cost),
        number(speed)
    )
}

/// Returns the number of connections for headlines: the largest one, up to [`HEADLINE`], with which more than half of
/// the servers were measured.
pub(crate) fn headline(results: &Results) -> usize {
    let levels = results.levels();
    let wide = levels.iter().filter(|&&level| {
        let measured = results.servers.iter().filter(|row| row.level(level).is_some()).count();
        measured * 2 > results.servers.len()
    });
    let candidates: Vec<usize> = wide.copied().collect();
    let few = |level: &&usize| **level <= HEADLINE;
    candidates.iter().filter(few).max().or(candidates.first()).or(levels.first()).copied().unwrap_or(1)
}

/// Returns the servers that were measured with this number of connections, the cheapest first, each with its possible
/// ranks.
pub(crate) fn ranked(results: &Results, level: usize) -> Vec<(&Row, Option<(usize, usize)>)> {
    let mut rows: Vec<&Row> = results.servers.iter().filter(|row| row.level(level).is_some()).collect();
    let cost = |row: &Row| row.series(level, CPU).range().map_or(f64::INFINITY, |range| range.median);
    rows.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let series: Vec<_> = rows.iter().filter(|row| !row.is_duplicate).map(|row| row.series(level, CPU)).collect();
    let mut ranks = ranks(&series, results.noise(level, CPU)).into_iter();
    // A duplicate has no rank.
    rows.into_iter().map(|row| (row, if row.is_duplicate { None } else { ranks.next().flatten() })).collect()
}

/// Returns the cells of a server's row: rank, name, processor time per answer, its comparison with the control, answers
/// per second, p50, p99, p99.9, context switches per answer.
pub(crate) fn cells(results: &Results, (row, rank): (&Row, Option<(usize, usize)>), level: usize) -> Vec<String> {
    let limit = if row.level(level).is_some_and(Level::was_limited) { "≥ " } else { "" };
    vec![
        format::rank(rank),
        row.name.clone(),
        cost(row, level),
        against_control(results, row, level, CPU).map_or("–".to_owned(), comparison),
        format!("{limit}{}", median(row, level, SPEED)),
        median(row, level, P50),
        median(row, level, P99),
        median(row, level, P999),
        median(row, level, SWITCHES),
    ]
}

/// Formats the processor time per answer with its range.
pub(crate) fn cost(row: &Row, level: usize) -> String {
    row.series(level, CPU).range().map_or("–".to_owned(), |range| format::range(&range))
}

/// Formats the median of a figure.
pub(crate) fn median(row: &Row, level: usize, figure: Figure) -> String {
    row.series(level, figure).range().map_or("–".to_owned(), |range| number(range.median))
}

/// Compares a server with the control; `None` for the control itself.
pub(crate) fn against_control(results: &Results, row: &Row, level: usize, figure: Figure) -> Option<Comparison> {
    let (control, _) = results.pair()?;
    if row.name == control.name {
        return None;
    }
    row.series(level, figure).against(&control.series(level, figure), results.noise(level, figure))
}

/// Returns a sentence about the noise: how much the control differs from its duplicate. `None` without a control.
pub(crate) fn control(results: &Results, level: usize) -> Option<String> {
    let (one, duplicate) = results.pair()?;
    let (own, other) = (one.series(level, CPU), duplicate.series(level, CPU));
    let noise = Noise::of(&own, &other)?;
    let verdict = match other.against(&own, Noise::UNKNOWN)? {
        Comparison::NoDifference => "no difference".to_owned(),
        Comparison::Times(ratio) => {
            format!("{}: this run cannot show smaller differences", format::percent(ratio - 1.0))
        }
    };
    let farthest = format::percent(noise.share());
    Some(format!(
        "A/A control, {} against itself with {}: {verdict} (in one round {farthest})",
        one.name,
        connections(level)
    ))
}

/// The largest number of connections of a headline. Far more connections are a special case.
const HEADLINE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_duplicate_has_no_rank() {
        let results = fixture::results();
        for (row, rank) in ranked(&results, 16) {
            assert_eq!(rank.is_none(), row.is_duplicate, "{}", row.name);
        }
    }
}
