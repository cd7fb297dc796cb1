//! The transcript of a case with all its clients, and the output of `--on-failure`.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::text::quoted;

/// The record of one case. Its clients share it; some run on threads of their own.
pub(super) struct Transcript {
    start: Instant,
    on_failure: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clients: usize,
    events: VecDeque<Event>,
    /// The number of earlier events that were dropped.
    dropped: usize,
    /// The output of `--on-failure`.
    observed: Option<Vec<String>>,
}

/// Something that a client did or received, or several such things in a row.
struct Event {
    at: Duration,
    client: usize,
    what: What,
    bytes: Vec<u8>,
    /// The number of all bytes, of which `bytes` has the first ones.
    length: usize,
    pieces: usize,
}

/// An event of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Connects,
    Sends,
    Receives,
    EndsSending,
    Resets,
    SeesEnd,
    SeesReset,
    SeesNothing,
}

impl Transcript {
    /// Returns an empty transcript; `on_failure` is run by the shell when the case fails.
    pub(super) fn new(on_failure: Option<String>) -> Self {
        Self { start: Instant::now(), on_failure, state: Mutex::default() }
    }

    /// Returns the number of a new client.
    pub(super) fn next_client(&self) -> usize {
        let mut state = self.state();
        state.clients += 1;
        state.clients
    }

    /// Records an event.
    pub(super) fn note(&self, client: usize, what: What, bytes: &[u8]) {
        let at = self.start.elapsed();
        let mut state = self.state();
        let shown = &bytes[..bytes.len().min(MOST_BYTES)];
        let in_a_row = state.events.iter().rev().take_while(|last| (last.client, last.what) == (client, what)).count();
        match state.events.back_mut() {
            // Bytes that arrive together are read in pieces whose sizes mean nothing.
            Some(last) if in_a_row > 1 || in_a_row == 1 && what == What::Receives && at < last.at + AT_ONCE => {
                last.bytes.extend_from_slice(&shown[..shown.len().min(MOST_BYTES - last.bytes.len())]);
                last.length += bytes.len();
                last.pieces += 1;
            }
            _ => {
                let (bytes, length) = (shown.to_vec(), bytes.len());
                state.events.push_back(Event { at, client, what, bytes, length, pieces: 1 });
            }
        }
        if state.events.len() > MOST_LINES {
            state.events.pop_front();
            state.dropped += 1;
        }
    }

    /// Runs the command of `--on-failure`, the first time. The connections are still open.
    pub(super) fn observe(&self) {
        let mut state = self.state();
        let Some(command) = self.on_failure.as_ref().filter(|_| state.observed.is_none()) else { return };
        let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output();
        state.observed = Some(match output {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
            }
            Err(error) => vec![format!("sh cannot be started: {error}")],
        });
    }

    /// Returns the transcript, a line for each event, and the output of `--on-failure`.
    pub(super) fn into_lines(self) -> (Vec<String>, Vec<String>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let earlier = (state.dropped > 0).then(|| format!("({} earlier lines)", state.dropped));
        let lines = earlier.into_iter().chain(state.events.iter().map(Event::line)).collect();
        (lines, state.observed.unwrap_or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    fn line(&self) -> String {
        let Self { at, client, what, bytes, length, pieces } = self;
        let verb = match what {
            What::Connects => "connects",
            What::Sends => "sends",
            What::Receives => "receives",
            What::EndsSending => "ends its sending side",
            What::Resets => "resets the connection",
            What::SeesEnd => "sees end of file",
            What::SeesReset => "is reset",
            What::SeesNothing => "sees nothing more",
        };
        let shown = match length {
            0 => String::new(),
            _ if bytes.len() < *length => format!(" {}… ({length} bytes)", quoted(bytes)),
            _ => format!(" {}", quoted(bytes)),
        };
        let is_cut = *pieces > 1 && *what == What::Sends;
        let pieces = if is_cut { format!(" in {pieces} pieces") } else { String::new() };
        format!("{:8.1} ms  client {client} {verb}{shown}{pieces}", at.as_secs_f64() * 1e3)
    }
}

/// Reads within this time are shown as one event. Another answer from a network usually takes longer.
const AT_ONCE: Duration = Duration::from_millis(1);
/// The most bytes of an event that are kept, because a line shows no more.
const MOST_BYTES: usize = 64;
/// The lines of a transcript: the last ones, which led to the failure.
const MOST_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(transcript: Transcript) -> Vec<String> {
        transcript
            .into_lines()
            .0
            .iter()
            .map(|line| line.split_once("ms  ").map_or(line.as_str(), |(_, rest)| rest).to_owned())
            .collect()
    }

    #[test]
    fn both_directions_are_shown_and_what_goes_one_way_is_one_line() {
        let transcript = Transcript::new(None);
        let client = transcript.next_client();
        transcript.note(client, What::Connects, b"");
        for piece in [b"Simple is\n", b"better ", b"than?"] as [&[u8]; 3] {
            transcript.note(client, What::Sends, piece);
        }
        transcript.note(client, What::Receives, &[b'x'; 100]);
        transcript.note(transcript.next_client(), What::SeesReset, b"");
        let long = format!("client 1 receives \"{}\"… (100 bytes)", "x".repeat(64));
        let sent = [r#"client 1 sends "Simple is\n""#, r#"client 1 sends "better than?" in 2 pieces"#];
        assert_eq!(lines(transcript), ["client 1 connects", sent[0], sent[1], &long, "client 2 is reset"]);
    }

    #[test]
    fn of_a_long_transcript_the_end_is_shown() {
        let transcript = Transcript::new(None);
        (0..25).for_each(|client| transcript.note(client, What::Connects, b""));
        let lines = lines(transcript);
        assert_eq!(
            (lines.len(), lines[0].as_str(), lines[20].as_str()),
            (21, "(5 earlier lines)", "client 24 connects")
        );
    }
}
