//! Splitting received bytes into lines.

/// The beginning of a line that has not been received in full. Of a line longer than [`MAX_LINE`] the beginning is
/// dropped, so the buffer has a bound.
#[derive(Debug, Default)]
pub(super) struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// Adds received bytes, and returns the lines that are complete now, without their ends.
    pub(super) fn add(&mut self, received: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(received);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else {
            if self.0.len() > MAX_LINE {
                self.0.clear();
            }
            return Vec::new();
        };
        let complete: Vec<u8> = self.0.drain(..=end).collect();
        complete[..end].split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

/// The length in bytes of the longest line. A report has some hundred bytes.
const MAX_LINE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_returned_when_its_end_is_received() {
        let mut buffer = LineBuffer::default();
        assert_eq!(buffer.add(b"one\n\ntw"), ["one", ""]);
        assert!(buffer.add(b"").is_empty());
        assert_eq!(buffer.add(b"o\n"), ["two"]);
    }

    #[test]
    fn a_line_without_an_end_is_dropped() {
        let mut buffer = LineBuffer::default();
        (0..100).for_each(|_| assert!(buffer.add(&[b'x'; MAX_LINE]).is_empty()));
        assert!(buffer.0.len() <= MAX_LINE);
        assert_eq!(buffer.add(b"x\nnext\n").last().map(String::as_str), Some("next"));
    }
}
