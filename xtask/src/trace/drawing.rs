//! Draws lanes: a tall bar is work, a thin band is sleep, and the figure below it is the number of the client.

use super::model::{Activity, ClientLane, ClientState, Interval, Lane, Model};
use super::strace::Micros;
use super::summary::{client_text, described, lane_text, millis, stay_text, step};
use crate::svg::{Anchor, Svg, escaped};

/// A picture that is being drawn from top to bottom.
pub(crate) struct Drawing<'a> {
    svg: Svg,
    /// The lower end of what has been drawn.
    pub(crate) y: f64,
    /// The time at the right end.
    span: Micros,
    /// The beginning of the ids of this picture's patterns.
    id: &'a str,
}

impl<'a> Drawing<'a> {
    /// Returns an empty drawing of this width, in its own units.
    pub(crate) fn new(width: f64, span: Micros, id: &'a str) -> Drawing<'a> {
        let mut svg = Svg::new(width, 0.0);
        svg.push(patterns(id));
        Drawing { svg, y: 0.0, span: span.max(1), id }
    }

    /// Returns the picture, which ends where the last mark does.
    pub(crate) fn finished(self) -> Svg {
        Svg { height: self.y, ..self.svg }
    }

    /// Draws the background, which a page has already.
    pub(crate) fn paper(&mut self) {
        self.svg.push(r#"<rect class="paper" width="100%" height="100%"/>"#);
    }

    /// Draws a line of text below what has been drawn.
    pub(crate) fn text(&mut self, class: &str, height: f64, text: &str) {
        self.y += height;
        self.svg.text(class, (MARGIN, self.y - 6.0), Anchor::Start, text);
    }

    /// Draws what the marks mean.
    pub(crate) fn legend(&mut self) {
        for (sample, words) in LEGEND {
            self.y += 24.0;
            let (sample, top) = (sample.replace("ID", self.id), self.y - 20.0);
            self.svg.push(format_args!(
                r#"<g transform="translate({MARGIN} {top:.1})">{sample}<text class="soft" x="88" y="15">{words}</text></g>"#
            ));
        }
    }

    /// Draws all lanes of a recording, above them the names of the two groups and below them the axis.
    pub(crate) fn lanes(&mut self, model: &Model) {
        let top = self.y + HEADING;
        let marks = std::mem::take(&mut self.svg.body);
        self.text("heading", HEADING, "threads of the server");
        model.shown().for_each(|lane| self.thread(lane));
        self.text("heading", HEADING, "clients");
        model.clients.iter().for_each(|lane| self.client(lane));
        let lanes = std::mem::replace(&mut self.svg.body, marks);
        // The grid lies under the marks.
        self.axis(top);
        self.svg.body += &lanes;
    }

    fn x(&self, time: Micros) -> f64 {
        MARGIN + (self.svg.width - 2.0 * MARGIN) * time as f64 / self.span as f64
    }

    fn label(&mut self, name: &str, told: &str) {
        self.y += LABEL;
        let (y, name, told) = (self.y - 7.0, escaped(name), escaped(told));
        self.svg.push(format_args!(
            r#"<text x="{MARGIN}" y="{y:.1}"><tspan class="name">{name}</tspan><tspan class="soft" dx="10">{told}</tspan></text>"#
        ));
    }

    fn thread(&mut self, lane: &Lane) {
        self.label(&lane.name, &lane_text(lane));
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
            self.svg.text("soft tiny", ((from + until) / 2.0, self.y + 11.0), Anchor::Middle, told);
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
            (Activity::Recv | Activity::WaitsToSend, client) => {
                ((y + BAR - BAND, BAND, width), format!(r#"opacity=".6" {}"#, self.paint(client)))
            }
            (Activity::Accept, _) => ((y + BAR - BAND, BAND, width), r#"class="accept""#.into()),
            (Activity::Poll, _) => ((y + BAR - BAND, BAND, width), r#"class="poll""#.into()),
            (Activity::Thread | Activity::Other, _) => ((y + BAR - 2.0, 2.0, width), r#"class="thread""#.into()),
        };
        let (top, height, width) = shape;
        self.svg.push(format_args!(
            r#"<rect x="{x:.2}" y="{top:.1}" width="{width:.2}" height="{height}" {paint}><title>{told}</title></rect>"#
        ));
    }

    /// Returns the pattern of a client, or that of work for no client.
    fn paint(&self, client: Option<usize>) -> String {
        match client {
            Some(client) => format!(r#"fill="url(#{}-client-{})""#, self.id, colour(client)),
            None => r#"class="none""#.into(),
        }
    }

    /// Draws an answer as a pin on the bar.
    fn pin(&mut self, time: Micros, client: Option<usize>) {
        let (x, y) = (self.x(time), self.y);
        let client = client.map_or_else(String::new, |client| colour(client).to_string());
        self.svg.line(&format!("s{client}"), (x, y + BAR), (x, y - 3.0));
        self.svg.push(format_args!(r#"<circle class="head c{client}" cx="{x:.2}" cy="{:.1}" r="3"/>"#, y - 3.0));
    }

    /// Draws the numbers of the clients that a thread worked for, below its bars.
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
            // Figures stand next to each other even if their bars are closer.
            let x = ((from + until) / 2.0).max(free);
            if x - until > 2.5 * APART {
                continue;
            }
            free = x + APART;
            let class = format!("figure c{}", colour(client));
            self.svg.text(&class, (x, self.y + 12.0), Anchor::Middle, &client.to_string());
        }
    }

    fn client(&mut self, lane: &ClientLane) {
        self.label(&format!("client {}", lane.client), &client_text(lane));
        let hue = colour(lane.client);
        for interval in &lane.intervals {
            let (x, y, width) = (self.x(interval.from), self.y, self.x(interval.until) - self.x(interval.from));
            let mark = match interval.stay {
                ClientState::Connecting | ClientState::Backlog => {
                    let paint = format!(r#"class="backlog s{hue}" fill="url(#{}-backlog-{hue})""#, self.id);
                    format!(r#"y="{y:.1}" height="{BAR}" {paint}"#)
                }
                ClientState::Answer => format!(r#"y="{y:.1}" height="{BAR}" {}"#, self.paint(Some(lane.client))),
                ClientState::Sending | ClientState::NotReading => {
                    format!(r#"y="{:.1}" height="{BAND}" class="c{hue}""#, y + BAR - BAND)
                }
                ClientState::Idle => format!(r#"y="{:.1}" height="2" class="c{hue}""#, y + BAR - 2.0),
            };
            let words = stay_text(interval.stay);
            let width = if interval.stay == ClientState::Answer { width.max(THINNEST) } else { width };
            let title = format!("{words}: {} ms", millis(interval.until - interval.from));
            self.svg.push(format_args!(r#"<rect x="{x:.2}" width="{width:.2}" {mark}><title>{title}</title></rect>"#));
            if width > room_for(words) {
                self.svg.text("soft tiny", (x + width / 2.0, y + BAR + 11.0), Anchor::Middle, words);
            }
        }
        lane.answered().for_each(|answered| self.pin(answered, Some(lane.client)));
        self.y += BAR + FIGURES;
    }

    fn axis(&mut self, top: f64) {
        let bottom = self.y;
        let step = step(self.span);
        for time in (0..=self.span / step).map(|n| n * step) {
            let x = self.x(time);
            self.svg.line("grid", (x, top), (x, bottom));
            // The last figure has the unit.
            let unit = if time + step > self.span { " ms" } else { "" };
            let anchor = match time {
                0 => Anchor::Start,
                _ if self.span - time < step / 4 => Anchor::End,
                _ => Anchor::Middle,
            };
            self.svg.text("soft tiny", (x, bottom + 16.0), anchor, &format!("{}{unit}", time / 1000));
        }
        self.y += 24.0;
    }
}

/// Returns the number of a client's colour.
fn colour(client: usize) -> usize {
    (client - 1) % COLOURS + 1
}

/// Returns the width of a mark in which these words fit, in the smallest letters.
fn room_for(words: &str) -> f64 {
    30.0 + 6.8 * words.chars().count() as f64
}

/// Returns a pattern for each client, so that clients can be told from each other without colour.
fn patterns(id: &str) -> String {
    let mut patterns = String::from("<defs>\n");
    for client in 1..=COLOURS {
        let drawn = match client % 4 {
            2 => r#"<rect class="paper" width="2" height="6"/>"#,
            3 => r#"<circle class="paper" cx="3" cy="3" r="1.5"/>"#,
            0 => r#"<rect class="paper" width="2" height="2"/><rect class="paper" x="3" y="3" width="2" height="2"/>"#,
            _ => "",
        };
        patterns += &format!(
            "<pattern id=\"{id}-client-{client}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect class=\"c{client}\" width=\"6\" height=\"6\"/>{drawn}</pattern>\n\
             <pattern id=\"{id}-backlog-{client}\" width=\"9\" height=\"9\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\">\
             <rect class=\"c{client}\" width=\"1.5\" height=\"9\"/></pattern>\n"
        );
    }
    patterns + "</defs>\n"
}

/// The margin on both sides.
const MARGIN: f64 = 14.0;
const HEADING: f64 = 30.0;
const LABEL: f64 = 28.0;
/// The heights of work and of sleep.
const BAR: f64 = 20.0;
const BAND: f64 = 7.0;
const FIGURES: f64 = 15.0;
/// The least width of a bar, so that work of a few microseconds can be seen.
const THINNEST: f64 = 1.6;
/// The least distance between two figures.
const APART: f64 = 9.0;
/// The number of colours of clients; further clients begin with the first again.
const COLOURS: usize = 8;

/// Samples, 76 wide and 18 high, and what they mean.
const LEGEND: &[(&str, &str)] = &[
    (
        r#"<rect width="20" height="18" fill="url(#ID-client-1)"/><rect x="26" width="20" height="18" fill="url(#ID-client-2)"/><rect x="52" width="20" height="18" fill="url(#ID-client-3)"/>"#,
        "thread: works for a client; client: waits for its answer",
    ),
    (r#"<rect width="72" height="18" class="none"/>"#, "works for no particular client"),
    (
        r#"<path class="s1" d="M36 18V5"/><circle class="head c1" cx="36" cy="5" r="3"/>"#,
        "thread: sends an answer; client: receives it",
    ),
    (
        r#"<rect y="6" width="72" height="7" opacity=".6" fill="url(#ID-client-1)"/>"#,
        "asleep in recv() until this one client sends",
    ),
    (r#"<rect y="6" width="72" height="7" class="accept"/>"#, "asleep in accept() until a client connects"),
    (r#"<rect y="6" width="72" height="7" class="poll"/>"#, "asleep in epoll_wait() until any client needs it"),
    (r#"<rect y="9" width="72" height="2" class="thread"/>"#, "asleep until another thread wakes it"),
    (
        r#"<rect width="72" height="18" class="backlog s3" fill="url(#ID-backlog-3)"/>"#,
        "a client in the backlog: connected, but not accepted",
    ),
    (r#"<rect y="9" width="72" height="2" class="c1"/>"#, "a client that waits for nothing: it thinks, or is silent"),
];
