//! The lanes as marks of an SVG: a tall bar works, a thin band sleeps, and the figure under it says for which client.

use std::fmt::Write;

use super::lanes::{Activity, ClientLane, Interval, Lane, Stay};
use super::recording::Recording;
use super::strace::Micros;
use super::summary::{described, lane_told, millis};

/// What is left free on both sides.
pub(crate) const MARGIN: f64 = 14.0;

/// What has been drawn so far.
pub(crate) struct Drawing<'a> {
    pub(crate) marks: String,
    /// How far down.
    pub(crate) y: f64,
    pub(crate) width: f64,
    /// In how many microseconds the right end lies.
    span: Micros,
    /// What the ids of this picture's patterns begin with.
    id: &'a str,
}

impl<'a> Drawing<'a> {
    /// Returns an empty drawing of this width, in its own units.
    pub(crate) fn new(width: f64, span: Micros, id: &'a str) -> Drawing<'a> {
        Drawing { marks: String::new(), y: 0.0, width, span: span.max(1), id }
    }

    /// A line of text, and room for it.
    pub(crate) fn text(&mut self, class: &str, height: f64, text: &str) {
        self.y += height;
        self.put(&format!(r#"<text class="{class}" x="{MARGIN}" y="{:.1}">{}</text>"#, self.y - 6.0, escaped(text)));
    }

    /// All lanes of a recording, above them the names of the two groups and below them the axis.
    pub(crate) fn lanes(&mut self, recording: &Recording) {
        let top = self.y + HEADING;
        let marks = std::mem::take(&mut self.marks);
        self.text("heading", HEADING, "threads of the server");
        recording.shown().for_each(|lane| self.thread(lane));
        self.text("heading", HEADING, "clients");
        recording.clients.iter().for_each(|lane| self.client(lane));
        let lanes = std::mem::replace(&mut self.marks, marks);
        // The grid lies under the marks.
        self.axis(top);
        self.marks += &lanes;
    }

    fn put(&mut self, mark: &str) {
        self.marks.push_str(mark);
        self.marks.push('\n');
    }

    fn x(&self, time: Micros) -> f64 {
        MARGIN + (self.width - 2.0 * MARGIN) * time as f64 / self.span as f64
    }

    fn label(&mut self, name: &str, told: &str) {
        self.y += LABEL;
        let (y, name, told) = (self.y - 7.0, escaped(name), escaped(told));
        self.put(&format!(
            r#"<text x="{MARGIN}" y="{y:.1}"><tspan class="name">{name}</tspan><tspan class="soft" dx="10">{told}</tspan></text>"#
        ));
    }

    fn thread(&mut self, lane: &Lane) {
        self.label(&lane.name, &lane_told(lane));
        for interval in &lane.intervals {
            self.interval(interval);
        }
        let sends = lane.intervals.iter().filter(|interval| interval.activity == Activity::Send);
        for send in sends.filter(|send| send.client.is_some()) {
            self.pin(send.until, send.client);
        }
        self.y += BAR;
        let words = lane.intervals.iter().filter(|interval| interval.activity.is_waiting());
        for interval in words {
            let (from, until) = (self.x(interval.from), self.x(interval.until));
            // Where there is little room, the colour alone says that it sleeps.
            let told = described(interval).replacen("waits ", "asleep ", 1);
            let shorter = told.trim_start_matches("asleep ");
            let Some(told) = [&told, shorter].into_iter().find(|told| until - from >= room_for(told)) else { continue };
            let x = (from + until) / 2.0;
            self.put(&format!(r#"<text class="soft tiny mid" x="{x:.1}" y="{:.1}">{told}</text>"#, self.y + 11.0));
        }
        self.figures(&lane.intervals);
        self.y += FIGURES;
    }

    fn interval(&mut self, interval: &Interval) {
        let (x, y) = (self.x(interval.from), self.y);
        let width = self.x(interval.until) - x;
        let told = format!("{}: {} ms", described(interval), millis(interval.length()));
        let (shape, paint) = match (interval.activity, interval.client) {
            (Activity::Work | Activity::Send, client) => ((y, BAR, width.max(THINNEST)), self.paint(client)),
            (Activity::Recv, client) => {
                ((y + BAR - BAND, BAND, width), format!(r#"opacity=".6" {}"#, self.paint(client)))
            }
            (Activity::Accept, _) => ((y + BAR - BAND, BAND, width), r#"class="accept""#.into()),
            (Activity::Poll, _) => ((y + BAR - BAND, BAND, width), r#"class="poll""#.into()),
            (Activity::Thread | Activity::Other, _) => ((y + BAR - 2.0, 2.0, width), r#"class="thread""#.into()),
        };
        let (top, height, width) = shape;
        self.put(&format!(
            r#"<rect x="{x:.2}" y="{top:.1}" width="{width:.2}" height="{height}" {paint}><title>{told}</title></rect>"#
        ));
    }

    /// Returns the pattern of a client, or that of work for no client.
    fn paint(&self, client: Option<usize>) -> String {
        match client {
            Some(client) => format!(r#"fill="url(#{}-client-{client})""#, self.id),
            None => r#"class="nobody""#.into(),
        }
    }

    /// An answer: a pin that stands on the bar.
    fn pin(&mut self, time: Micros, client: Option<usize>) {
        let (x, y) = (self.x(time), self.y);
        let client = client.map_or_else(String::new, |client| client.to_string());
        self.put(&format!(r#"<path class="s{client}" d="M{x:.2} {:.1}V{:.1}"/>"#, y + BAR, y - 3.0));
        self.put(&format!(r#"<circle class="head c{client}" cx="{x:.2}" cy="{:.1}" r="3"/>"#, y - 3.0));
    }

    /// Draws which client a thread worked for, in figures under its bars.
    fn figures(&mut self, intervals: &[Interval]) {
        let mut spots: Vec<(usize, f64, f64)> = Vec::new();
        for interval in intervals.iter().filter(|interval| !interval.activity.is_waiting()) {
            let Some(client) = interval.client else { continue };
            let (from, until) = (self.x(interval.from), self.x(interval.until));
            match spots.last_mut() {
                Some((last, _, end)) if *last == client && from - *end < APART => *end = until,
                _ => spots.push((client, from, until)),
            }
        }
        let mut free = f64::MIN;
        for (client, from, until) in spots {
            // Next to each other, also where bars are too close.
            let x = ((from + until) / 2.0).max(free);
            if x - until > 2.5 * APART {
                continue;
            }
            free = x + APART;
            self.put(&format!(
                r#"<text class="figure c{client} mid" x="{x:.1}" y="{:.1}">{client}</text>"#,
                self.y + 12.0
            ));
        }
    }

    fn client(&mut self, lane: &ClientLane) {
        let first =
            lane.answered.first().zip(lane.intervals.first()).map_or(0, |(answered, (from, ..))| answered - from);
        let all = lane.intervals.last().zip(lane.intervals.first()).map_or(0, |((_, end, _), (from, ..))| end - from);
        let told = format!("first answer after {} ms, the last after {} ms", millis(first), millis(all));
        self.label(&format!("client {}", lane.client), &told);
        for &(from, until, stay) in &lane.intervals {
            let (x, y, width) = (self.x(from), self.y, self.x(until) - self.x(from));
            let (mark, words) = match stay {
                Stay::Backlog => {
                    let paint = format!(r#"class="backlog s{0}" fill="url(#{1}-backlog-{0})""#, lane.client, self.id);
                    (format!(r#"y="{y:.1}" height="{BAR}" {paint}"#), "in the backlog, not accepted")
                }
                Stay::Answer => {
                    let paint = self.paint(Some(lane.client));
                    (format!(r#"y="{y:.1}" height="{BAR}" {paint}"#), "waits for its answer")
                }
                Stay::Thinking => {
                    (format!(r#"y="{:.1}" height="2" class="c{}""#, y + BAR - 2.0, lane.client), "thinks")
                }
            };
            let width = if stay == Stay::Answer { width.max(THINNEST) } else { width };
            let title = format!("{words}: {} ms", millis(until - from));
            self.put(&format!(r#"<rect x="{x:.2}" width="{width:.2}" {mark}><title>{title}</title></rect>"#));
            if width > room_for(words) {
                let (x, y) = (x + width / 2.0, y + BAR + 11.0);
                self.put(&format!(r#"<text class="soft tiny mid" x="{x:.1}" y="{y:.1}">{words}</text>"#));
            }
        }
        lane.answered.iter().for_each(|&answered| self.pin(answered, Some(lane.client)));
        self.y += BAR + FIGURES;
    }

    fn axis(&mut self, top: f64) {
        let bottom = self.y;
        for time in (0..=self.span / STEP).map(|n| n * STEP) {
            let x = self.x(time);
            self.put(&format!(r#"<path class="grid" d="M{x:.1} {top:.1}V{bottom:.1}"/>"#));
            // The last figure has its unit, if there is room.
            let unit = if time + STEP > self.span { " ms" } else { "" };
            let anchor = if time == 0 {
                "start"
            } else if self.span - time < STEP / 4 {
                "end"
            } else {
                "middle"
            };
            self.put(&format!(
                r#"<text class="soft tiny" text-anchor="{anchor}" x="{x:.1}" y="{:.1}">{}{unit}</text>"#,
                bottom + 16.0,
                time / 1000
            ));
        }
        self.y += 24.0;
    }
}

/// Returns the room that a mark with these words needs, in the smallest letters.
fn room_for(words: &str) -> f64 {
    30.0 + 6.8 * words.chars().count() as f64
}

/// Text that may stand in XML.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => _ = write!(escaped, "{}", c.escape_default()),
            c => escaped.push(c),
        }
        escaped
    })
}

const HEADING: f64 = 30.0;
const LABEL: f64 = 28.0;
/// How tall work is, and how thin sleep.
const BAR: f64 = 20.0;
const BAND: f64 = 7.0;
const FIGURES: f64 = 15.0;
/// Work of microseconds is seen too.
const THINNEST: f64 = 1.6;
/// How near two figures may be.
const APART: f64 = 9.0;
/// Between two lines of the grid.
const STEP: Micros = 20_000;
