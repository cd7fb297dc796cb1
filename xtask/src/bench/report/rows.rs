//! A picture of rows: for each server its name, its figure on an axis, and a remark.

use crate::svg::{Anchor, Svg};

/// A row of the picture.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) family: usize,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The figure and the remark as text: `4.15`, `no difference`.
    pub(crate) figure: String,
    pub(crate) remark: String,
    /// Whether the dot is hollow, because the figure does not differ from the control's.
    pub(crate) is_hollow: bool,
    pub(crate) what: String,
}

/// Rows under a heading; a heading may be empty.
pub(crate) struct Group {
    pub(crate) heading: String,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Layout {
    pub(crate) width: f64,
    pub(crate) names: f64,
    pub(crate) remarks: f64,
    pub(crate) title: &'static str,
    /// Whether a line is drawn from the beginning of the axis to each dot.
    pub(crate) has_stems: bool,
}

pub(crate) const WIDE: (f64, f64, f64) = (1000.0, 128.0, 190.0);
pub(crate) const NARROW: (f64, f64, f64) = (350.0, 116.0, 112.0);

/// Draws the rows below each other.
///
/// `place` maps a figure to a position between two ends; `band` is the range of the A/A pair.
pub(crate) fn rows(
    groups: &[Group],
    layout: &Layout,
    ticks: &[(f64, String)],
    place: &dyn Fn(f64, f64, f64) -> f64,
    band: Option<(f64, f64, &str)>,
) -> Svg {
    let (left, right) = (layout.names, layout.width - layout.remarks);
    let x = |figure: f64| place(figure, left + 8.0, right - 8.0);
    let count: usize = groups.iter().map(|group| group.rows.len()).sum();
    let headings = groups.iter().filter(|group| !group.heading.is_empty()).count();
    let bottom = TOP + count as f64 * ROW + headings as f64 * HEADING;
    let mut svg = Svg::new(layout.width, bottom + 44.0);
    let mut next_free = f64::NEG_INFINITY;
    for (value, name) in ticks {
        svg.line("grid", (x(*value), TOP - 4.0), (x(*value), bottom));
        let half = name.chars().count() as f64 * 3.6;
        if x(*value) - half > next_free {
            svg.text("tick", (x(*value), bottom + 16.0), Anchor::Middle, name);
            next_free = x(*value) + half + 6.0;
        }
    }
    svg.text("axis-title", ((left + right) / 2.0, bottom + 34.0), Anchor::Middle, layout.title);
    let first = groups.first().map_or(0, |group| group.rows.len()) as f64 * ROW;
    if let Some((low, high, name)) = band {
        let offset = if groups.first().is_some_and(|group| !group.heading.is_empty()) { HEADING } else { 0.0 };
        let width = (x(high) - x(low)).max(2.0);
        svg.rectangle("control", (x(high) - width, TOP + offset - 4.0), (width, first + 4.0));
        svg.text("control-name", (x(low) + width / 2.0, TOP - 9.0), Anchor::Middle, name);
    }
    let mut y = TOP;
    for group in groups {
        if !group.heading.is_empty() {
            svg.text("heading", (0.0, y + 16.0), Anchor::Start, &group.heading);
            y += HEADING;
        }
        for row in &group.rows {
            let middle = y + ROW / 2.0;
            let family = row.family;
            svg.text(&format!("label f{family}"), (left - 8.0, middle + 4.0), Anchor::End, &row.name);
            if layout.has_stems {
                svg.line(&format!("stem f{family}"), (left + 8.0, middle), (x(row.median), middle));
            }
            svg.line(&format!("range f{family}"), (x(row.low), middle), (x(row.high), middle));
            let hollow = if row.is_hollow { " hollow" } else { "" };
            svg.dot(&format!("dot f{family}{hollow}"), (x(row.median), middle), 5.0, &row.what);
            svg.text("figure", (right + 46.0, middle + 4.0), Anchor::End, &row.figure);
            svg.text("remark", (right + 56.0, middle + 4.0), Anchor::Start, &row.remark);
            y += ROW;
        }
    }
    svg
}

const TOP: f64 = 26.0;
const ROW: f64 = 25.0;
const HEADING: f64 = 28.0;
