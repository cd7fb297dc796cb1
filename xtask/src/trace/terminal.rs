//! The timeline in a terminal, with figures for clients, so that it can be read without colour.

use std::io::{IsTerminal, stdout};

use super::model::{Activity, ClientLane, ClientState, Interval, Lane};
use super::recording::Recording;
use super::strace::Micros;
use super::summary::{Spent, activity_text, millis, step};

/// Returns the timeline and the numbers under it, as this terminal can show them.
pub(crate) fn shown(recording: &Recording) -> String {
    let is_coloured = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(COLUMNS);
    text(recording, columns, is_coloured)
}

/// Returns the timeline as text of this many columns.
pub(crate) fn text(recording: &Recording, columns: usize, is_coloured: bool) -> String {
    let names = recording.model.shown().map(|lane| lane.name.chars().count());
    let margin = names.max().unwrap_or(0).max("client 1".len()) + 2;
    let cells = columns.saturating_sub(margin).clamp(FEWEST, MOST);
    let scale = Scale { length: recording.model.length.max(1), cells };
    let row = |name: &str, line: Vec<Cell>| {
        let line: String = line.into_iter().map(|cell| cell.painted(is_coloured)).collect();
        format!("{name:<margin$}{}\n", line.trim_end())
    };
    let mut text = format!("{}: {}\n{}\n", recording.model.server, recording.model.command, recording.verdict());
    for lane in recording.model.shown() {
        text += &row(&lane.name, of_thread(lane, &scale));
    }
    for lane in &recording.model.clients {
        text += &row(&format!("client {}", lane.client), of_client(lane, &scale));
    }
    text += &format!("{:margin$}{}\n", "", scale.axis());
    text + &numbers(recording, margin)
}

/// The meaning of the signs.
pub(crate) const LEGEND: &str = "\
threads   1 2 3 works for that client (* for no client)   ₁₂₃ asleep in recv() or send() for that client
          _ asleep in accept()   . asleep in epoll_wait()   ~ asleep until another thread wakes it
clients   : not connected   % in the backlog   ? waits for an answer   ! receives it   - waits for nothing
          + sends a part of a question   = reads no answer
";

fn numbers(recording: &Recording, margin: usize) -> String {
    let mut text = String::new();
    for lane in recording.model.shown() {
        let spent = Spent::of(lane);
        let each = spent.sorted().into_iter().filter(|&(.., time)| time >= WORTH_TELLING);
        let each: Vec<String> = each
            .map(|(activity, client, time)| format!("{} {} ms", activity_text(activity, client), millis(time)))
            .collect();
        text += &format!("{:<margin$}idle {:.1} %: {}\n", lane.name, spent.idle(), each.join(", "));
    }
    let calls: Vec<String> =
        recording.calls_by_name().into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    text += &format!(
        "{:.1} system calls per answer, with those that open and close connections: {}\n",
        recording.calls_per_answer(),
        calls.join(", ")
    );
    text += &format!("{}\n", recording.cost_of_strace());
    recording.left_out_text().map_or(text.clone(), |left_out| text + &left_out + "\n")
}

struct Scale {
    length: Micros,
    cells: usize,
}

impl Scale {
    fn span(&self, cell: usize) -> (Micros, Micros) {
        let at = |cell: usize| self.length * cell as Micros / self.cells as Micros;
        (at(cell), at(cell + 1))
    }

    /// Draws an axis with a figure at regular intervals of milliseconds.
    fn axis(&self) -> String {
        let mut axis = String::new();
        for time in (0..).map(|n| n * step(self.length)).take_while(|time| *time < self.length) {
            let cell = (time * self.cells as Micros / self.length) as usize;
            let figure = format!("{}", time / 1000);
            if cell >= axis.len() && cell + figure.len() + 3 <= self.cells {
                axis += &" ".repeat(cell - axis.len());
                axis += &figure;
            }
        }
        axis + " ms"
    }
}

struct Cell {
    sign: char,
    client: Option<usize>,
    is_full: bool,
}

impl Cell {
    fn painted(&self, is_coloured: bool) -> String {
        let sign = self.sign;
        match self.client.filter(|_| is_coloured).and_then(|client| COLOURS.get((client - 1) % COLOURS.len())) {
            // The figure stays readable: black on the client's colour, or in that colour.
            Some(colour) if self.is_full => format!("\x1b[30;48;5;{colour}m{sign}\x1b[0m"),
            Some(colour) => format!("\x1b[38;5;{colour}m{sign}\x1b[0m"),
            None => sign.to_string(),
        }
    }
}

fn of_thread(lane: &Lane, scale: &Scale) -> Vec<Cell> {
    let cell = |cell| {
        let (from, until) = scale.span(cell);
        let here = || lane.intervals.iter().filter(move |interval| interval.until > from && interval.from < until);
        let overlap = |interval: &&Interval| interval.until.min(until) - interval.from.max(from);
        // Work for a client is rare and short: it is shown even if it is the least part.
        let served = here().filter(|interval| !interval.activity.is_waiting() && interval.client.is_some());
        match served.max_by_key(overlap).or_else(|| here().max_by_key(overlap)) {
            Some(interval) => sign(interval),
            None => Cell { sign: ' ', client: None, is_full: false },
        }
    };
    (0..scale.cells).map(cell).collect()
}

fn sign(interval: &Interval) -> Cell {
    let figure = |figures: &str| interval.client.and_then(|client| figures.chars().nth((client - 1) % 9));
    let sign = match interval.activity {
        Activity::Accept => '_',
        Activity::Recv | Activity::WaitsToSend => figure("₁₂₃₄₅₆₇₈₉").unwrap_or('~'),
        Activity::Poll => '.',
        Activity::Thread | Activity::Other => '~',
        Activity::Send | Activity::Work => figure("123456789").unwrap_or('*'),
    };
    Cell { sign, client: interval.client, is_full: !interval.activity.is_waiting() }
}

fn of_client(lane: &ClientLane, scale: &Scale) -> Vec<Cell> {
    let cell = |cell| {
        let (from, until) = scale.span(cell);
        let is_full = lane.answered().any(|answered| (from..until).contains(&answered));
        let stays = lane.intervals.iter().filter(|stay| stay.until > from && stay.from < until);
        let longest = stays.max_by_key(|stay| stay.until.min(until) - stay.from.max(from));
        let sign = match longest.map(|stay| stay.stay) {
            _ if is_full => '!',
            Some(ClientState::Connecting) => ':',
            Some(ClientState::Backlog) => '%',
            Some(ClientState::Answer) => '?',
            Some(ClientState::Sending) => '+',
            Some(ClientState::NotReading) => '=',
            Some(ClientState::Idle) => '-',
            None => ' ',
        };
        Cell { sign, client: (sign != ' ').then_some(lane.client), is_full }
    };
    (0..scale.cells).map(cell).collect()
}

/// Colours that differ for colour-blind people too, in the palette of 256.
const COLOURS: [u8; 8] = [74, 214, 43, 175, 186, 117, 167, 146];
const COLUMNS: usize = 100;
const FEWEST: usize = 20;
const MOST: usize = 160;
/// The shortest time that is listed: a shorter one would be shown as 0.0 ms.
const WORTH_TELLING: Micros = 50;
