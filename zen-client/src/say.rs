//! `zen-client say`: sends any bytes, and prints what the server sends.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::connect::{Addresses, read_before};
use crate::options::{Server, duration};
use crate::text;

/// The options of `zen-client say`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The bytes to send, with the escapes of C (\n \r \t \0 \\ \x3f \077 and the like); - sends stdin as it is. Before
    /// a TEXT that begins with - write --
    #[arg(value_name = "TEXT", value_parser = OsStringValueParser::new().try_map(source))]
    source: Source,
    #[command(flatten)]
    server: Server,
    /// The longest wait for the address of a name, for a connection to each, and for the server's end of file, such as
    /// 10s or 500ms [default: 0, wait for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// The source of the bytes.
#[derive(Debug, Clone)]
enum Source {
    Text(Vec<u8>),
    Stdin,
}

/// Sends the text, shuts down the sending side, and prints what arrives until the server's end of file.
pub(crate) fn say(options: &Options) -> Result<ExitCode> {
    let timeout = options.timeout.filter(|timeout| !timeout.is_zero());
    let (stream, peer) = Addresses::resolve(&options.server, timeout)?.connect(timeout)?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (source, sending) = (options.source.clone(), stream.try_clone().context("cannot send")?);
    let (sender, sent) = mpsc::channel();
    // A server with pending answers may stop reading (rule 2), so sending and reading happen at the same time.
    let send_all = move || sender.send(send(source, &sending));
    thread::Builder::new().name("send".to_owned()).spawn(send_all).context("cannot start a thread")?;
    let mut stdout = text::stdout();
    let mut chunk = [0; CHUNK];
    let error = loop {
        match read_before(&stream, deadline, &mut chunk) {
            // The kernel reports a reset only once: if the sender got it, the read returns end of file.
            Ok(0) => match sent.recv_timeout(RESET_WAIT) {
                Ok(Err(error)) => break error,
                _ => return Ok(ExitCode::SUCCESS),
            },
            Ok(n) => stdout.write_all(&chunk[..n]).context("cannot write to stdout")?,
            Err(error) => break error,
        }
    };
    match error.kind() {
        io::ErrorKind::TimedOut if timeout.is_some() => {
            let timeout = humantime::format_duration(timeout.unwrap_or_default());
            bail!("{peer} did not end the conversation within {timeout}: try a longer --timeout")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => bail!("{peer} reset the conversation"),
        _ => Err(error).context(format!("the conversation with {peer} broke off")),
    }
}

/// Sends everything, and then shuts down the sending side.
fn send(source: Source, mut stream: &TcpStream) -> io::Result<()> {
    match source {
        Source::Text(text) => stream.write_all(&text)?,
        Source::Stdin => io::copy(&mut io::stdin(), &mut stream).map(|_| ())?,
    }
    // Fails only if the server has reset the connection, which the next read shows better.
    let _ = stream.shutdown(Shutdown::Write);
    Ok(())
}

/// Bytes of one read.
const CHUNK: usize = 16_384;
/// The time in which the sender reports a reset.
const RESET_WAIT: Duration = Duration::from_millis(50);

/// Parses TEXT.
fn source(text: OsString) -> Result<Source, String> {
    if text == "-" { Ok(Source::Stdin) } else { unescaped(text.as_bytes()).map(Source::Text) }
}

/// Replaces the escapes of C by their bytes.
fn unescaped(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, length) = escape(rest).ok_or_else(|| {
            let shown = rest[..rest.len().min(3)].escape_ascii();
            format!(
                "'\\{shown}' is no escape of C: write \\n, \\r, \\t, \\0, \\\\, \\x and two hexadecimal digits, or \\ \
                 and octal ones"
            )
        })?;
        bytes.push(byte);
        rest = &rest[length..];
    }
    Ok(bytes)
}

/// Returns the byte of an escape, and the length of the escape, both without its backslash.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    let byte = match text.first()? {
        b'a' => 0x07,
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        mark @ (b'\\' | b'\'' | b'"' | b'?') => *mark,
        b'x' => return Some((number(text.get(1..3)?, 16)?, 3)),
        _ => {
            let length = text.iter().take(3).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
            return Some((number(&text[..length], 8)?, length));
        }
    };
    Some((byte, 1))
}

/// Parses a number with these digits.
fn number(digits: &[u8], radix: u32) -> Option<u8> {
    // A sign is no digit.
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u8::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_c() {
        for (text, bytes) in [
            (r"Simple is better than?", &b"Simple is better than?"[..]),
            (r"\a\b\t\n\v\f\r", b"\x07\x08\t\n\x0b\x0c\r"),
            (r#"\\\'\"\?"#, br#"\'"?"#),
            (r"\0\x00\x3f\x3F\xff", b"\0\0??\xff"),
            (r"\1012\77\377\08", b"A2?\xff\x008"),
            ("ü", "ü".as_bytes()),
            ("", b""),
        ] {
            assert_eq!(unescaped(text.as_bytes()).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn any_other_escape_is_refused() {
        for text in [r"\", r"a\", r"\q", r"\N", r"\x", r"\x4", r"\xg0", r"\x+1", r"\400", r"\9", r"\é", r"\ "] {
            let refusal = unescaped(text.as_bytes()).unwrap_err();
            assert!(refusal.contains("is no escape of C: "), "{text}: {refusal}");
        }
    }
}
