//! Clients that speak another protocol, or send too much of this one.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{everywhere, expect_closed_in_time, expect_idle, handful, with_honest_client};
use crate::harness::client::{APHORISMS, Received};
use crate::harness::{WAIT_LIMIT, shown, wait_for};
use crate::matrix::{Case, Ctx, case};

pub(crate) const CASES: &[Case] = &[
    everywhere(case("too_long_behind_a_good_question", too_long_behind_a_good_question)),
    everywhere(case("too_long_then_silence", too_long_then_silence)),
    everywhere(case("endless_question", endless_question)),
    everywhere(case("control_bytes", control_bytes).arguments(&["-vv"])),
    everywhere(case("http_request", http_request).arguments(SLOW_ARGUMENTS)),
    everywhere(case("tls_hello", tls_hello).arguments(SLOW_ARGUMENTS)),
    everywhere(case("urgent_data", urgent_data)),
];

/// The client receives the answer, the error and end of file, without a reset, even if much is left unread (rules 5 and
/// 8).
fn too_long_behind_a_good_question(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, LINGER, || {
        for too_much in [257, 4096, 60_000] {
            let mut client = ctx.client()?;
            client.send(&[b"Simple is better than?", &vec![b'x'; too_much][..]].concat())?;
            client.expect(b"complex.Error: question too long.").with_context(|| format!("{too_much} bytes"))?;
            client.expect_end().with_context(|| format!("{too_much} bytes"))?;
        }
        Ok(())
    })
}

/// A client that stays connected after a question that is too long is disconnected after 1 s (rule 8).
fn too_long_then_silence(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().descriptors;
    let start = Instant::now();
    let mut clients = ctx.server.clients(handful(ctx.entry))?;
    for client in &mut clients {
        client.send(&[b'x'; 257])?;
        client.expect(TOO_LONG)?;
        client.expect_end()?;
    }
    let closed = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
    closed.context("the server keeps clients whose question was too long")?;
    expect_closed_in_time(start.elapsed(), LINGER, 1)
}

/// A client that sends without end and never reads receives one error, and is disconnected after 64 KiB or 1 s (rule
/// 8).
fn endless_question(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, LINGER, || {
        let mut client = ctx.client()?;
        let start = Instant::now();
        let mut sent = 0;
        // A failed write: the server has closed.
        while let Ok(n) = client.stream().write(&[b'x'; 4096]) {
            sent += n;
            ensure!(sent <= ENDLESS, "the server has taken {sent} bytes of one question");
        }
        let after = start.elapsed();
        ensure!(after <= LINGER + super::TOLERANCE, "it could send for {after:?}");
        // Bytes that arrived before the reset can still be read, though not on every system.
        match client.read_some()? {
            Received::Bytes(bytes) => ensure!(bytes == TOO_LONG, "received {}", shown(&bytes)),
            Received::Reset => {}
            received => bail!("received {received:?}"),
        }
        Ok(())
    })
}

/// Questions of control bytes are questions; the log has them escaped and cut to 64 bytes.
fn control_bytes(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 0, Duration::ZERO, || {
        let mut client = ctx.client()?;
        for hostile in HOSTILE_BYTES {
            client.ask(&[hostile, b"?"].concat(), b"Error: unknown aphorism.").with_context(|| shown(hostile))?;
            client.ask_all()?;
        }
        drop(client);
        for hostile in HOSTILE_BYTES {
            // Cut short, a question is dropped and logged.
            let mut client = ctx.client()?;
            client.send(hostile)?;
            client.end_sending()?;
            client.expect_end()?;
            let line = format!("question cut short: \"{}\"\n", hostile.escape_ascii());
            ctx.server.logs(&line)?;
        }
        let mut client = ctx.client()?;
        client.send(&[7; 200])?;
        client.end_sending()?;
        client.expect_end()?;
        ctx.server.logs(&format!("question cut short: \"{}\"…\n", r"\x07".repeat(64)))
    })?;
    let log = ctx.server.log();
    let is_plain = |c: char| matches!(c, ' '..='~' | '\n' | '…');
    ensure!(log.chars().all(is_plain), "the log has characters that are not escaped");
    ensure!(!log.lines().any(|line| line.starts_with("error: ")), "a client has written a line of the log");
    Ok(())
}

