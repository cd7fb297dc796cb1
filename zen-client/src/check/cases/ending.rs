//! Rules 5, 6 and 8: how a conversation ends.

use crate::check::bytes::{COMPLEX, SIMPLE, TOO_LONG, UGLY, UNKNOWN, many};
use crate::check::client::{Mismatch, Outcome, Target};

pub(super) fn question_of_256(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(&question_of(256), UNKNOWN)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn question_of_257(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(&question_of(257), TOO_LONG)?;
    client.expect_end()
}

pub(super) fn too_long_without_mark(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(&[b'x'; 257], TOO_LONG)?;
    client.expect_end()
}

pub(super) fn too_long_after_known(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(&[SIMPLE, &[b'x'; 257]].concat(), b"complex.Error: question too long.")?;
    client.expect_end()
}

pub(super) fn cut_short_at_256(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.send(&[b'x'; 256])?;
    client.end_sending();
    client.expect_end()
}

pub(super) fn half_close_after_questions(server: &Target) -> Outcome {
    for n in [1, 10, 1_000] {
        let (questions, answers) = many(n);
        let mut client = server.connect()?;
        client.send(&questions)?;
        client.end_sending();
        let with_n = |mismatch: Mismatch| mismatch.when(&format!("to {n} questions and end of file"));
        client.expect(&answers).map_err(with_n)?;
        client.expect_end().map_err(with_n)?;
    }
    Ok(())
}

pub(super) fn half_close_at_once(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.end_sending();
    client.expect_end()
}

pub(super) fn half_close_cut_short(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.send(b"Beautiful is better than")?;
    client.end_sending();
    client.expect_end()
}

pub(super) fn half_close_behind_whole(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.send(b"Beautiful is better than?Explicit is")?;
    client.end_sending();
    client.expect(UGLY)?;
    client.expect_end()
}

pub(super) fn too_long_keeps_coming(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    // A server that closes with bytes unread resets, and the reset may overtake the error. By rule 8 it reads 64 KiB
    // more.
    client.exchange(&[b'x'; 40_257], TOO_LONG)?;
    client.expect_end()?;
    client.expect_no_reset()
}

/// Returns an unknown question of `n` bytes, its ? included.
fn question_of(n: usize) -> Vec<u8> {
    let mut question = vec![b'x'; n];
    question[n - 1] = b'?';
    question
}
