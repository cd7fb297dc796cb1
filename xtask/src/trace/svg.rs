//! One self-contained picture of one server: light and dark, with words for people who cannot see it.

use super::drawing::{Drawing, MARGIN, escaped};
use super::recording::Recording;
use super::scenario::CLIENTS;
use super::strace::Micros;
use super::summary::{lane_told, millis};
use super::terminal::command;

/// Returns the whole file.
pub(crate) fn document(recording: &Recording) -> String {
    let id = recording.entry.name;
    let mut drawing = Drawing::new(WIDE, recording.length, id);
    drawing.text("title", 34.0, &format!("{id}: {}", command(recording)));
    lines(&recording.verdict(), ON_A_LINE).iter().for_each(|line| drawing.text("verdict", 24.0, line));
    drawing.lanes(recording);
    drawing.y += 8.0;
    legend(&mut drawing, id);
    drawing.y += 10.0;
    let facts = [
        format!(
            "The threads drawn were asleep {:.1} % of the time; {:.1} system calls per answer.",
            recording.idle(),
            recording.calls_per_answer()
        ),
        recording.cost_of_strace(),
        recording.left_out_told().unwrap_or_default(),
    ];
    facts.iter().flat_map(|fact| lines(fact, ON_A_LONG_LINE)).for_each(|line| drawing.text("soft", 21.0, &line));
    drawing.y += 10.0;
    let inside = format!("<style>{STYLE}{ROOT}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n");
    element(recording, &inside, &drawing)
}

/// Draws only lanes and axis, for a page that has [`STYLE`], the legend and the words elsewhere. `span` is the time at
/// the right end.
pub(crate) fn figure(recording: &Recording, span: Micros) -> String {
    let mut drawing = Drawing::new(NARROW, span, recording.entry.name);
    drawing.lanes(recording);
    element(recording, "", &drawing)
}

/// Returns what the marks mean, as a picture of its own.
pub(crate) fn legend_only() -> String {
    let id = "legend";
    let mut drawing = Drawing::new(NARROW, 1, id);
    legend(&mut drawing, id);
    format!(
        "<svg class=\"trace\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {NARROW} {:.0}\" role=\"img\" aria-label=\"legend\">\n{}{}</svg>\n",
        drawing.y + 8.0,
        patterns(id),
        drawing.marks
    )
}

fn element(recording: &Recording, inside: &str, drawing: &Drawing<'_>) -> String {
    let id = recording.entry.name;
    format!(
        "<svg class=\"trace\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {:.0}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
         <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n{inside}{}{}</svg>\n",
        drawing.width,
        drawing.y,
        escaped(&format!("What the threads of {} waited for", command(recording))),
        escaped(&description(recording)),
        patterns(id),
        drawing.marks
    )
}

/// Returns the picture in words.
fn description(recording: &Recording) -> String {
    let threads = recording.shown().map(|lane| format!("Thread {}: {}.", lane.name, lane_told(lane)));
    let clients = (1..=CLIENTS).map(|client| {
        format!("Client {client} had its first answer after {} ms.", millis(recording.first_wait(client)))
    });
    [recording.verdict()].into_iter().chain(threads).chain(clients).collect::<Vec<_>>().join(" ")
}

fn legend(drawing: &mut Drawing<'_>, id: &str) {
    for (sample, words) in LEGEND {
        drawing.y += 24.0;
        let sample = sample.replace("ID", id);
        drawing.marks += &format!(
            "<g transform=\"translate({MARGIN} {:.1})\">{sample}<text class=\"soft\" x=\"88\" y=\"15\">{words}</text></g>\n",
            drawing.y - 20.0
        );
    }
}

