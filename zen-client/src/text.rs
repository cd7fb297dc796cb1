//! Foreign bytes made fit for one line of text.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// The most bytes of the network that one line shows.
const SHOWN: usize = 64;

/// `bytes` in quotes, escaped, cut where they are long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    format!("\"{}\"… ({} bytes)", bytes[..SHOWN].escape_ascii(), bytes.len())
}

/// `text` without control characters, so that it stays one line and cannot steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// One line on stderr. If that is closed there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_are_escaped_and_cut() {
        assert_eq!(quoted(b"ugly.\n\xff"), r#""ugly.\n\xff""#);
        assert_eq!(quoted(&[b'x'; 65]), format!("\"{}\"… (65 bytes)", "x".repeat(64)));
        assert_eq!(printable("a\u{1b}[31m\nb"), r"a\u{1b}[31m\nb");
    }
}
