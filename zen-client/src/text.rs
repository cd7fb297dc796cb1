//! Lines of text: escaping, and writing to the standard streams.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

/// The most bytes from the network that one line shows.
const SHOWN: usize = 64;

/// Returns `bytes` in quotes, escaped, and cut if they are long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    format!("\"{}\"… ({} bytes)", bytes[..SHOWN].escape_ascii(), bytes.len())
}

/// Escapes control characters, so that the text stays one line and cannot control a terminal.
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

/// A standard stream whose writes wait for room. A parent such as Node may have made it non-blocking.
pub(crate) struct BlockingWriter<S>(pub(crate) S);

impl<S: AsFd> Write for BlockingWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                // An error of the stream ends the wait as well, and the next write returns it.
                Err(Errno::AGAIN) => {
                    retry_on_intr(|| poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None))?;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Returns immediately, because nothing is buffered.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns standard output.
pub(crate) fn stdout() -> impl Write {
    BlockingWriter(io::stdout())
}

/// Writes one line to `stdout`.
pub(crate) fn print(stdout: &mut impl Write, line: fmt::Arguments<'_>) -> Result<()> {
    stdout.write_all(format!("{line}\n").as_bytes()).context("cannot write to stdout")
}

/// Returns whether `error` only means that stdout is closed, as in `zen-client | head -1`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints one line on stderr. If that is closed, the line is lost.
pub(crate) fn print_error(line: &str) {
    let _ = BlockingWriter(io::stderr()).write_all(format!("{}\n", printable(line)).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stream_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        // More than a pipe holds.
        let sent = vec![b'x'; 1 << 20];
        let expected = sent.clone();
        let write = thread::spawn(move || BlockingWriter(writer).write_all(&sent));
        thread::sleep(Duration::from_millis(50));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        write.join().unwrap().unwrap();
        assert!(received == expected, "{} bytes", received.len());
    }

    #[test]
    fn foreign_bytes_are_escaped_and_cut() {
        assert_eq!(quoted(b"ugly.\n\xff"), r#""ugly.\n\xff""#);
        assert_eq!(quoted(&[b'x'; 65]), format!("\"{}\"… (65 bytes)", "x".repeat(64)));
        assert_eq!(printable("a\u{1b}[31m\nb"), r"a\u{1b}[31m\nb");
    }
}