/// A sample 76 wide and 18 high, and what it means.
const LEGEND: &[(&str, &str)] = &[
    (
        r#"<rect width="20" height="18" fill="url(#ID-client-1)"/><rect x="26" width="20" height="18" fill="url(#ID-client-2)"/><rect x="52" width="20" height="18" fill="url(#ID-client-3)"/>"#,
        "works for client 1, 2, 3; a client: waits for its answer",
    ),
    (r#"<rect width="72" height="18" class="nobody"/>"#, "works for no particular client"),
    (
        r#"<path class="s1" d="M36 18V5"/><circle class="head c1" cx="36" cy="5" r="3"/>"#,
        "an answer is sent; a client: has its answer",
    ),
    (
        r#"<rect y="6" width="72" height="7" opacity=".6" fill="url(#ID-client-1)"/>"#,
        "asleep in recv() until this one client speaks",
    ),
    (r#"<rect y="6" width="72" height="7" class="accept"/>"#, "asleep in accept() until a client connects"),
    (r#"<rect y="6" width="72" height="7" class="poll"/>"#, "asleep in epoll_wait() until any client needs it"),
    (r#"<rect y="9" width="72" height="2" class="thread"/>"#, "asleep until another thread wakes it"),
    (
        r#"<rect width="72" height="18" class="backlog s3" fill="url(#ID-backlog-3)"/>"#,
        "a client in the backlog: connected, but not accepted",
    ),
    (r#"<rect y="9" width="72" height="2" class="c1"/>"#, "a client that has its answer and thinks"),
];

/// Three clients that can be told from each other without colour.
fn patterns(id: &str) -> String {
    let mut patterns = String::from("<defs>\n");
    for client in 1..=CLIENTS {
        let drawn = match client {
            2 => r#"<rect class="paper" width="2" height="6"/>"#,
            3 => r#"<circle class="paper" cx="3" cy="3" r="1.5"/>"#,
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

/// Breaks a text into as few lines as fit this width, all about as long.
fn lines(text: &str, longest: usize) -> Vec<String> {
    let all = wrapped(text, longest);
    (1..longest).map(|longest| wrapped(text, longest)).find(|lines| lines.len() == all.len()).unwrap_or(all)
}

fn wrapped(text: &str, longest: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= longest => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Width of a picture in its own units: alone, and next to others.
const WIDE: f64 = 760.0;
const NARROW: f64 = 520.0;
const ON_A_LINE: usize = 80;
const ON_A_LONG_LINE: usize = 90;

/// Blue, orange and green as colour-blind eyes can tell them apart (Okabe and Ito), darker on white.
pub(crate) const STYLE: &str = "
.trace { --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #dfe3e8; --idle: #8c959f; --one: #0072b2; --two: #d55e00; --three: #008a62;
  font: 15px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }
@media (prefers-color-scheme: dark) { .trace { --ink: #e6e9ed; --paper: #14181d; --soft: #a3acb7; --line: #2c333b; --idle: #77818c;
  --one: #56b4e9; --two: #f0a030; --three: #35c998; } }
.trace text { fill: var(--ink); }
.trace .title { font-size: 22px; font-weight: 700; }
.trace .verdict { font-size: 16px; }
.trace .heading { font-size: 13px; font-weight: 600; letter-spacing: .06em; fill: var(--soft); }
.trace .name { font-weight: 700; }
.trace .soft { fill: var(--soft); }
.trace .tiny { font-size: 12px; }
.trace .mid { text-anchor: middle; }
.trace .paper { fill: var(--paper); }
.trace .nobody { fill: var(--idle); }
.trace .accept { fill: none; stroke: var(--idle); stroke-width: 1; }
.trace .poll { fill: var(--idle); fill-opacity: .4; }
.trace .thread { fill: none; stroke: var(--idle); stroke-width: 2; stroke-dasharray: 2 4; }
.trace .backlog { stroke-width: 1; }
.trace .grid { stroke: var(--line); }
.trace .head { stroke: var(--paper); stroke-width: .8; }
.trace .figure { font-size: 13px; font-weight: 700; }
.trace .c1 { fill: var(--one); } .trace .c2 { fill: var(--two); } .trace .c3 { fill: var(--three); }
.trace .s1 { stroke: var(--one); } .trace .s2 { stroke: var(--two); } .trace .s3 { stroke: var(--three); }
";

/// A picture that is the whole page is as wide as the window, but not wider than one can read, nor narrower.
const ROOT: &str = "svg.trace { max-width: 1100px; min-width: 560px; width: 100%; height: auto; }\n";

#[cfg(test)]
mod tests;
