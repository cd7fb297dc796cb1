//! Writes SVG: the few shapes of which the pictures of `trace` and `bench` consist.

use std::fmt::{Display, Write};

/// A picture that is being drawn.
pub(crate) struct Svg {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// The shapes, those at the bottom first.
    pub(crate) body: String,
}

/// The part of a text that is at its point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Svg {
        Svg { width, height, body: String::new() }
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(format_args!(
            r#"<line class="{class}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    pub(crate) fn rectangle(&mut self, class: &str, corner: (f64, f64), size: (f64, f64)) {
        self.push(format_args!(
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="3"/>"#,
            corner.0,
            corner.1,
            size.0.max(0.0),
            size.1.max(0.0)
        ));
    }

    /// Draws a dot with a tooltip.
    pub(crate) fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, what: &str) {
        self.push(format_args!(
            r#"<circle class="{class}" cx="{:.1}" cy="{:.1}" r="{radius}"><title>{}</title></circle>"#,
            at.0,
            at.1,
            escaped(what)
        ));
    }

    pub(crate) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            r#"<text class="{class}" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            at.0,
            at.1,
            escaped(text)
        ));
    }

    /// Draws a line through all points, with a tooltip unless `what` is empty.
    pub(crate) fn path(&mut self, class: &str, points: &[(f64, f64)], what: &str) {
        let title = if what.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(what)) };
        self.push(format_args!(r#"<path class="{class}" d="{}">{title}</path>"#, along(points)));
    }

    /// Fills the area between an upper and a lower line.
    pub(crate) fn band(&mut self, class: &str, upper: &[(f64, f64)], lower: &[(f64, f64)]) {
        let around: Vec<(f64, f64)> = upper.iter().chain(lower.iter().rev()).copied().collect();
        self.push(format_args!(r#"<path class="{class}" d="{}Z"/>"#, along(&around)));
    }

    /// Draws a shape that is given as SVG.
    pub(crate) fn push(&mut self, shape: impl Display) {
        let _ = writeln!(self.body, "{shape}");
    }

    /// Returns the picture for use inside a page, where `id` must be unique, with its text alternative.
    pub(crate) fn inline(&self, id: &str, class: &str, title: &str, description: &str) -> String {
        self.element("", "", [id, class, title, description])
    }

    /// Returns the picture as a file of its own, with its text alternative.
    pub(crate) fn standalone(&self, style: &str, id: &str, class: &str, title: &str, description: &str) -> String {
        // A file needs the namespace; a page does not.
        let attributes = format!(r#" xmlns="http://www.w3.org/2000/svg" width="{:.0}""#, self.width);
        self.element(&attributes, &format!("<style>{style}</style>\n"), [id, class, title, description]) + "\n"
    }

    fn element(&self, attributes: &str, style: &str, [id, class, title, description]: [&str; 4]) -> String {
        let (width, height, body) = (self.width, self.height, &self.body);
        let (title, description) = (escaped(title), escaped(description));
        format!(
            r#"<svg class="{class}" role="img" aria-labelledby="{id}-title {id}-text" viewBox="0 0 {width:.0} {height:.0}"{attributes}>
<title id="{id}-title">{title}</title><desc id="{id}-text">{description}</desc>
{style}{body}</svg>"#
        )
    }
}

fn along(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
    }
    path
}

/// Returns text that may stand in XML.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.extend(c.escape_default()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Moves labels apart that would overlap, as little as possible and within the bounds. The order of the result is that
/// of `wanted`.
pub(crate) fn spread(wanted: &[f64], apart: f64, bounds: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&one, &other| wanted[one].total_cmp(&wanted[other]));
    let mut placed = wanted.to_vec();
    // Down from the top, then up from the bottom, a few times: each pass halves the remaining overlap.
    for _ in 0..ROUNDS {
        for pair in order.windows(2) {
            let gap = placed[pair[1]] - placed[pair[0]];
            if gap < apart {
                placed[pair[0]] -= (apart - gap) / 2.0;
                placed[pair[1]] += (apart - gap) / 2.0;
            }
        }
        let mut top = bounds.0;
        for &label in &order {
            placed[label] = placed[label].max(top);
            top += apart;
        }
        let mut bottom = bounds.1;
        for &label in order.iter().rev() {
            placed[label] = placed[label].min(bottom);
            bottom -= apart;
        }
    }
    placed
}

const ROUNDS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_moved_apart() {
        let placed = spread(&[10.0, 11.0, 50.0, 10.5], 10.0, (0.0, 100.0));
        assert!(placed[3] - placed[0] > 9.5 && placed[1] - placed[3] > 9.5, "{placed:?}");
        assert!((placed[2] - 50.0).abs() < 0.5);
    }

    #[test]
    fn names_cannot_break_a_picture() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("x", (1.0, 1.0), Anchor::Start, "<a href=\"&\">");
        assert!(svg.inline("a", "b", "t", "d").contains("&lt;a href=&quot;&amp;&quot;&gt;"));
    }
}
