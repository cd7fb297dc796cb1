//! Where a question begins and ends: bytes in, pieces of questions out, however TCP cut the stream.

/// The longest question that is answered, in bytes, its `?` included.
pub const MAX_QUESTION: usize = 256;

/// A piece of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A part of a question whose end has not come yet.
    Data(&'a [u8]),
    /// The last part of a question, its `?` included. A question that came whole is this alone.
    Last(&'a [u8]),
    /// Byte [`MAX_QUESTION`]` + 1` of a question has come. What follows is not looked at.
    TooLong,
}

/// Finds the questions in a stream of bytes. Holds none of them: only how long the present one is.
#[derive(Debug, Default)]
pub struct Framing {
    /// Bytes of the present question so far; 0: none has begun.
    length: u16, // at most MAX_QUESTION; small, as every idle client has one
}

impl Framing {
    /// Takes the next piece off the front of `bytes`; `None` when nothing is left there.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
        if self.length == 0 {
            *bytes = skip_white_space(bytes);
        }
        if bytes.is_empty() {
            return None;
        }
        let room = MAX_QUESTION - usize::from(self.length);
        let within = &bytes[..bytes.len().min(room)];
        if let Some(end) = memchr::memchr(b'?', within) {
            let (last, rest) = bytes.split_at(end + 1);
            self.length = 0;
            *bytes = rest;
            return Some(Frame::Last(last));
        }
        let data = std::mem::take(bytes);
        if data.len() > room {
            return Some(Frame::TooLong);
        }
        self.length += data.len() as u16; // it fits: it is within the room
        Some(Frame::Data(data))
    }
}

/// Exactly these four, so that people can type questions line by line with `nc`.
fn skip_white_space(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &bytes[begin.unwrap_or(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames<'a>(framing: &mut Framing, mut bytes: &'a [u8]) -> Vec<Frame<'a>> {
        std::iter::from_fn(|| framing.next(&mut bytes)).collect()
    }

    #[test]
    fn two_questions_and_the_beginning_of_a_third() {
        let mut framing = Framing::default();
        assert_eq!(
            frames(&mut framing, b"one?\r\n two?th"),
            [Frame::Last(b"one?"), Frame::Last(b"two?"), Frame::Data(b"th")]
        );
        assert_eq!(frames(&mut framing, b" ree?"), [Frame::Last(b" ree?")]);
    }

    #[test]
    fn the_end_may_be_byte_256_and_no_later() {
        let mut question = vec![b'x'; 255];
        question.push(b'?');
        assert_eq!(frames(&mut Framing::default(), &question), [Frame::Last(&question)]);
        question.insert(0, b'x');
        assert_eq!(frames(&mut Framing::default(), &question), [Frame::TooLong]);
    }

    #[test]
    fn bytes_without_an_end_are_a_slow_question_until_one_too_many() {
        let mut framing = Framing::default();
        assert_eq!(frames(&mut framing, &[b'x'; 256]), [Frame::Data(&[b'x'; 256])]);
        assert_eq!(frames(&mut framing, b"?"), [Frame::TooLong]);
    }

    #[test]
    fn other_white_space_is_part_of_a_question() {
        assert_eq!(frames(&mut Framing::default(), b"\x0b?"), [Frame::Last(b"\x0b?")]);
    }
}
