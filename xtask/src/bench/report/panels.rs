//! Small pictures of many lines: one for each family, with the lines of the others in grey behind.

use super::scale::{Scale, tick};
use crate::svg::{Anchor, Svg, spread};

/// One server's line.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) family: usize,
    /// Its index in the family, which chooses its dash pattern.
    pub(crate) member: usize,
    pub(crate) points: Vec<Point>,
}

pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) what: String,
}

/// The axes that all panels of a picture share, so that they can be compared.
pub(crate) struct Axes {
    pub(crate) x: Vec<(f64, String)>,
    /// The first and the last position.
    pub(crate) x_range: (f64, f64),
    pub(crate) x_title: &'static str,
    pub(crate) y_title: &'static str,
    /// Whether measured points have dots, and lines that end early are labelled at their end. Otherwise all labels are
    /// at the right edge.
    pub(crate) has_dots: bool,
}

/// Returns the panel of one family.
pub(crate) fn panel(lines: &[Line], family: usize, axes: &Axes) -> Svg {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let (first, last) = axes.x_range;
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value - first) / (last - first).max(1e-9);
    let figures = lines.iter().flat_map(|line| &line.points).flat_map(|point| [point.low, point.high]);
    let y = Scale::around(figures, BOTTOM, TOP);
    svg.text("axis-title", (0.0, 12.0), Anchor::Start, axes.y_title);
    for value in y.ticks() {
        svg.line("grid", (LEFT, y.at(value)), (RIGHT, y.at(value)));
        svg.text("tick", (LEFT - 6.0, y.at(value) + 4.0), Anchor::End, &tick(value));
    }
    for (value, name) in &axes.x {
        svg.line("notch", (x(*value), BOTTOM), (x(*value), BOTTOM + 4.0));
        svg.text("tick", (x(*value), BOTTOM + 17.0), Anchor::Middle, name);
    }
    svg.line("base", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.text("axis-title", ((LEFT + RIGHT) / 2.0, HEIGHT - 3.0), Anchor::Middle, axes.x_title);

    let positions = |line: &Line| line.points.iter().map(|it| (x(it.x), y.at(it.y))).collect::<Vec<_>>();
    for line in lines.iter().filter(|line| line.family != family) {
        svg.path("ghost", &positions(line), &line.name);
    }
    let own: Vec<&Line> = lines.iter().filter(|line| line.family == family && !line.points.is_empty()).collect();
    for line in &own {
        let edge = |side: fn(&Point) -> f64| line.points.iter().map(|it| (x(it.x), y.at(side(it)))).collect::<Vec<_>>();
        svg.band(&format!("band f{family}"), &edge(|it| it.high), &edge(|it| it.low));
    }
    for line in &own {
        svg.path(&format!("line f{family} d{}", line.member % DASHES), &positions(line), &line.name);
        for (point, at) in line.points.iter().zip(positions(line)).filter(|_| axes.has_dots) {
            svg.line(&format!("whisker f{family}"), (at.0, y.at(point.low)), (at.0, y.at(point.high)));
            svg.dot(&format!("dot f{family}"), at, 3.2, &point.what);
        }
    }
    labels(&mut svg, &own, axes, positions);
    svg
}

/// Labels each line at its end. Right of a line that ends early there are other lines, so its label is above or below
/// its last point.
fn labels(svg: &mut Svg, own: &[&Line], axes: &Axes, positions: impl Fn(&Line) -> Vec<(f64, f64)>) {
    let family = own.first().map_or(0, |line| line.family);
    let ends: Vec<(&str, (f64, f64))> =
        own.iter().filter_map(|line| Some((line.name.as_str(), *positions(line).last()?))).collect();
    let (late, mut early): (Vec<_>, Vec<_>) =
        ends.into_iter().partition(|(_, end)| !axes.has_dots || end.0 > RIGHT - LATE);
    let wanted: Vec<f64> = late.iter().map(|(_, end)| end.1).collect();
    let placed = spread(&wanted, LABEL, (TOP + 4.0, BOTTOM - 4.0));
    for ((name, end), place) in late.iter().zip(placed) {
        svg.line(&format!("leader f{family}"), (end.0 + 5.0, end.1), (RIGHT + 11.0, place));
        svg.text(&format!("label f{family}"), (RIGHT + 14.0, place + 4.0), Anchor::Start, name);
    }
    early.sort_by(|(_, one), (_, other)| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
    let mut before: Option<(f64, f64)> = None;
    for (name, end) in early {
        // Of two that end side by side, the upper label is above its point and the other one below.
        let is_first = before.is_none_or(|(x, _)| (x - end.0).abs() > LATE);
        let place = match before {
            Some((_, y)) if !is_first => (end.1 + LABEL + 2.0).max(y + LABEL),
            _ => end.1 - 8.0,
        };
        before = Some((end.0, if is_first { end.1 } else { place }));
        svg.text(&format!("label f{family}"), (end.0 + 7.0, place), Anchor::Start, name);
    }
}

/// The distance to the end of the axis within which the end of a line is not early.
const LATE: f64 = 12.0;
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 284.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 236.0;
/// The distance between two labels.
const LABEL: f64 = 15.0;
/// How many dash patterns style.css has.
const DASHES: usize = 6;
