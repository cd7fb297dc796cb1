//! The four pictures: cost of an answer, the same by connections, waits of clients, memory of an idle client.

use super::families::Families;
use super::panels::{Axes, Line, Point, panel};
use super::rows::{self, Group, Layout, NARROW, WIDE};
use super::scale::{Scale, nines, short};
use crate::bench::format::{bytes, comparison, connections, number, range};
use crate::bench::ranking::{against_control, headline, ranked};
use crate::bench::results::{CPU, Results, Row};
use crate::bench::statistics::Comparison;
use crate::svg::Svg;

/// Draws the processor time of an answer: a dot and a range for each server, and a band for the noise of the A/A pair.
pub(crate) fn cost(results: &Results, families: &Families, is_wide: bool) -> Svg {
    let level = headline(results);
    let row = |row: &Row, level: usize, is_compared: bool| {
        let figures = row.series(level, CPU).range()?;
        let compared = if is_compared { against_control(results, row, level, CPU) } else { None };
        let name = if is_compared { row.name.clone() } else { format!("{} · {level}", row.name) };
        Some(rows::Row {
            what: format!("{}, {}: {} µs", row.name, connections(level), range(&figures)),
            family: families.of(row),
            median: figures.median,
            low: figures.low,
            high: figures.high,
            figure: number(figures.median),
            remark: match compared {
                Some(Comparison::NoDifference) if !is_wide => "≈".to_owned(),
                Some(compared) => comparison(compared),
                None => String::new(),
            },
            is_hollow: compared == Some(Comparison::NoDifference),
            name,
        })
    };
    let here = ranked(results, level).into_iter().filter_map(|(it, _)| row(it, level, true)).collect();
    let fewer = results.servers.iter().filter(|it| it.level(level).is_none() && !it.is_duplicate);
    let mut fewer: Vec<rows::Row> = fewer.filter_map(|it| row(it, it.levels.last()?.connections, false)).collect();
    fewer.sort_by(|one, other| one.median.total_cmp(&other.median));
    let mut groups = vec![Group { heading: String::new(), rows: here }];
    if !fewer.is_empty() {
        let heading = if is_wide {
            "These serve fewer clients at once; each with as many as it serves"
        } else {
            "with as many as they serve"
        };
        groups.push(Group { heading: heading.to_owned(), rows: fewer });
    }
    let all = groups.iter().flat_map(|group| &group.rows).flat_map(|row| [row.low, row.high]);
    let scale = Scale::around(all, 0.0, 1.0);
    let place = |figure: f64, from: f64, to: f64| from + (to - from) * scale.at(figure);
    let ticks: Vec<_> = scale.ticks().into_iter().map(|value| (value, super::scale::tick(value))).collect();
    let band = results.pair().and_then(|(control, _)| {
        let median = control.series(level, CPU).range()?.median;
        let factor = results.noise(level, CPU).factor();
        Some((median / factor, median * factor, "A/A"))
    });
    let (width, names, remarks) = if is_wide { WIDE } else { NARROW };
    let title = "µs of processor time for one answer";
    rows::rows(&groups, &Layout { width, names, remarks, title, has_stems: false }, &ticks, &place, band)
}

/// Draws the processor time of an answer by the number of connections.
pub(crate) fn cost_by_connections(results: &Results, families: &Families) -> Vec<Svg> {
    let lines = lines(results, families, |row| {
        let points = row.levels.iter().filter_map(|level| {
            let figures = row.series(level.connections, CPU).range()?;
            Some(Point {
                x: (level.connections as f64).log10(),
                y: figures.median,
                low: figures.low,
                high: figures.high,
                what: format!("{}, {}: {} µs", row.name, connections(level.connections), range(&figures)),
            })
        });
        points.collect()
    });
    // Levels of a few servers have no tick, because it would overlap its neighbours.
    let mut levels = results.levels();
    let measured = |level: usize| results.servers.iter().filter(|row| row.level(level).is_some()).count();
    let most = levels.iter().map(|&level| measured(level)).max().unwrap_or(0);
    levels.retain(|&level| measured(level) * 2 > most || results.levels().len() < 3);
    let log = |level: &usize| (*level as f64).log10();
    let axes = Axes {
        x: levels.iter().map(|&level| (log(&level), short(level))).collect(),
        x_range: (levels.first().map_or(0.0, log), levels.last().map_or(1.0, log)),
        x_title: "connections",
        y_title: "µs of processor time per answer",
        has_dots: true,
    };
    families.numbers().map(|family| panel(&lines, family, &axes)).collect()
}

