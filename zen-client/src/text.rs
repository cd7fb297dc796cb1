//! Lines of text: what goes into them, and where they go.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use anyhow::{Context, Result};

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

/// One line on `stdout`.
pub(crate) fn say(stdout: &mut impl Write, line: fmt::Arguments<'_>) -> Result<()> {
    writeln!(stdout, "{line}").context("cannot write to stdout")
}

/// True: `error` only means that nobody reads stdout any more, as in `zen-client | head -1`.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
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
