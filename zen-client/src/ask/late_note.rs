//! A note on stderr for a user who waits.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::text;

/// The progress of the client, for the note on stderr.
#[derive(Clone, Copy)]
pub(super) enum Progress {
    Connecting,
    Connected,
    Answered,
}

/// Prints one note on stderr if nothing has happened for a while. It has a thread of its own, because the resolver,
/// `connect` and `read` may each hang.
pub(super) struct LateNote(Sender<Progress>);

/// Longer than a server usually takes, and shorter than a user waits without wondering.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

impl LateNote {
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        // Without a thread there is no note, which the conversation does not need.
        let _ = thread::Builder::new().name("late-note".into()).spawn(move || note_if_late(&receiver));
        Self(sender)
    }

    pub(super) fn reached(&self, progress: Progress) {
        // After the note is printed, the thread has ended and the send fails.
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
