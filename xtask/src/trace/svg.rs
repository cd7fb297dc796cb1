//! One self-contained picture of one server, in light and dark colours and with a text alternative.

use super::drawing::Drawing;
use super::recording::Recording;
use super::strace::Micros;
use super::summary::{client_text, lane_text};

/// Returns the picture as a file.
pub(crate) fn document(recording: &Recording) -> String {
    let id = recording.model.server;
    let mut drawing = Drawing::new(WIDE, recording.model.length, id);
    drawing.paper();
    drawing.text("title", 34.0, &format!("{id}: {}", recording.model.command));
    lines(&recording.verdict(), ON_A_LINE).iter().for_each(|line| drawing.text("verdict", 24.0, line));
    drawing.lanes(&recording.model);
    drawing.y += 8.0;
    drawing.legend();
    drawing.y += 10.0;
    let facts = [
        format!(
            "The threads drawn were asleep {:.1} % of the time; {:.1} system calls per answer.",
            recording.idle(),
            recording.calls_per_answer()
        ),
        recording.cost_of_strace(),
        recording.left_out_text().unwrap_or_default(),
    ];
    facts.iter().flat_map(|fact| lines(fact, ON_A_LONG_LINE)).for_each(|line| drawing.text("soft", 21.0, &line));
    drawing.y += 10.0;
    let style = [STYLE, ROOT].concat();
    drawing.finished().standalone(&style, id, CLASS, &title(recording), &description(recording))
}

/// Draws only lanes and axis, for a page that has [`STYLE`], the legend and the words elsewhere. `span` is the time at
/// the right end.
pub(crate) fn figure(recording: &Recording, span: Micros) -> String {
    let id = recording.model.server;
    let mut drawing = Drawing::new(NARROW, span, id);
    drawing.lanes(&recording.model);
    drawing.finished().inline(id, CLASS, &title(recording), &description(recording))
}

/// Returns what the marks mean, as a picture of its own.
pub(crate) fn legend_only() -> String {
    let id = "legend";
    let mut drawing = Drawing::new(NARROW, 1, id);
    drawing.legend();
    drawing.y += 8.0;
    drawing.finished().inline(id, CLASS, "Legend", "what each mark means")
}

fn title(recording: &Recording) -> String {
    format!("What the threads of {} waited for", recording.model.command)
}

/// Returns the text alternative of the picture.
fn description(recording: &Recording) -> String {
    let threads = recording.model.shown().map(|lane| format!("Thread {}: {}.", lane.name, lane_text(lane)));
    let clients = recording.model.clients.iter().map(|lane| format!("Client {}: {}.", lane.client, client_text(lane)));
    [recording.verdict()].into_iter().chain(threads).chain(clients).collect::<Vec<_>>().join(" ")
}

/// Breaks a text into as few lines as possible, all of about the same length.
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

/// The class to which [`STYLE`] applies.
const CLASS: &str = "trace";
/// Width of a picture in its own units: alone, and next to others.
const WIDE: f64 = 760.0;
const NARROW: f64 = 520.0;
const ON_A_LINE: usize = 80;
const ON_A_LONG_LINE: usize = 90;

/// Colours that differ for colour-blind people too (Okabe and Ito), darker on white.
pub(crate) const STYLE: &str = "
.trace { --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #dfe3e8; --idle: #8c959f; --one: #0072b2; --two: #d55e00; --three: #008a62;
  --four: #a8487f; --five: #7a6a00; --six: #3a3a9f; --seven: #9c2f2f; --eight: #4d6b73;
  font: 15px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .trace { --ink: #e6e9ed; --paper: #14181d; --soft: #a3acb7; --line: #2c333b; --idle: #77818c;
  --one: #56b4e9; --two: #f0a030; --three: #35c998;
  --four: #e08fbd; --five: #d8c840; --six: #a5a5ff; --seven: #ff8a80; --eight: #a8c7d0; } }
.trace text { fill: var(--ink); }
.trace .title { font-size: 22px; font-weight: 700; }
.trace .verdict { font-size: 16px; }
.trace .heading { font-size: 13px; font-weight: 600; letter-spacing: .06em; fill: var(--soft); }
.trace .name { font-weight: 700; }
.trace .soft { fill: var(--soft); }
.trace .tiny { font-size: 12px; }
.trace .mid { text-anchor: middle; }
.trace .paper { fill: var(--paper); }
.trace .none { fill: var(--idle); }
.trace .accept { fill: none; stroke: var(--idle); stroke-width: 1; }
.trace .poll { fill: var(--idle); fill-opacity: .4; }
.trace .thread { fill: none; stroke: var(--idle); stroke-width: 2; stroke-dasharray: 2 4; }
.trace .backlog { stroke-width: 1; }
.trace .grid { stroke: var(--line); }
.trace .head { stroke: var(--paper); stroke-width: .8; }
.trace .figure { font-size: 13px; font-weight: 700; }
.trace .c1 { fill: var(--one); } .trace .c2 { fill: var(--two); } .trace .c3 { fill: var(--three); }
.trace .c4 { fill: var(--four); } .trace .c5 { fill: var(--five); } .trace .c6 { fill: var(--six); } .trace .c7 { fill: var(--seven); } .trace .c8 { fill: var(--eight); }
.trace .s1 { stroke: var(--one); } .trace .s2 { stroke: var(--two); } .trace .s3 { stroke: var(--three); }
.trace .s4 { stroke: var(--four); } .trace .s5 { stroke: var(--five); } .trace .s6 { stroke: var(--six); } .trace .s7 { stroke: var(--seven); } .trace .s8 { stroke: var(--eight); }
";

/// A picture that is the whole page is as wide as the window, within the widths at which it can be read.
const ROOT: &str = "svg.trace { max-width: 1100px; min-width: 560px; width: 100%; height: auto; }\n";

#[cfg(test)]
mod tests;