/// An HTTP request without a `?` is a question that never ends, so the question timeout closes it. One with a `?` is
/// answered with the error of the protocol. A long one is a question that is too long.
fn http_request(ctx: &mut Ctx) -> Result<()> {
    let head = "Host: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
    with_honest_client(ctx, 3, SLOW, || {
        is_too_slow(ctx, format!("GET / HTTP/1.1\r\n{head}").as_bytes(), b"")?;
        is_too_slow(ctx, format!("GET /?q=zen HTTP/1.1\r\n{head}").as_bytes(), b"Error: unknown aphorism.")?;
        let mut client = ctx.client()?;
        client.send(format!("POST / HTTP/1.1\r\n{head}{}", "zen=".repeat(100)).as_bytes())?;
        client.expect(TOO_LONG)?;
        client.expect_end()
    })
}

/// A short TLS hello is a question that never ends; a hello of the usual size is a question that is too long.
fn tls_hello(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 2, SLOW, || {
        is_too_slow(ctx, &hello(180), b"")?;
        let mut client = ctx.client()?;
        client.send(&hello(517))?;
        client.expect(TOO_LONG)?;
        client.expect_end()
    })
}

/// Urgent data does not make a server spin, and an urgent space before a question is white space.
fn urgent_data(ctx: &mut Ctx) -> Result<()> {
    let mut clients = ctx.server.clients(handful(ctx.entry))?;
    for client in &mut clients {
        client.ask_all()?;
        client.send_urgent(b" ")?;
    }
    // From now on a poller reports the socket as ready, although there may be nothing to read.
    expect_idle(ctx).context("after urgent data")?;
    for client in &mut clients {
        client.ask_all().context("after urgent data")?;
    }
    drop(clients);
    with_honest_client(ctx, 0, Duration::ZERO, || {
        for (question, answer) in APHORISMS {
            let mut client = ctx.client()?;
            for _ in 0..10 {
                client.send_urgent(b" ")?;
                client.ask(question, answer)?;
            }
            client.send_urgent(b" ")?;
            client.reset()?;
        }
        Ok(())
    })
}

/// Sends these bytes, expects `answer`, and then the close at the question timeout.
fn is_too_slow(ctx: &Ctx, bytes: &[u8], answer: &[u8]) -> Result<()> {
    let mut client = ctx.client()?;
    let start = Instant::now();
    client.send(bytes)?;
    client.expect(answer)?;
    client.expect_end()?;
    expect_closed_in_time(start.elapsed(), SLOW, 1)
}

/// Returns the beginning of a TLS 1.3 ClientHello, padded to `length` bytes. It has no `?`.
fn hello(length: u16) -> Vec<u8> {
    let [[record_high, record_low], [high, low]] = [length - 5, length - 9].map(u16::to_be_bytes);
    let mut hello = vec![0x16, 3, 1, record_high, record_low, 1, 0, high, low, 3, 3];
    hello.resize(length.into(), 0xA5);
    hello
}

/// Bytes that confuse a terminal, a log reader, a C string or a decoder.
const HOSTILE_BYTES: [&[u8]; 6] = [
    b"\x1b[2J\x1b]0;owned\x07\x1b[31mred",
    b"one\nerror: two\r\nthree",
    b"nul\0nul",
    b"\xff\xfe\xc3\x28\xe2\x82\xf0\x9f invalid",
    "\u{202e}right to left\u{85}\u{9b}2J".as_bytes(),
    b"\"quoted\\ and \x7f deleted",
];

const TOO_LONG: &[u8] = b"Error: question too long.";

/// The lingering close of rule 8.
const LINGER: Duration = Duration::from_secs(1);

/// More than 64 KiB and all that the two kernels buffer.
const ENDLESS: usize = 16 << 20;

/// The `--question-timeout` of some cases.
const SLOW: Duration = Duration::from_millis(300);
const SLOW_ARGUMENTS: &[&str] = &["--question-timeout", "300ms"];
