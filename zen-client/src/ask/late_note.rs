//! A note on stderr for a user who waits.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::text;

/// The progress of the client, for the note on stderr.
#[derive(Clone, Copy)]
pub(super) enum Progress {
    Connecting,
    Asked,
    /// The client waits for nothing of the server: it pauses before a retry.
    Idle,
    /// The answer has arrived. The client may now wait until it is printed.
    Answered,
}

/// Prints one note on stderr if the server has done nothing for a while. It has a thread of its own, because the
/// resolver, `connect` and `read` may each hang.
pub(super) struct LateNote(Sender<Progress>);

/// Longer than a server usually takes, and shorter than a user waits without wondering.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

impl LateNote {
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        // Without a thread there is no note, which the conversation does not need.
        let _ = thread::Builder::new().name("late-note".into()).spawn(move || {
            late_note(&receiver).into_iter().for_each(text::print_error);
        });
        Self(sender)
    }

    pub(super) fn reached(&self, progress: Progress) {
        // After the note is printed, the thread has ended and the send fails.
        let _ = self.0.send(progress);
    }
}

/// Returns the note if the client waits for the server, and no report comes in time. Returns `None` when the client
/// ends.
fn late_note(reports: &Receiver<Progress>) -> Option<&'static str> {
    let mut progress = Progress::Connecting;
    let mut was_answered = false;
    loop {
        let report = match progress {
            Progress::Connecting | Progress::Asked => reports.recv_timeout(WAIT_LIMIT),
            Progress::Idle | Progress::Answered => reports.recv().map_err(RecvTimeoutError::from),
        };
        match report {
            Ok(report) => progress = report,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => break,
        }
        was_answered |= matches!(progress, Progress::Answered);
    }
    Some(match progress {
        Progress::Connecting => "note: not connected yet: the host may be down or overloaded; waiting…",
        _ if was_answered => {
            "note: no answer for 1s, though the server has answered before: it may be thinking; waiting…"
        }
        _ => "note: no answer for 1s: the server may be busy with another client, or with this answer; waiting…",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the note after these reports, for a client that ends a while later.
    fn note_after(progress: &[Progress]) -> Option<&'static str> {
        let (sender, receiver) = mpsc::channel();
        progress.iter().for_each(|progress| sender.send(*progress).expect("the receiver exists"));
        thread::spawn(move || {
            thread::sleep(WAIT_LIMIT * 3 / 2);
            drop(sender);
        });
        late_note(&receiver)
    }

    #[test]
    fn only_a_server_that_is_waited_for_is_late() {
        use Progress::{Answered, Asked, Connecting, Idle};
        assert_eq!(note_after(&[Connecting, Asked, Answered]), None); // for example, stdout is a full pipe
        assert_eq!(note_after(&[Connecting, Asked, Idle]), None);
        let is_late = |note: Option<&str>, start| note.is_some_and(|note| note.starts_with(start));
        assert!(is_late(note_after(&[Connecting]), "note: not connected yet"));
        assert!(is_late(note_after(&[Connecting, Asked]), "note: no answer for 1s: "));
        assert!(is_late(note_after(&[Connecting, Asked, Answered, Asked]), "note: no answer for 1s, though "));
    }
}
