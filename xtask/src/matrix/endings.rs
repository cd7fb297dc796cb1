//! The table of endings: for each cause, what the client receives, how the connection ends, what is logged and counted.
//!
//! Each row is a case, which is compared with a server, and with the tables in the docs and READMEs.

mod clients;
mod tables;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use self::clients::{Subject, asked, asked_then_ended, drained, grace_over, never_reading, over_the_limit, reset};
use super::lifecycle::expect_reset_unread;
use super::{Ctx, ended};
use crate::harness::client::Client;
use crate::harness::metrics::scrape;
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;

const ROWS: &[Row] = &[
    Row {
        cause: "client's end of file",
        name: "end_of_file",
        act: |ctx| asked_then_ended(ctx, b"Simple is better than?"),
        receives: "all answers",
        bytes: b"complex.",
        then: Then::Close,
        log: &[Line { is_verbose: true, ..line("closed: finished") }],
        counter: Some(r#"zen_connections_closed_total{reason="finished"}"#),
        ..ROW
    },
    Row {
        cause: "end of file within a question",
        name: "cut_short",
        act: |ctx| asked_then_ended(ctx, b"Simple is better than?Expl"),
        receives: "answers to whole questions",
        bytes: b"complex.",
        then: Then::Close,
        log: &[line(r#"closed: question cut short: "…""#)],
        counter: Some(r#"zen_connections_closed_total{reason="cut_short"}"#),
        ..ROW
    },
    Row {
        cause: "question too long",
        name: "too_long",
        act: |ctx| asked(ctx, &[b"Simple is better than?", &[b'x'; 257][..]].concat()),
        receives: "pending answers, `Error: question too long.`",
        bytes: b"complex.Error: question too long.",
        then: Then::LingeringClose,
        log: &[line("closed: question too long")],
        counter: Some(r#"zen_connections_closed_total{reason="too_long"}"#),
        ..ROW
    },
    Row {
        cause: "idle timeout",
        name: "idle_timeout",
        arguments: &["--idle-timeout", "400ms"],
        act: |ctx| asked(ctx, b""),
        receives: "nothing",
        then: Then::Close,
        log: &[line("closed: idle timeout")],
        counter: Some(r#"zen_connections_closed_total{reason="idle"}"#),
        ..ROW
    },
    Row {
        cause: "question timeout",
        name: "question_timeout",
        arguments: &["--question-timeout", "400ms"],
        act: |ctx| asked(ctx, b"Expl"),
        receives: "nothing",
        then: Then::Close,
        log: &[line(r#"closed: question timeout: "…""#)],
        counter: Some(r#"zen_connections_closed_total{reason="too_slow"}"#),
        ..ROW
    },
    Row {
        cause: "answers not read within the question timeout",
        name: "answers_not_read",
        arguments: &["--question-timeout", "400ms"],
        act: |ctx| Subject::of(never_reading(ctx)?),
        then: Then::Reset,
        log: &[line("reset: answers not read")],
        counter: Some(r#"zen_connections_closed_total{reason="not_reading"}"#),
        ..ROW
    },
    Row {
        cause: "answer failed (panic)",
        name: "answer_failed",
        arguments: &["--panic-on", "Who panics?"],
        act: |ctx| asked(ctx, b"Simple is better than?Who panics?Simple is better than?"),
        receives: "answers before it",
        bytes: b"complex.",
        then: Then::LingeringClose,
        log: &[
            Line { has_address: false, ..line("panicked at …") },
            Line { is_verbose: true, ..line("closed: answer failed") },
        ],
        counter: Some(r#"zen_connections_closed_total{reason="failed"}"#),
        ..ROW
    },
    Row {
        cause: "draining",
        name: "draining",
        act: |ctx| drained(ctx, b"Simple is better than?Expl"),
        receives: "answers to whole questions",
        bytes: b"complex.",
        then: Then::LingeringClose,
        log: &[Line { is_verbose: true, ..line("closed: drained") }],
        counter: Some(r#"zen_connections_closed_total{reason="drained"}"#),
        ..ROW
    },
    Row {
        cause: "draining, before the client has asked",
        name: "draining_a_silent_client",
        act: |ctx| drained(ctx, b""),
        receives: "nothing",
        then: Then::Close,
        log: &[Line { is_verbose: true, ..line("closed: drained") }],
        counter: Some(r#"zen_connections_closed_total{reason="drained"}"#),
        ..ROW
    },
    Row {
        cause: "`--grace` over",
        name: "grace_over",
        arguments: &["--grace", "300ms", "--delay", "60s"],
        act: grace_over,
        then: Then::Reset,
        log: &[Line { has_address: false, ..line("--grace is over: … clients are reset") }],
        ..ROW
    },
    Row {
        cause: "over the limit",
        name: "over_the_limit",
        applies: |entry| !entry.is_example && !entry.makes_clients_wait(),
        arguments: &["--max-connections", "1"],
        act: over_the_limit,
        receives: "`Error: too many clients.`",
        bytes: b"Error: too many clients.",
        then: Then::Close,
        log: &[line("rejected: … clients are connected (--max-connections)")],
        counter: Some("zen_connections_rejected_total"),
    },
    Row {
        cause: "client's reset",
        name: "client_reset",
        act: |ctx| reset(ctx, b"Expl"),
        log: &[line("connection error: …")],
        counter: Some(r#"zen_connections_closed_total{reason="lost"}"#),
        ..ROW
    },
    Row {
        cause: "client's reset, before it has asked",
        name: "silent_client_reset",
        act: |ctx| reset(ctx, b""),
        log: &[Line { is_verbose: true, ..line("connection error: …") }],
        counter: Some(r#"zen_connections_closed_total{reason="lost"}"#),
        ..ROW
    },
];

/// Returns one test for each row and each server that it applies to, and one that compares the tables with the rows.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![Trial::new("matrix::endings::tables_are_what_is_tested", tables::tables_are_what_is_tested)];
    for row in ROWS {
        let servers = SERVERS.iter().filter(|entry| (row.applies)(entry));
        trials.extend(servers.map(|entry| {
            let arguments = [&["-v", "--metrics", "127.0.0.1:0"], row.arguments].concat();
            let run = move || ended(entry, &[], &arguments, |ctx| row.check(ctx));
            Trial::new(format!("matrix::{}::endings::{}", entry.name, row.name), run)
        }));
    }
    trials
}

/// A row of the table.
struct Row {
    cause: &'static str,
    name: &'static str,
    applies: fn(&Entry) -> bool,
    /// Further arguments for the server.
    arguments: &'static [&'static str],
    /// Brings about the ending with one client.
    act: fn(&mut Ctx) -> Result<Subject>,
    /// What the client receives, as the table puts it.
    receives: &'static str,
    /// The bytes that the client of this case receives; not compared if it is reset.
    bytes: &'static [u8],
    then: Then,
    log: &'static [Line],
    /// The series that counts the ending; `None` if the process exits before it can be read.
    counter: Option<&'static str>,
}

const ROW: Row = Row {
    cause: "",
    name: "",
    applies: |entry| !entry.is_example,
    arguments: &[],
    act: |_| bail!("the row does nothing"),
    receives: "–",
    bytes: b"",
    then: Then::Nothing,
    log: &[],
    counter: None,
};

/// What the server does after the last byte.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// FIN; bytes that arrive later are answered with RST.
    Close,
    /// FIN; bytes that arrive later are discarded for a while.
    LingeringClose,
    /// RST.
    Reset,
    /// The client has ended the connection.
    Nothing,
}

/// A line of the log, without time, level and process.
struct Line {
    /// `…` stands for any text.
    text: &'static str,
    /// Whether the line is logged only at -v.
    is_verbose: bool,
    /// Whether the client's address comes first.
    has_address: bool,
}

const fn line(text: &'static str) -> Line {
    Line { text, is_verbose: false, has_address: true }
}

impl Row {
    /// Brings the ending about, and compares the wire, the counter and the log with the row.
    fn check(&self, ctx: &mut Ctx) -> Result<()> {
        let began = Instant::now();
        let target = (self.act)(ctx)?;
        if let Some(client) = target.client {
            let linger = if target.is_stopped { DRAINING_LINGER } else { LINGER };
            self.is_on_the_wire(client, began + linger).context("on the wire")?;
        }
        if let Some(counter) = self.counter {
            is_counted(ctx, counter)?;
        }
        self.is_logged(ctx, target.address)?;
        drop(target.others);
        if !target.is_stopped {
            ctx.server.signal(Signal::TERM)?;
        }
        ctx.server.ends_well()
    }

    /// Expects the bytes, then FIN or RST. A lingering close lasts at least until `linger_end`.
    fn is_on_the_wire(&self, mut client: Client, linger_end: Instant) -> Result<()> {
        if self.then == Then::Reset {
            return expect_reset_unread(&client);
        }
        client.expect(self.bytes)?;
        client.expect_end()?;
        // The server's kernel answers a byte after the close with RST. The next send then fails.
        let mut is_refused = || client.push(b"x").is_err();
        if self.then == Then::Close {
            return wait_for(WAIT_LIMIT, || is_refused().then_some(())).context("bytes after the end are not refused");
        }
        for _ in 0..3 {
            let is_over = Instant::now() >= linger_end;
            ensure!(!is_refused() || is_over, "the server has reset, although its close should linger");
            sleep(GLANCE);
        }
        Ok(())
    }

    /// Expects exactly these lines about the client, apart from its acceptance.
    fn is_logged(&self, ctx: &Ctx, address: SocketAddr) -> Result<()> {
        let prefix = format!("{address} ");
        let about_client = |entry: &&str| entry.contains(&format!("] {prefix}")) && !entry.ends_with(" accepted");
        let is_complete = |log: &str| {
            let is_there = |line: &Line| log.lines().any(|entry| line.is_logged_as(entry, &prefix));
            let expected = self.log.iter().filter(|line| line.has_address).count();
            self.log.iter().all(is_there) && log.lines().filter(about_client).count() == expected
        };
        let logged = ctx.server.wait_for_log(WAIT_LIMIT, |log| is_complete(log).then_some(()));
        logged.with_context(|| format!("the log should have {} about {address}, and nothing else", self.log_cell()))
    }
}

impl Line {
    /// Returns whether `entry` of the log is this line: `TIME [LEVEL PID/THREAD] ADDRESS TEXT`.
    fn is_logged_as(&self, entry: &str, address: &str) -> bool {
        let Some((head, message)) = entry.split_once("] ") else { return false };
        let message = if self.has_address { message.strip_prefix(address) } else { Some(message) };
        let (begin, end) = self.text.split_once('…').unwrap_or((self.text, ""));
        let is_text = |message: &str| match self.text.contains('…') {
            true => message.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)),
            false => message == self.text,
        };
        head.contains("[DEBUG ") == self.is_verbose && message.is_some_and(is_text)
    }
}

/// Expects that this ending is counted once, and no other.
fn is_counted(ctx: &Ctx, counter: &str) -> Result<()> {
    let is_ending =
        |name: &str| name.starts_with("zen_connections_closed_total") || name == "zen_connections_rejected_total";
    let expected = BTreeMap::from([(counter.to_owned(), 1.0)]);
    let mut counted = BTreeMap::new();
    let found = wait_for(WAIT_LIMIT, || {
        counted = scrape(&ctx.server).ok()?;
        counted.retain(|name, value| is_ending(name) && *value > 0.0);
        (counted == expected).then_some(())
    });
    found.with_context(|| format!("{counter} should be 1 and all others 0, but they are {counted:?}"))
}

/// How long a lingering close lasts (rule 8), normally and while draining.
const LINGER: Duration = Duration::from_secs(1);
const DRAINING_LINGER: Duration = Duration::from_millis(250);

/// The pause after a byte, in which an RST would arrive.
const GLANCE: Duration = Duration::from_millis(10);
