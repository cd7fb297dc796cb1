//! `zen-client check`: the conformance test for a server in any language.

mod bytes;
mod cases;
mod client;
mod report;
mod transcript;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::connect::Addresses;
use crate::options::{Server, duration_within};
use crate::text;
use cases::{CASES, Case};
use client::Target;
use report::{Format, Report, Verdict, one_point};

/// The options of `zen-client check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: Server,
    /// Run only these cases
    #[arg(value_name = "CASE", value_parser = case_called)]
    chosen: Vec<&'static Case>,
    /// Run this case too; may be repeated
    #[arg(long = "case", value_name = "CASE", value_parser = case_called)]
    also_chosen: Vec<&'static Case>,
    /// A health check: the essential cases, which take a few milliseconds
    #[arg(long, conflicts_with_all = ["chosen", "also_chosen"])]
    quick: bool,
    /// The longest time for one case, such as 10s or 500ms; clients-at-once has four times as long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = case_timeout)]
    timeout: Duration,
    /// Run COMMAND in a shell when a case fails, while its connections are still open, and show its output
    #[arg(long, value_name = "COMMAND")]
    on_failure: Option<String>,
    /// How to print the verdicts
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// List the cases with the rules they check, and run none
    #[arg(long)]
    list: bool,
}

fn case_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1), LONGEST_CASE)
}

fn case_called(name: &str) -> Result<&'static Case, String> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| "there is no such case; --list names them".to_owned())
}

/// Runs the chosen cases one after the other; succeeds when all of them pass.
pub(crate) fn check(options: &Options) -> Result<ExitCode> {
    let mut stdout = text::stdout();
    match check_to(&mut stdout, options) {
        // The verdicts could not be printed, which is no pass.
        Err(error) if text::is_broken_pipe(&error) => Ok(ExitCode::FAILURE),
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
    let format = if options.json { Format::Json } else { options.format };
    // One address for all cases: the first that accepts a connection.
    let mut addresses = Addresses::resolve(&server, Some(options.timeout))
        .map_err(|error| anyhow!("{error:#}; or is it a case? --list names them"))?;
    let (_, address) = addresses.connect(Some(options.timeout))?;
    let mut report = Report::new(address.to_string());
    for case in chosen {
        let verdict = case.judge(Target::new(address, options.timeout * case.times, options.on_failure.clone()));
        if format == Format::Text {
            text::print(out, format_args!("{}", verdict.text()))?;
        }
        report.add(verdict);
    }
    if format == Format::Text {
        text::print(out, format_args!("{}", report.last_line()))?;
    } else {
        text::print(out, format_args!("{}", report.write(format)?))?;
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The options of the hidden command `render`.
#[derive(Debug, clap::Args)]
pub(crate) struct RenderOptions {
    #[arg(long, value_enum)]
    format: Format,
}

/// Reads a report of `--json` from stdin, and prints it in another format.
pub(crate) fn render(options: &RenderOptions) -> Result<ExitCode> {
    let report: Report = serde_json::from_reader(io::stdin()).context("stdin holds no report of `check --json`")?;
    text::print(&mut text::stdout(), format_args!("{}", report.write(options.format)?))?;
    Ok(ExitCode::SUCCESS)
}

impl Options {
    /// Returns the server and the cases. If the first word is a case, HOST was left out.
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
    fn judge(&self, target: Target) -> Verdict {
        let start = Instant::now();
        let mismatch = (self.run)(&target).err();
        let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (transcript, observed) = target.transcript().into_lines();
        let mut verdict = Verdict {
            name: self.name.to_owned(),
            rule: Some(self.rule),
            passed: true,
            expected: None,
            saw: None,
            milliseconds,
            about: self.about.to_owned(),
            difference: None,
            transcript: Vec::new(),
            observed,
            points: one_point(),
        };
        if let Some(mismatch) = mismatch {
            (verdict.passed, verdict.transcript, verdict.difference) = (false, transcript, mismatch.difference);
            (verdict.expected, verdict.saw) = (Some(mismatch.expected), Some(mismatch.saw));
        }
        verdict
    }
}

/// The longest `--timeout` of a case.
const LONGEST_CASE: Duration = Duration::from_secs(3600);
