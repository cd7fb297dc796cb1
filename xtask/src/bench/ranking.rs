//! Which server is cheapest with a number of connections, and whether that is certain: for table, report and README.

use super::format::{self, connections, number};
use super::results::{CPU, Figure, Results, Row, SPEED};
use super::statistics::{Comparison, Noise, places};

/// Says in words which server is cheapest, and whether that is certain.
pub(crate) fn finding(results: &Results) -> String {
    let level = headline(results);
    let ranked: Vec<_> = ranked(results, level).into_iter().filter(|(row, _)| !row.is_duplicate).collect();
    let first: Vec<&Row> =
        ranked.iter().filter(|(_, place)| matches!(place, Some((1, _)))).map(|(row, _)| *row).collect();
    let Some(cheapest) = first.first() else { return String::new() };
    let names: Vec<&str> = first.iter().map(|row| row.name.as_str()).collect();
    let cost = cheapest.series(level, CPU).range().map_or(0.0, |range| range.median);
    let speed = cheapest.series(level, SPEED).range().map_or(0.0, |range| range.median);
    let who = match &names[..] {
        [one] => format!("{one} answers cheapest"),
        [before @ .., last] => {
            format!("{} and {last} answer cheapest, and no difference between them can be told", before.join(", "))
        }
        [] => String::new(),
    };
    format!(
        "With {}, {who}: {} µs of processor time for an answer, {} answers a second.",
        connections(level),
        number(cost),
        number(speed)
    )
}

/// Returns the number of connections that most is said about: many, but no crowd.
pub(crate) fn headline(results: &Results) -> usize {
    let levels = results.levels();
    let wide = levels.iter().filter(|&&level| {
        let measured = results.servers.iter().filter(|row| row.level(level).is_some()).count();
        measured * 2 > results.servers.len()
    });
    let liked: Vec<usize> = wide.copied().collect();
    let few = |level: &&usize| **level <= LIKED;
    liked.iter().filter(few).max().or(liked.first()).or(levels.first()).copied().unwrap_or(1)
}

/// Returns the servers that were measured with this number of connections, the cheapest first, each with the places it
/// may take.
pub(crate) fn ranked(results: &Results, level: usize) -> Vec<(&Row, Option<(usize, usize)>)> {
    let mut rows: Vec<&Row> = results.servers.iter().filter(|row| row.level(level).is_some()).collect();
    let cost = |row: &Row| row.series(level, CPU).range().map_or(f64::INFINITY, |range| range.median);
    rows.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let series: Vec<_> = rows.iter().filter(|row| !row.is_duplicate).map(|row| row.series(level, CPU)).collect();
    let mut places = places(&series, results.noise(level, CPU)).into_iter();
    // A server's second name has no place of its own.
    rows.into_iter().map(|row| (row, if row.is_duplicate { None } else { places.next().flatten() })).collect()
}

/// Compares a server with the one that was entered twice.
pub(crate) fn against_control(results: &Results, row: &Row, level: usize, figure: Figure) -> Option<Comparison> {
    let (control, _) = results.pair()?;
    if row.name == control.name {
        return None;
    }
    row.series(level, figure).against(&control.series(level, figure), results.noise(level, figure))
}

/// Says in words by how much one server differs from itself. `None` without a server that was entered twice.
pub(crate) fn control(results: &Results, level: usize) -> Option<String> {
    let (one, duplicate) = results.pair()?;
    let (own, other) = (one.series(level, CPU), duplicate.series(level, CPU));
    let noise = Noise::of(&own, &other)?;
    let verdict = match other.against(&own, Noise::UNKNOWN)? {
        Comparison::NoDifference => "no difference".to_owned(),
        Comparison::Times(ratio) => {
            format!("{}: less than that this run cannot tell", format::percent(ratio - 1.0))
        }
    };
    let farthest = format::percent(noise.share());
    Some(format!(
        "A/A control, {} against itself with {}: {verdict} (in one round {farthest})",
        one.name,
        connections(level)
    ))
}

/// A crowd begins above it.
const LIKED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_twin_has_no_place() {
        let results = fixture::results();
        for (row, place) in ranked(&results, 16) {
            assert_eq!(place.is_none(), row.is_duplicate, "{}", row.name);
        }
    }
}
