//! The report: one self-contained page with up to four pictures, their figures as tables, and the settings of the run.

mod families;
mod panels;
mod pictures;
mod rows;
mod scale;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::format::{self, bytes, connections, number};
use super::ranking::{cells, control, finding, headline, median, ranked};
use super::results::{CPU, Figure, Level, P50, P99, P999, Probe, Results, Row, SPEED};
use crate::svg::Svg;
use families::Families;

/// Writes `report.html` into the folder.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("report.html");
    fs::write(&path, page(results)?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Returns the whole page.
pub(crate) fn page(results: &Results) -> Result<String> {
    let mut environment = Environment::new();
    environment.add_template("page.html", include_str!("report/page.html"))?;
    let page = Page {
        style: STYLE,
        finding: finding(results),
        pictures: pictures_of(results),
        levels: results.levels().into_iter().map(|level| level_of(results, level)).collect(),
        results,
        machine: results.machine.shown(),
        commit: results.machine.commit_shown(),
        milliseconds: format!("{:.0}", results.settings.seconds * 1e3),
        control: results.levels().into_iter().filter_map(|level| control(results, level)).collect(),
        reported: results.equal_settings(),
    };
    Ok(environment.get_template("page.html")?.render(Serde(page))?)
}

/// The data of the page's template.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    finding: String,
    pictures: Vec<Picture>,
    levels: Vec<LevelTable>,
    results: &'a Results,
    machine: String,
    commit: String,
    milliseconds: String,
    control: Vec<String>,
    reported: Vec<String>,
}

/// Returns the first picture as a file of its own, and its text alternative.
pub(crate) fn picture(results: &Results) -> (String, String) {
    let families = Families::of_results(results);
    let text = finding(results);
    (pictures::cost(results, &families, true).standalone(STYLE, "picture", "alone", TITLE, &text), text)
}

/// A picture, or several small ones that belong together.
#[derive(Serialize)]
struct Picture {
    title: String,
    lead: String,
    /// One for a wide page and one for a narrow page; small ones serve for both.
    panels: Vec<Panel>,
    headings: Vec<String>,
    figures: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Panel {
    title: String,
    family: usize,
    svg: String,
}

fn pictures_of(results: &Results) -> Vec<Picture> {
    let families = Families::of_results(results);
    let level = headline(results);
    let with = connections(level);
    let both = |id: &str, title: &str, text: &str, draw: &dyn Fn(bool) -> Option<Svg>| {
        let one =
            |is_wide: bool, class: &str| Some(draw(is_wide)?.inline(&format!("{id}-{class}"), class, title, text));
        [one(true, "wide"), one(false, "narrow")].into_iter().flatten().collect::<String>()
    };
    let small = |id: &str, title: &str, drawn: Vec<Svg>, text: &dyn Fn(usize) -> String| {
        let panel = |(number, svg): (usize, Svg)| {
            let name = families.title(number);
            let svg = svg.inline(&format!("{id}-{number}"), "small", &format!("{title}: {name}"), &text(number));
            Panel { title: name.to_owned(), family: number, svg }
        };
        families.numbers().zip(drawn).map(panel).collect::<Vec<_>>()
    };
    let single = |svg: String| vec![Panel { title: String::new(), family: 0, svg }];
    let family_in_words = |figure: Figure, unit: &'static str| {
        let families = &families;
        move |number: usize| in_words(results, families, number, figure, unit)
    };
    let control = results.pair().map_or("", |(control, _)| control.name.as_str());
    let mut pictures = vec![
        Picture {
            title: format!("{TITLE}, {with}"),
            lead: format!(
                "A dot is the median of the rounds, and the bar behind it their range. The shaded band shows how far \
                {control} was from itself when it was measured twice; a hollow dot does not differ from {control}. \
                Further left is cheaper. The axis is logarithmic."
            ),
            panels: single(both("cost", TITLE, &finding(results), &|is_wide| {
                Some(pictures::cost(results, &families, is_wide))
            })),
            headings: ["server", "µs/answer", "lowest", "highest", "answers/s"].map(str::to_owned).into(),
            figures: cost_figures(results, level),
        },
        Picture {
            title: "The processor time of one answer by connections".to_owned(),
            lead:
                "An event loop that finds several clients ready shares one wait among them, so that more connections \
                make its answers cheaper, up to a point. A thread that sleeps for one client pays a wake-up each time."
                    .to_owned(),
            panels: small(
                "connections",
                "Processor time by connections",
                pictures::cost_by_connections(results, &families),
                &family_in_words(CPU, "µs"),
            ),
            headings: std::iter::once("server".to_owned())
                .chain(results.levels().into_iter().map(connections))
                .collect(),
            figures: by_level(results, CPU),
        },
        Picture {
            title: format!("How long clients wait, {with}"),
            lead: "Half of the answers took no longer than the left end of a line. Its right end is the highest \
                percentile with at least ten slower answers, up to 99.99 %. A line that rises early has a long tail. \
                In a closed loop, clients ask a slow server less often. A server that serves few clients at the same \
                time was measured with only that number."
                .to_owned(),
            panels: small(
                "latency",
                "Latency",
                pictures::latency(results, &families),
                &family_in_words(P99, "µs for 99 % of the answers"),
            ),
            headings: ["server", "p50 µs", "p99 µs", "p99.9 µs"].map(str::to_owned).into(),
            figures: latency_figures(results, level),
        },
    ];
    if pictures::memory(results, &families, true).is_some() {
        let title = "The memory of an idle client";
        let figures = memory_figures(results);
        let text = figures.iter().map(|row| format!("{}: {}", row[0], row[1])).collect::<Vec<_>>().join("; ");
        pictures.push(Picture {
            title: title.to_owned(),
            lead: "Each client has asked once and is silent. The memory is that of all processes: their pages (PSS) \
                and page tables, with all clients less without any. Memory of the kernel for sockets and threads is \
                not counted."
                .to_owned(),
            panels: single(both("memory", title, &text, &|wide| pictures::memory(results, &families, wide))),
            headings: ["server", "each client", "clients", "before", "with all"].map(str::to_owned).into(),
            figures,
        });
    }
    pictures
}

