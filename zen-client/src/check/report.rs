//! The verdicts, and the formats in which they are printed.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::text::printable;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Lines of text
    Text,
    /// One JSON object, as with --json
    Json,
    /// JUnit's XML, for continuous integration
    Junit,
    /// Gradescope's results.json, for autograders
    Gradescope,
}

/// All verdicts on a server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(super) server: String,
    pub(super) cases: Vec<Verdict>,
    pub(super) passed: usize,
    pub(super) failed: usize,
}

/// The verdict on one case.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub(super) name: String,
    /// The number of the protocol's rule that the case checks; `challenge` has cases without one.
    pub(super) rule: Option<u8>,
    pub(super) passed: bool,
    /// What the rule demands; null when the case passed.
    pub(super) expected: Option<String>,
    /// What was received instead; null when the case passed.
    pub(super) saw: Option<String>,
    pub(super) milliseconds: u64,
    /// What the case checks.
    #[serde(default)]
    pub(super) about: String,
    /// The first byte that differs, where bytes were compared.
    #[serde(default)]
    pub(super) difference: Option<String>,
    /// What the clients did and received, a line for each event; empty when the case passed.
    #[serde(default)]
    pub(super) transcript: Vec<String>,
    /// What the command of `--on-failure` printed.
    #[serde(default)]
    pub(super) observed: Vec<String>,
    /// The points that the case is worth.
    #[serde(default = "one_point")]
    pub(super) points: f64,
}

pub(super) fn one_point() -> f64 {
    1.0
}

impl Report {
    /// Returns an empty report.
    pub(super) fn new(server: String) -> Self {
        Self { server, cases: Vec::new(), passed: 0, failed: 0 }
    }

    pub(super) fn add(&mut self, verdict: Verdict) {
        *(if verdict.passed { &mut self.passed } else { &mut self.failed }) += 1;
        self.cases.push(verdict);
    }

    /// Formats the whole report.
    pub(super) fn write(&self, format: Format) -> Result<String> {
        Ok(match format {
            Format::Text => {
                let cases: Vec<_> = self.cases.iter().map(Verdict::text).collect();
                format!("{}\n{}", cases.join("\n"), self.last_line())
            }
            Format::Json => serde_json::to_string_pretty(self)?,
            Format::Junit => self.junit(),
            Format::Gradescope => self.gradescope()?,
        })
    }

    pub(super) fn last_line(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }

    /// Formats the report with the elements and attributes of Jenkins' schema for JUnit files.
    fn junit(&self) -> String {
        let (tests, failures) = (self.cases.len(), self.failed);
        let time: u64 = self.cases.iter().map(|case| case.milliseconds).sum();
        let begin = SystemTime::now() - Duration::from_millis(time);
        // The schema's times have no zone.
        let begin = humantime::format_rfc3339_seconds(begin).to_string();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        // Writing to a String cannot fail.
        let _ = writeln!(
            xml,
            "<testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\" \
             time=\"{}\" timestamp=\"{}\">",
            escaped(&self.server),
            seconds(time),
            begin.trim_end_matches('Z'),
        );
        for case in &self.cases {
            let class = case.rule.map_or("challenge".to_owned(), |rule| format!("rule {rule}"));
            let (name, time) = (escaped(&case.name), seconds(case.milliseconds));
            let _ = write!(xml, "<testcase name=\"{name}\" classname=\"{class}\" time=\"{time}\"");
            let _ = if case.passed {
                writeln!(xml, "/>")
            } else {
                let (message, text) = (escaped(&case.line()), escaped(&case.text()));
                writeln!(xml, ">\n<failure type=\"mismatch\" message=\"{message}\">{text}</failure>\n</testcase>")
            };
        }
        xml + "</testsuite>\n</testsuites>"
    }

    /// Formats the report as the object that a Gradescope autograder writes.
    fn gradescope(&self) -> Result<String> {
        let test = |case: &Verdict| {
            json!({
                "name": case.name,
                "score": if case.passed { case.points } else { 0.0 },
                "max_score": case.points,
                "status": if case.passed { "passed" } else { "failed" },
                "output": case.text(),
                "output_format": "text",
                "visibility": "visible",
            })
        };
        let milliseconds: u64 = self.cases.iter().map(|case| case.milliseconds).sum();
        let results = json!({
            "tests": self.cases.iter().map(test).collect::<Vec<_>>(),
            "execution_time": milliseconds as f64 / 1e3,
            "output": format!("{}: {}", self.server, self.last_line()),
            "output_format": "text",
        });
        Ok(serde_json::to_string_pretty(&results)?)
    }
}

impl Verdict {
    /// Returns all that is known of the case, in several lines if it failed.
    pub(super) fn text(&self) -> String {
        let case = (!self.about.is_empty()).then(|| format!("case: {}", self.about));
        let difference = self.difference.as_ref().map(|difference| format!("first difference: {difference}"));
        let observed = (!self.observed.is_empty()).then(|| "at that moment:".to_owned());
        let observations = self.observed.iter().map(|line| format!("  {line}"));
        let details = case.into_iter().chain(self.transcript.iter().cloned()).chain(difference);
        let details = details.chain(observed).chain(observations).filter(|_| !self.passed);
        details.fold(self.line(), |text, line| text + "\n    " + &printable(&line))
    }

    fn line(&self) -> String {
        let name = &self.name;
        if self.passed {
            return format!("ok {name}");
        }
        let rule = self.rule.and_then(|number| Some((number, RULES.get(usize::from(number).checked_sub(1)?)?)));
        let rule = rule.map_or(String::new(), |(number, rule)| format!("rule {number} ({rule}): "));
        let expected = self.expected.as_ref().map_or(String::new(), |expected| format!("expected {expected}, "));
        printable(&format!("FAILED {name}: {rule}{expected}saw {}", self.saw.as_deref().unwrap_or("nothing")))
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.3}", milliseconds as f64 / 1e3)
}

/// Escapes what XML reserves. Control characters other than line ends have been escaped before.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The protocol's rules in short; rule 1 is the first.
const RULES: [&str; 8] = [
    "exactly one answer for each question, in order, and each ends in its only full stop",
    "questions may follow each other before their answers have come",
    "space, tab, CR and LF before a question are skipped and count for nothing",
    "three questions are known, any other is an unknown aphorism, and the conversation continues",
    "a question has at most 256 bytes; at byte 257 pending answers and an error are sent, then the server closes",
    "whole questions sent before the end of file are answered, then the server closes",
    "a client over the limit is rejected immediately",
    "a close never loses an answer: after the last one the server goes on reading until end of file",
];
