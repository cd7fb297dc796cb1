//! A picture as text: the few shapes that charts are made of.

use std::fmt::{Display, Write};

/// What is drawn so far.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text stands with respect to its point.
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

    /// A dot that says `what` when it is pointed at.
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

    /// A line through all points; `what` when it is pointed at.
    pub(crate) fn path(&mut self, class: &str, points: &[(f64, f64)], what: &str) {
        let title = if what.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(what)) };
        self.push(format_args!(r#"<path class="{class}" d="{}">{title}</path>"#, along(points)));
    }

    /// The area between an upper and a lower line.
    pub(crate) fn band(&mut self, class: &str, upper: &[(f64, f64)], lower: &[(f64, f64)]) {
        let around: Vec<(f64, f64)> = upper.iter().chain(lower.iter().rev()).copied().collect();
        self.push(format_args!(r#"<path class="{class}" d="{}Z"/>"#, along(&around)));
    }

    fn push(&mut self, shape: impl Display) {
        let _ = writeln!(self.body, "{shape}");
    }

    /// Returns the whole picture, with its text alternative, to stand inside a page. `id` is unique there.
    pub(crate) fn inline(&self, id: &str, class: &str, title: &str, description: &str) -> String {
        format!(
            r#"<svg class="{class}" role="img" aria-labelledby="{id}-title {id}-text" viewBox="0 0 {:.0} {:.0}">
<title id="{id}-title">{}</title><desc id="{id}-text">{}</desc>
{}</svg>"#,
            self.width,
            self.height,
            escaped(title),
            escaped(description),
            self.body
        )
    }

    /// Returns the picture as a file of its own.
    pub(crate) fn standalone(&self, style: &str, title: &str, description: &str) -> String {
        let inline = self.inline("picture", "alone", title, description);
        let (tag, rest) = inline.split_once('>').unwrap_or((&inline, ""));
        // A file has to say which language it is in; a page need not.
        format!(
            "{tag} xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\">\n<style>{style}</style>{rest}\n",
            self.width
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

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Moves labels apart that would stand on each other, as little as possible and within the bounds; each keeps
/// its number.
pub(crate) fn spread(wanted: &[f64], apart: f64, bounds: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&one, &other| wanted[one].total_cmp(&wanted[other]));
    let mut placed = wanted.to_vec();
    // Down from the top, then up from the bottom, a few times: each pass halves what is left.
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
