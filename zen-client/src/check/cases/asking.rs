//! Rules 1 to 4: questions in every shape, and their answers.

use std::thread;
use std::time::Duration;

use crate::check::bytes::{
    BEAUTIFUL, COMPLEX, EXPLICIT, IMPLICIT, SIMPLE, THREE_ANSWERS, THREE_QUESTIONS, UGLY, UNKNOWN, many,
};
use crate::check::client::{Outcome, Target};
use crate::text::quoted;

/// The pause between two sends, so that the server usually reads them separately. Nothing can force it to, and its
/// answer must be the same.
const APART: Duration = Duration::from_millis(1);

pub(super) fn known_questions(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(BEAUTIFUL, UGLY)?;
    client.exchange(EXPLICIT, IMPLICIT)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn unknown_then_known(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(b"Complicated is better than?", UNKNOWN)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn near_misses(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    let questions: [&[u8]; 5] =
        [b"?", b"simple is better than?", b"Simple is better than ?", b"Simple  is better than?", b"is better than?"];
    for question in questions {
        client.exchange(question, UNKNOWN).map_err(|mismatch| mismatch.when(&format!("to {}", quoted(question))))?;
    }
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn any_bytes(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    // NUL, escapes, invalid UTF-8: with the ? at its end this is a question of the greatest length.
    let mut question: Vec<u8> = (0..=255).filter(|byte| *byte != b'?').collect();
    question.push(b'?');
    client.exchange(&question, UNKNOWN)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn one_byte_at_a_time(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    for byte in THREE_QUESTIONS {
        client.send(&[*byte])?;
        thread::sleep(APART);
    }
    client.expect(THREE_ANSWERS)
}

pub(super) fn cut_everywhere(server: &Target) -> Outcome {
    for cut in 1..THREE_QUESTIONS.len() {
        let mut client = server.connect()?;
        let (first, second) = THREE_QUESTIONS.split_at(cut);
        client.send(first)?;
        thread::sleep(APART);
        client
            .exchange(second, THREE_ANSWERS)
            .map_err(|mismatch| mismatch.when(&format!("with a cut at byte {cut}")))?;
    }
    Ok(())
}

pub(super) fn two_in_one_segment(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(b"Simple is better than?Beautiful is better than?", b"complex.ugly.")?;
    client.exchange(EXPLICIT, IMPLICIT)
}

pub(super) fn thousand_in_one_send(server: &Target) -> Outcome {
    let (questions, answers) = many(1_000);
    let mut client = server.connect()?;
    client.exchange(&questions, &answers)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn bare_question_marks(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(&[b'?'; 65_536], &UNKNOWN.repeat(65_536))?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn whole_then_part(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(b"Beautiful is better than?Explicit is", UGLY)?;
    client.exchange(b" better than?Simple", IMPLICIT)?;
    client.exchange(b" is better than?", COMPLEX)
}

pub(super) fn white_space_before(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.exchange(b" \t\r\nBeautiful is better than?", UGLY)?;
    client.exchange(b"\r\n\r\nExplicit is better than?\n", IMPLICIT)?;
    client.send(b"\n")?;
    thread::sleep(APART);
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn white_space_does_not_count(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    let questions = [&b" \t\r\n".repeat(75)[..], &[b'x'; 255], b"?"].concat();
    client.exchange(&questions, UNKNOWN)?;
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn other_blanks_count(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    for blank in [b"\x0b", b"\x0c", b"\x00", b"\x1c", b"\x85", b"\xa0"] {
        let question = [blank, SIMPLE].concat();
        client.exchange(&question, UNKNOWN).map_err(|mismatch| mismatch.when(&format!("to {}", quoted(&question))))?;
    }
    client.exchange(SIMPLE, COMPLEX)
}

pub(super) fn white_space_alone(server: &Target) -> Outcome {
    let mut client = server.connect()?;
    client.send(b" \t\r\n")?;
    client.end_sending();
    client.expect_end()
}
