//! A server that keeps the protocol, or that breaks it in one known way.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// A fault of a server. Each of them has occurred in a real server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Takes the buffer for one question as soon as it ends in `?`, as `recv_until` of
    /// *Foundations of Python Network Programming* does.
    FramesByLastByte,
    /// Takes what one read brought for one question.
    FramesByRead,
    /// A published version of the server left out this full stop.
    ErrorWithoutFullStop,
    /// Answers what one read brought in the wrong order.
    AnswersLastFirst,
    /// Answers the first question of a read and forgets the rest.
    DropsPipelined,
    AnswersTwice,
    NeverAnswers,
    NeverStopsAnswering,
    IgnoresCase,
    /// `str::trim` instead of four bytes.
    TrimsUnicode,
    KeepsWhiteSpace,
    CountsWhiteSpace,
    /// Ends the conversation after an unknown question.
    ClosesAfterUnknown,
    NoLimit,
    /// Notices that a question is too long only at its `?`.
    LimitOnlyAtMark,
    /// Accepts 256 bytes before the `?`.
    LimitExcludesMark,
    /// Forgets pending answers when the next question is too long.
    TooLongForgetsAnswers,
    StaysAfterTooLong,
    ResetsAfterTooLong,
    /// Closes with bytes unread, which makes the kernel reset.
    ClosesUnread,
    /// Closes with bytes unread after it has sent an end of file.
    ClosesUnreadAfterShutdown,
    /// Looks for the end of file before it answers.
    ClosesAtHalfClose,
    AnswersWhatIsCutShort,
    StaysAfterEndOfFile,
    /// Ends for good when a client resets.
    DiesOfReset,
}

/// Serves one client; an error is the end of that client.
pub(crate) fn converse(stream: &mut TcpStream, fault: Fault) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return farewell(stream, &buffer, fault);
        }
        if fault == Fault::FramesByRead {
            buffer.clear();
        }
        buffer.extend_from_slice(&chunk[..n]);
        let (mut answers, is_too_long) = take_answers(&mut buffer, fault);
        match fault {
            Fault::AnswersLastFirst => answers.reverse(),
            Fault::DropsPipelined => answers.truncate(1),
            Fault::AnswersTwice => answers = answers.iter().flat_map(|answer| [*answer; 2]).collect(),
            Fault::NeverAnswers => answers.clear(),
            Fault::ClosesAtHalfClose if ends(stream)? => return Ok(()),
            Fault::TooLongForgetsAnswers if is_too_long => answers.clear(),
            _ => {}
        }
        let closes = fault == Fault::ClosesAfterUnknown && answers.last() == Some(&UNKNOWN);
        while fault == Fault::NeverStopsAnswering && !answers.is_empty() {
            stream.write_all(b"ugly ugly ")?;
        }
        stream.write_all(&answers.concat())?;
        if is_too_long && fault != Fault::NeverAnswers {
            stream.write_all(TOO_LONG)?;
        }
        if is_too_long && fault != Fault::StaysAfterTooLong {
            return hang_up(stream, fault);
        }
        if closes {
            return Ok(());
        }
    }
}

const UNKNOWN: &[u8] = b"Error: unknown aphorism.";
const TOO_LONG: &[u8] = b"Error: question too long.";

/// Removes the whole questions from `buffer`. Returns their answers, and whether what follows is too long.
fn take_answers(buffer: &mut Vec<u8>, fault: Fault) -> (Vec<&'static [u8]>, bool) {
    let limit = match fault {
        Fault::NoLimit => usize::MAX,
        Fault::LimitExcludesMark => 257,
        _ => 256,
    };
    let mut answers = Vec::new();
    loop {
        let blanks = blanks_before(buffer, fault);
        if fault == Fault::CountsWhiteSpace && blanks > limit {
            return (answers, true);
        }
        buffer.drain(..blanks);
        let mark = match fault {
            Fault::FramesByLastByte => buffer.ends_with(b"?").then(|| buffer.len() - 1),
            Fault::FramesByRead => buffer.len().checked_sub(1),
            _ => buffer.iter().position(|byte| *byte == b'?'),
        };
        match mark {
            Some(mark) if mark < limit => {
                let question: Vec<u8> = buffer.drain(..=mark).collect();
                answers.push(answer_to(&question, fault));
            }
            None if buffer.len() <= limit || fault == Fault::LimitOnlyAtMark => return (answers, false),
            _ => return (answers, true),
        }
    }
}

fn blanks_before(buffer: &[u8], fault: Fault) -> usize {
    let is_blank = |byte: &&u8| match fault {
        Fault::KeepsWhiteSpace => false,
        Fault::TrimsUnicode => matches!(byte, b'\t'..=b'\r' | b' ' | 0x85 | 0xa0),
        _ => b" \t\r\n".contains(byte),
    };
    buffer.iter().take_while(is_blank).count()
}

fn answer_to(question: &[u8], fault: Fault) -> &'static [u8] {
    let known: [(&[u8], &[u8]); 3] = [
        (b"Beautiful is better than?", b"ugly."),
        (b"Explicit is better than?", b"implicit."),
        (b"Simple is better than?", b"complex."),
    ];
    let is_asked = |(known, _): &&(&[u8], &[u8])| match fault {
        Fault::IgnoresCase => question.eq_ignore_ascii_case(known),
        _ => question == *known,
    };
    let unknown = if fault == Fault::ErrorWithoutFullStop { &UNKNOWN[..UNKNOWN.len() - 1] } else { UNKNOWN };
    known.iter().find(is_asked).map_or(unknown, |(_, answer)| answer)
}

/// Handles the client's end of file, with the fault.
fn farewell(stream: &mut TcpStream, buffer: &[u8], fault: Fault) -> io::Result<()> {
    match fault {
        Fault::AnswersWhatIsCutShort if !buffer.is_empty() => stream.write_all(UNKNOWN),
        Fault::StaysAfterEndOfFile => {
            thread::sleep(Duration::from_secs(2));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Closes by rule 8, or with the fault.
fn hang_up(stream: &mut TcpStream, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::ResetsAfterTooLong => return SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
        Fault::ClosesUnread => return Ok(()),
        _ => {}
    }
    stream.shutdown(Shutdown::Write)?;
    if fault == Fault::ClosesUnreadAfterShutdown {
        return Ok(());
    }
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(&mut stream.take(65_536), &mut io::sink()).map(|_| ())
}

/// Returns whether an end of file is the next thing to read.
fn ends(stream: &TcpStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(5)))?;
    let end = stream.peek(&mut [0]).is_ok_and(|n| n == 0);
    stream.set_read_timeout(None)?;
    Ok(end)
}
