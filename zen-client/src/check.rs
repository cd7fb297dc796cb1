//! `zen-client check`: the conformance judge, for a server in any language.

mod bytes;
mod cases;
mod client;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::connect::Addresses;
use crate::options::{Server, duration};
use crate::text;
use cases::{CASES, Case};
use client::Target;

/// What `zen-client check` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: Server,
    /// Judge by these cases only
    #[arg(value_name = "CASE", value_parser = case_called)]
    chosen: Vec<&'static Case>,
    /// The same without a HOST before it; may be repeated
    #[arg(long = "case", value_name = "CASE", value_parser = case_called)]
    also_chosen: Vec<&'static Case>,
    /// A health check: the essential cases, which take a few milliseconds
    #[arg(long, conflicts_with_all = ["chosen", "also_chosen"])]
    quick: bool,
    /// The longest that one case may take, such as 10s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = case_timeout)]
    timeout: Duration,
    /// Print one JSON object: server, cases [{name, rule, passed, expected, saw, milliseconds}], passed, failed
    #[arg(long)]
    json: bool,
    /// Print the cases with the rules they check, and judge nothing
    #[arg(long)]
    list: bool,
}

/// A server that never answers must not keep its judge for ever.
const LONGEST_CASE: Duration = Duration::from_secs(3600);

fn case_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout.is_zero() || timeout > LONGEST_CASE {
        return Err("a judge waits for something, but not for ever: at most 1h".to_owned());
    }
    Ok(timeout)
}

fn case_called(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| "there is no such case; --list names them".to_owned())
}

/// The verdict on one case, as `--json` prints it.
#[derive(Serialize)]
struct Verdict {
    name: &'static str,
    /// The number of the protocol's rule that the case checks.
    rule: u8,
    passed: bool,
    /// What the rule demands where the server failed; null when it passed.
    expected: Option<String>,
    /// What came instead; null when it passed.
    saw: Option<String>,
    milliseconds: u64,
}

/// All verdicts, as `--json` prints them.
#[derive(Serialize)]
struct Report {
    server: String,
    cases: Vec<Verdict>,
    passed: usize,
    failed: usize,
}

/// Runs the chosen cases one after the other; succeeds when all of them pass.
pub(crate) fn check(options: &Options) -> Result<ExitCode> {
    let mut stdout = text::stdout();
    match check_to(&mut stdout, options) {
        // Nobody reads the verdict any more, but that is not a pass.
        Err(error) if text::is_unread(&error) => Ok(ExitCode::FAILURE),
        outcome => outcome,
    }
}

fn check_to(out: &mut impl Write, options: &Options) -> Result<ExitCode> {
    let (server, chosen) = options.server_and_cases();
    if options.list {
        for case in chosen {
            text::print(out, format_args!("{:29} rule {}  {}", case.name, case.rule, case.about))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    // One address for all cases: the first that lets us connect.
    let (_, address) = Addresses::resolve(&server, Some(options.timeout))?.connect(Some(options.timeout))?;
    let mut report = Report { server: address.to_string(), cases: Vec::new(), passed: 0, failed: 0 };
    for case in chosen {
        let verdict = case.judge(&Target::new(address, options.timeout * case.times));
        if !options.json {
            text::print(out, format_args!("{}", verdict.as_line()))?;
        }
        if verdict.passed {
            report.passed += 1
        } else {
            report.failed += 1
        }
        report.cases.push(verdict);
    }
    if options.json {
        text::print(out, format_args!("{}", serde_json::to_string_pretty(&report)?))?;
    } else {
        text::print(out, format_args!("{} passed, {} failed", report.passed, report.failed))?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    /// Whom to judge, and by what. The first word may be a case too: then HOST was left out.
    fn server_and_cases(&self) -> (Server, Vec<&'static Case>) {
        let mut server = self.server.clone();
        let mut chosen = [&self.also_chosen[..], &self.chosen[..]].concat();
        if let Ok(case) = case_called(&server.host) {
            chosen.insert(0, case);
            server.host = Server::DEFAULT_HOST.to_owned();
        }
        if chosen.is_empty() {
            chosen = CASES.iter().filter(|case| case.is_quick || !self.quick).collect();
        }
        (server, chosen)
    }
}

impl Case {
    fn judge(&self, target: &Target) -> Verdict {
        let start = Instant::now();
        let mismatch = (self.run)(target).err();
        let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let passed = mismatch.is_none();
        let (expected, saw) = mismatch.map(|mismatch| (mismatch.expected, mismatch.saw)).unzip();
        Verdict { name: self.name, rule: self.rule, passed, expected, saw, milliseconds }
    }
}

/// The protocol's rules in short; rule 1 comes first.
const RULES: [&str; 8] = [
    "one answer for each question, in order, and each ends in its only full stop",
    "questions may follow each other before their answers have come",
    "white space before a question is skipped",
    "three questions are known, any other is an unknown aphorism",
    "a question is at most 256 bytes",
    "whole questions sent before the end of file are answered, then the server closes",
    "a client over the limit is turned away at once",
    "a close never loses an answer",
];

impl Verdict {
    fn as_line(&self) -> String {
        let (name, number) = (self.name, self.rule);
        match (&self.expected, &self.saw) {
            (Some(expected), Some(saw)) => {
                let rule = RULES[usize::from(number) - 1];
                text::printable(&format!("FAILED {name}: rule {number} ({rule}): expected {expected}, saw {saw}"))
            }
            _ => format!("ok {name}"),
        }
    }
}