/// Returns the text alternative of a small picture.
fn in_words(results: &Results, families: &Families, family: usize, figure: Figure, unit: &str) -> String {
    let rows = results.servers.iter().filter(|row| families.of(row) == family && !row.is_duplicate);
    let of_row = |row: &Row| {
        let at = |level: &Level| {
            format!("{} {unit} with {}", median(row, level.connections, figure), connections(level.connections))
        };
        format!("{}: {}", row.name, row.levels.iter().map(at).collect::<Vec<_>>().join(", "))
    };
    rows.map(of_row).collect::<Vec<_>>().join("; ")
}

fn cost_figures(results: &Results, level: usize) -> Vec<Vec<String>> {
    let rows = ranked(results, level).into_iter().filter_map(|(row, _)| {
        let range = row.series(level, CPU).range()?;
        let figures = [range.median, range.low, range.high].map(number);
        Some(std::iter::once(row.name.clone()).chain(figures).chain([median(row, level, SPEED)]).collect())
    });
    rows.collect()
}

fn by_level(results: &Results, figure: Figure) -> Vec<Vec<String>> {
    let rows = results.servers.iter().map(|row| {
        let figures = results.levels().into_iter().map(|level| median(row, level, figure));
        std::iter::once(row.name.clone()).chain(figures).collect()
    });
    rows.collect()
}

fn latency_figures(results: &Results, level: usize) -> Vec<Vec<String>> {
    let rows = results.servers.iter().filter_map(|row| {
        let level = row.level(level).or(row.levels.last())?.connections;
        Some(
            std::iter::once(row.name.clone())
                .chain([P50, P99, P999].map(|figure| median(row, level, figure)))
                .collect(),
        )
    });
    rows.collect()
}

fn memory_figures(results: &Results) -> Vec<Vec<String>> {
    let rows = results.servers.iter().filter(|row| !row.is_duplicate).map(|row| match &row.idle {
        Probe::Found(idle) => vec![
            row.name.clone(),
            bytes(idle.bytes_per_client),
            format::count(idle.clients as f64),
            bytes(idle.bytes_before as f64),
            bytes(idle.bytes_with as f64),
        ],
        Probe::Missing(why) => vec![row.name.clone(), format!("– {why}"), String::new(), String::new(), String::new()],
    });
    rows.collect()
}

/// The table of one number of connections.
#[derive(Serialize)]
struct LevelTable {
    title: String,
    rows: Vec<Vec<String>>,
}

fn level_of(results: &Results, level: usize) -> LevelTable {
    let rows = ranked(results, level).into_iter().map(|row| cells(results, row, level)).collect();
    LevelTable { title: connections(level), rows }
}

const TITLE: &str = "The processor time of one answer";

const STYLE: &str = include_str!("report/style.css");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn a_page_is_self_contained() {
        let page = page(&fixture::results()).expect("it is a result");
        assert!(
            !page.contains("http:")
                && !page.contains("https:")
                && !page.contains("@import")
                && !page.contains("<script")
        );
        let pictures = page.matches("<svg").count();
        assert_eq!(pictures, page.matches("</desc>").count());
        assert!(pictures >= 4 && !page.contains("NaN"), "{pictures} pictures");
        // The name of a peer is escaped.
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !page.contains("a <b>"));
    }

    #[test]
    fn a_result_with_one_server_or_none_has_a_page() {
        let mut results = fixture::results();
        results.servers.truncate(1);
        results.settings.control = None;
        assert!(page(&results).is_ok_and(|page| page.contains("single")));
        results.servers.clear();
        assert!(page(&results).is_ok());
    }

    #[test]
    fn a_picture_can_stand_alone() {
        let (picture, text) = picture(&fixture::results());
        assert!(picture.starts_with("<svg ") && picture.contains("xmlns=") && picture.trim_end().ends_with("</svg>"));
        assert!(text.starts_with("With 16 connections, "), "{text}");
    }
}
