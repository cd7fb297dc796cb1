//! Tests of the formats against their published schema and specification.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::probes::STAGES;
use super::super::{Report, run_stage};
use crate::harness::tool;
use crate::workspace;

type Test = fn() -> Result<()>;

pub(super) const TESTS: [(&str, Test); 3] = [("junit", junit), ("gradescope", gradescope), ("json", json)];

/// xmllint accepts the report, and refuses reports with an attribute or an element that is not in the schema.
fn junit() -> Result<()> {
    let report = stage_of_a_faulty_example()?.rendered("junit")?;
    let valid = validated(&report)?;
    ensure!(valid.status.success(), "{}\nof\n{report}", String::from_utf8_lossy(&valid.stderr));
    for (what, other) in [(" failures=", " failed="), ("</testsuites>", "<oops/></testsuites>")] {
        let invalid = validated(&report.replacen(what, other, 1))?;
        ensure!(!invalid.status.success(), "the schema accepts {other}");
    }
    Ok(())
}

/// Validates a document with `junit.xsd`. A comment in that file says how it differs from the published schema.
fn validated(xml: &str) -> Result<Output> {
    let schema = workspace::root()?.join("xtask/challenge/junit.xsd");
    let mut lint = Command::new(tool("xmllint")?);
    lint.args(["--noout", "--nonet", "--schema"]).arg(schema).arg("-");
    let mut lint = lint.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    lint.stdin.take().context("stdin is piped")?.write_all(xml.as_bytes())?;
    Ok(lint.wait_with_output()?)
}

/// The fields are those of <https://gradescope-autograders.readthedocs.io/en/latest/specs/>, and the scores add up to
/// the points of the stage.
fn gradescope() -> Result<()> {
    let report = stage_of_a_faulty_example()?;
    let results: Value = serde_json::from_str(&report.rendered("gradescope")?)?;
    let visibilities = ["hidden", "after_due_date", "after_published", "visible"];
    let formats = ["text", "html", "simple_format", "md", "ansi"];
    has_only(&results, &["score", "execution_time", "output", "output_format", "visibility", "tests"])?;
    let (mut score, mut most) = (0.0, 0.0);
    for test in results["tests"].as_array().context("tests is a list")? {
        has_only(test, &["score", "max_score", "status", "name", "output", "output_format", "visibility"])?;
        let text = |field: &str| test[field].as_str().with_context(|| format!("{field} is no text in {test}"));
        ensure!(visibilities.contains(&text("visibility")?) && formats.contains(&text("output_format")?), "{test}");
        let number = |field: &str| test[field].as_f64().with_context(|| format!("{field} is no number in {test}"));
        let (of_test, most_of_test) = (number("score")?, number("max_score")?);
        ensure!((of_test == most_of_test) == (text("status")? == "passed"), "{test}");
        ensure!((of_test == 0.0) == (text("status")? == "failed"), "{test}");
        (score, most) = (score + of_test, most + most_of_test);
    }
    ensure!(
        (most - f64::from(STAGES[0].points)).abs() < 1e-6,
        "the sum of max_score is {most}, expected {}",
        STAGES[0].points
    );
    ensure!((score - report.points()).abs() < 0.01 && score > 0.0 && score < most, "the scores add up to {score}");
    Ok(())
}

/// A case of the challenge has the fields of a case of `zen-client check --json`.
fn json() -> Result<()> {
    let report = stage_of_a_faulty_example()?;
    let results: Value = serde_json::from_str(&report.rendered("json")?)?;
    has_only(&results, &["server", "cases", "passed", "failed"])?;
    ensure!((&results["passed"], &results["failed"]) == (&report.passed.into(), &report.failed.into()), "{results}");
    const FIELDS: [&str; 11] = [
        "name",
        "rule",
        "passed",
        "expected",
        "saw",
        "milliseconds",
        "about",
        "difference",
        "transcript",
        "observed",
        "points",
    ];
    let cases = results["cases"].as_array().context("cases is a list")?;
    cases.iter().try_for_each(|case| has_only(case, &FIELDS))?;
    ensure!(cases.iter().all(|case| FIELDS.iter().all(|field| case.get(field).is_some())), "{results}");
    Ok(())
}

fn has_only(value: &Value, known: &[&str]) -> Result<()> {
    let fields: BTreeSet<&str> = value.as_object().context("an object")?.keys().map(String::as_str).collect();
    let strange: Vec<_> = fields.iter().filter(|field| !known.contains(field)).collect();
    ensure!(strange.is_empty(), "{strange:?} are not in the specification: {value}");
    Ok(())
}

/// Runs a stage of which some cases pass and some fail, with `<`, `&` and escaped bytes in their transcripts.
fn stage_of_a_faulty_example() -> Result<Report> {
    let program = workspace::binary("examples/no_full_stop")?.to_string_lossy().into_owned();
    let cases = run_stage(&STAGES[0], &[program, "-p".to_owned(), "{port}".to_owned()])?;
    Ok(Report::default().with(cases))
}
