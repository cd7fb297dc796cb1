//! The note for a person who waits.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::text;

/// How far the client has come, for the note on stderr.
#[derive(Clone, Copy)]
pub(super) enum Progress {
    Connecting,
    Connected,
    Answered,
}

/// Says once on stderr what we wait for, when nothing has happened for a while. A thread of its own,
/// as the resolver, `connect` and `read` may each be what hangs.
pub(super) struct LateNote(Sender<Progress>);

/// Longer than an honest server takes, shorter than a person's patience.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

impl LateNote {
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        // Without a thread there will be no note; the conversation needs none.
        let _ = thread::Builder::new().name("late-note".into()).spawn(move || note_if_late(&receiver));
        Self(sender)
    }

    pub(super) fn reached(&self, progress: Progress) {
        // Once the note is written, nobody listens any more.
        let _ = self.0.send(progress);
    }
}

fn note_if_late(reports: &Receiver<Progress>) {
    let mut progress = Progress::Connecting;
    let mut was_answered = false;
    loop {
        match reports.recv_timeout(WAIT_LIMIT) {
            Ok(report) => progress = report,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => break,
        }
        was_answered |= matches!(progress, Progress::Answered);
    }
    text::print_error(match progress {
        Progress::Connecting => "note: the server is not reached yet: the host may be down or overrun; waiting…",
        _ if was_answered => {
            "note: no answer for 1s, though the server has answered before: it may be thinking; waiting…"
        }
        _ => "note: the server has not taken this client yet: it may be serving others; waiting…",
    });
}
