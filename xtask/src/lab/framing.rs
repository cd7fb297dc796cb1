//! Where a question ends, where an answer ends, and where a connection does.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Experiment;
use super::apparatus::{exhibit, judged, server};
use super::notes::Notes;
use crate::harness::client::{APHORISMS, Came};
use crate::harness::{Client, PATIENCE, Server, wait_for};

pub(super) const ENDS_WITH: Experiment = Experiment {
    name: "ends-with",
    claim: "Receiving until the data end with the suffix frames a question.",
    question: "a server reads until the last byte is a `?`. What does it make of two questions in one send, of a question and a newline, and of \
               8 MB without any `?`?",
    run: ends_with,
    why: "TCP carries bytes, and what one recv() brings ends anywhere. The end of a question is its first `?`, wherever that stands in what has \
          come; what follows it belongs to the next; and somebody must count.",
    read: &["zen-single/examples/ends_with.rs", "zen-proto/src/framing.rs"],
    is_alone: false,
};

fn ends_with(notes: &mut Notes) -> Result<()> {
    let faulty = exhibit("ends_with")?;
    notes.doing("two questions in one send");
    let mut client = faulty.client()?;
    client.ask(b"Simple is better than?Beautiful is better than?", b"Error: unknown aphorism.")?;
    client.expect_silence(SHORT)?;
    notes.saw("two questions in one send: one answer, and that an error");
    drop(client);
    notes.doing("a newline");
    let mut client = faulty.client()?;
    client.send(b"Simple is better than?\n")?;
    client.expect_silence(SHORT)?;
    notes.saw("a newline behind the question: no answer at all");
    drop(client);
    notes.doing("8 MB without an end");
    let before = faulty.usage().memory;
    let mut client = faulty.client()?;
    client.send(&vec![b'x'; 8 << 20])?;
    let grown = wait_for(PATIENCE, || {
        let memory = faulty.usage().memory.saturating_sub(before);
        (memory > 6 << 20).then_some(memory)
    });
    let grown = grown.context("its memory was to grow")?;
    notes.saw(format!("8 MB without a `?`: {} MB more memory", grown >> 20));
    drop(client);
    notes.doing("the cure");
    let cured = server("single", &[])?;
    let mut client = cured.client()?;
    client.ask(b"Simple is better than?Beautiful is better than?", b"complex.ugly.")?;
    client.ask(b"Simple is better than?\n", b"complex.")?;
    client.ask(&[b'x'; 257], b"Error: question too long.")?;
    notes.saw("zen-single: two answers; the newline is nothing; the 257th byte is too long");
    drop(client);
    for (case, rule) in [("two-in-one-segment", 2), ("white-space-before", 3), ("257-without-mark", 5)] {
        // The exhibit serves one at a time: a judge that has given up must have gone.
        notes.saw(judged(&faulty, &cured, case, rule)?);
    }
    Ok(())
}

pub(super) const NO_FULL_STOP: Experiment = Experiment {
    name: "no-full-stop",
    claim: "An error answer is an answer, with or without its full stop.",
    question: "a client asks what nobody knows, and reads until the full stop. The server sends the error without one. Who ends it?",
    run: no_full_stop,
    why: "nobody: the client waits for the rest of the answer, the server for the next question. Each is right from where it stands. What an end is \
          must hold for every answer, errors first of all.",
    read: &["zen-single/examples/no_full_stop.rs", "zen-proto/src/aphorisms.rs"],
    is_alone: false,
};

fn no_full_stop(notes: &mut Notes) -> Result<()> {
    let faulty = exhibit("no_full_stop")?;
    let mut client = faulty.client()?;
    client.ask(APHORISMS[0].0, APHORISMS[0].1)?;
    client.ask(b"Complicated is better than?", b"Error: unknown aphorism")?;
    notes.doing("both wait");
    client.expect_silence(SHORT * 2)?;
    faulty.falls_asleep(PATIENCE)?;
    notes.saw("the error comes without its end: the client waits for more");
    notes.saw("the server sleeps in recv(): it waits for the client");
    drop(client);
    let cured = server("single", &["--question-timeout", "300ms", "--idle-timeout", "300ms"])?;
    let mut client = cured.client()?;
    client.ask(b"Complicated is better than?", b"Error: unknown aphorism.")?;
    client.expect_end().context("nor does it wait for ever")?;
    notes.saw("zen-single: the error has its full stop; and who says nothing more is let go after a while");
    notes.saw(judged(&faulty, &server("single", &[])?, "unknown-then-known", 4)?);
    Ok(())
}

pub(super) const LOST_ANSWER: Experiment = Experiment {
    name: "lost-answer",
    claim: "What has been sent before close() is delivered.",
    question: "a client asks 4,000 questions, then one that is too long, and goes on sending. The server sends 96,025 bytes of answers and closes. How many \
               arrive?",
    run: lost_answer,
    why: "send() hands bytes to the kernel. If something of the client is still unread at close(), the kernel resets the connection, and forgets \
          what it had yet to deliver. So: end the sending side, read the rest and throw it away, then close.",
    read: &["zen-single/examples/hasty_close.rs", "zen-single/src/serve.rs", "zen-proto/src/conversation.rs"],
    is_alone: false,
};

fn lost_answer(notes: &mut Notes) -> Result<()> {
    const QUESTIONS: usize = 4_000;
    const OWED: usize = QUESTIONS * "Error: unknown aphorism.".len() + "Error: question too long.".len();
    let received = |server: &Server| -> Result<(usize, Came)> {
        // A small window, so that most of the answers are still with the server's kernel.
        let mut client = Client::connect_with_buffer(server.address(), 4096)?;
        client.send(&[&[b'?'; QUESTIONS][..], &[b'x'; 400]].concat())?;
        // It may be reset by now.
        let _ = client.send(&[b'y'; 50_000]);
        thread::sleep(SHORT);
        let mut count = 0;
        loop {
            match client.read_some()? {
                Came::Bytes(bytes) => count += bytes.len(),
                end => return Ok((count, end)),
            }
        }
    };
    let faulty = exhibit("hasty_close")?;
    notes.doing("hasty close");
    let (arrived, end) = received(&faulty)?;
    notes.saw(format!("hasty_close: {arrived} of {OWED} bytes arrive, then {}", named(&end)));
    let cured = server("single", &[])?;
    notes.doing("lingering close");
    let (all, end_of_cured) = received(&cured)?;
    notes.saw(format!("zen-single: {all} of {OWED} bytes arrive, then {}", named(&end_of_cured)));
    ensure!(arrived < OWED / 2 && end == Came::Reset, "most was to be lost");
    ensure!(all == OWED && end_of_cured == Came::End, "nothing was to be lost");
    notes.saw(judged(&faulty, &cured, "too-long-keeps-coming", 8)?);
    Ok(())
}

fn named(end: &Came) -> &'static str {
    match end {
        Came::End => "end of file",
        Came::Reset => "a reset",
        Came::Bytes(_) | Came::Nothing => "nothing",
    }
}

/// Long enough to say that nothing comes.
const SHORT: Duration = Duration::from_millis(150);