/// Draws the response times by percentile, from 50 % to 99.99 %, or to the highest percentile that was measured.
pub(crate) fn latency(results: &Results, families: &Families) -> Vec<Svg> {
    let wanted = headline(results);
    let lines = lines(results, families, |row| {
        let Some(level) = row.level(wanted).or(row.levels.last()) else { return Vec::new() };
        let points = level.latency.iter().filter(|(percentile, _)| (FIRST..=LAST).contains(percentile));
        points
            .map(|&(percentile, us)| Point { x: nines(percentile), y: us, low: us, high: us, what: String::new() })
            .collect()
    });
    let reached = lines.iter().flat_map(|line| &line.points).map(|point| point.x).fold(1.0, f64::max);
    let named = [(50.0, "50 %"), (90.0, "90 %"), (99.0, "99 %"), (99.9, "99.9 %"), (99.99, "99.99 %")];
    let axes = Axes {
        x: named
            .iter()
            .map(|(at, name)| (nines(*at), (*name).to_owned()))
            .filter(|(x, _)| *x <= reached + 0.01)
            .collect(),
        x_range: (nines(FIRST), reached),
        x_title: "of the answers took at most",
        y_title: "µs",
        has_dots: false,
    };
    families.numbers().map(|family| panel(&lines, family, &axes)).collect()
}

/// Draws the server's memory for an idle client.
pub(crate) fn memory(results: &Results, families: &Families, is_wide: bool) -> Option<Svg> {
    let mut rows: Vec<rows::Row> = Vec::new();
    for row in results.servers.iter().filter(|row| !row.is_duplicate) {
        let Some(idle) = row.idle.found() else { continue };
        let figure = idle.bytes_per_client;
        rows.push(rows::Row {
            name: row.name.clone(),
            family: families.of(row),
            median: figure,
            low: figure,
            high: figure,
            figure: bytes(figure),
            remark: String::new(),
            is_hollow: false,
            what: format!("{}: {} for each of {} idle clients", row.name, bytes(figure), idle.clients),
        });
    }
    rows.sort_by(|one, other| one.median.total_cmp(&other.median));
    let largest = rows.last()?.median;
    let scale = Scale::between(64.0, largest.max(1024.0) * 1.3, 0.0, 1.0);
    let place = |figure: f64, from: f64, to: f64| from + (to - from) * scale.at(figure);
    let ticks: Vec<_> = scale.ticks_of_bytes().into_iter().map(|value| (value, bytes_tick(value))).collect();
    let (width, names, remarks) = if is_wide { WIDE } else { NARROW };
    let layout = Layout { width, names, remarks, title: "memory of the server for one idle client", has_stems: true };
    Some(rows::rows(&[Group { heading: String::new(), rows }], &layout, &ticks, &place, None))
}

/// Returns one line for each server but the duplicate.
fn lines(results: &Results, families: &Families, points: impl Fn(&Row) -> Vec<Point>) -> Vec<Line> {
    let rows = results.servers.iter().filter(|row| !row.is_duplicate);
    let line = |row: &Row| Line {
        name: row.name.clone(),
        family: families.of(row),
        member: families.member(row),
        points: points(row),
    };
    rows.map(line).collect()
}

fn bytes_tick(value: f64) -> String {
    if value < 1024.0 { format!("{value:.0} B") } else { format!("{:.0} KiB", value / 1024.0) }
}

const FIRST: f64 = 50.0;
const LAST: f64 = 99.99;
