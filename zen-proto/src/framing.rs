//! Finds where questions begin and end in a stream of bytes, which TCP may cut anywhere.

/// The longest question that is answered, in bytes, its `?` included (rule 5).
pub const MAX_QUESTION: usize = 256;

/// A piece of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of a question whose end has not arrived yet.
    Data(&'a [u8]),
    /// The last piece of a question, its `?` included. A question that arrived whole has this piece only.
    Last(&'a [u8]),
}

/// The error of a question with more than [`MAX_QUESTION`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionTooLong;

/// Finds the questions in a stream of bytes. It stores no bytes, only the length of the current question.
#[derive(Debug, Default)]
pub struct Framing {
    /// The number of bytes of the current question so far. 0 means that none has begun.
    length: u16, // at most MAX_QUESTION; a small type, because every idle client has one
}

impl Framing {
    /// Returns the next piece at the beginning of `input`, and advances `input` past it. Returns `None` when nothing is
    /// left.
    ///
    /// # Errors
    ///
    /// The question is too long. In that case the rest of `input` is discarded.
    #[inline(always)]
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Option<Result<Frame<'i>, QuestionTooLong>> {
        if self.length == 0 {
            *input = skip_white_space(input);
        }
        if input.is_empty() {
            return None;
        }
        let room = MAX_QUESTION - usize::from(self.length);
        let within = &input[..input.len().min(room)];
        if let Some(end) = memchr::memchr(b'?', within) {
            let (last, rest) = input.split_at(end + 1);
            self.length = 0;
            *input = rest;
            return Some(Ok(Frame::Last(last)));
        }
        let data = std::mem::take(input);
        if data.len() > room {
            return Some(Err(QuestionTooLong));
        }
        self.length += data.len() as u16; // cannot overflow: data.len() <= room, so the sum is at most MAX_QUESTION
        Some(Ok(Frame::Data(data)))
    }
}

/// Skips the four white-space bytes of rule 3 and no others, so that people can type one question per line.
fn skip_white_space(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &bytes[begin.unwrap_or(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Framed<'a> = Result<Frame<'a>, QuestionTooLong>;

    fn frames<'a>(framing: &mut Framing, mut bytes: &'a [u8]) -> Vec<Framed<'a>> {
        std::iter::from_fn(|| framing.next(&mut bytes)).collect()
    }

    #[test]
    fn two_questions_and_the_beginning_of_a_third() {
        let mut framing = Framing::default();
        assert_eq!(
            frames(&mut framing, b"one?\r\n two?th"),
            [Ok(Frame::Last(b"one?")), Ok(Frame::Last(b"two?")), Ok(Frame::Data(b"th"))]
        );
        assert_eq!(frames(&mut framing, b" ree?"), [Ok(Frame::Last(b" ree?"))]);
    }

    #[test]
    fn the_end_may_be_byte_256_and_no_later() {
        let mut question = vec![b'x'; 255];
        question.push(b'?');
        assert_eq!(frames(&mut Framing::default(), &question), [Ok(Frame::Last(&question))]);
        question.insert(0, b'x');
        assert_eq!(frames(&mut Framing::default(), &question), [Err(QuestionTooLong)]);
    }

    #[test]
    fn a_question_without_end_is_too_long_at_byte_257() {
        let mut framing = Framing::default();
        assert_eq!(frames(&mut framing, &[b'x'; 256]), [Ok(Frame::Data(&[b'x'; 256]))]);
        assert_eq!(frames(&mut framing, b"?"), [Err(QuestionTooLong)]);
    }

    #[test]
    fn other_white_space_is_part_of_a_question() {
        assert_eq!(frames(&mut Framing::default(), b"\x0b?"), [Ok(Frame::Last(b"\x0b?"))]);
    }
}
