//! `cargo xtask challenge -- COMMAND {port}`: your own server, in any language, judged in six stages and measured.

mod challenger;
mod probes;
pub(crate) mod trials;

use std::io::Write;
use std::mem::take;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::group::run_within;
use crate::workspace;
use challenger::{Challenger, blocked};
use probes::{Probe, STAGES, Stage};

/// Tests your own server in six stages, and compares its speed with ours
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Only stage N: 1 one client, 2 framing, 3 many clients, 4 hostile clients, 5 limits and draining, 6 load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=6))]
    stage: Option<u8>,
    /// How to print the result: text, json, junit or gradescope
    #[arg(long, value_parser = ["text", "json", "junit", "gradescope"], default_value = "text")]
    format: String,
    /// How many seconds each load of the comparison lasts; 0 for no comparison
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u64,
    /// How your server is started; {port} is replaced by the port it must listen on
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints what each thread of a process group is blocked in: `zen-client check` runs it when a case fails
#[derive(clap::Args)]
pub(crate) struct BlockedFlags {
    group: i32,
}

pub(crate) fn print_blocked(flags: &BlockedFlags) -> Result<ExitCode> {
    blocked(flags.group).iter().for_each(|line| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    ensure!(
        flags.command.iter().any(|word| word.contains("{port}")),
        "the command must contain {{port}}, which becomes the port: `-- python3 zen.py {{port}}`"
    );
    workspace::build()?;
    // The first start may compile. If it fails, no other start is tried, and each case fails with its error.
    let start = Instant::now();
    let mut not_started = Challenger::compile_and_start(&flags.command).err().map(|error| (error, start.elapsed()));
    let is_text = flags.format == "text";
    let mut report = Report { server: flags.command.join(" "), ..Report::default() };
    for (number, stage) in (1..).zip(&STAGES).filter(|(number, _)| flags.stage.is_none_or(|only| only == *number)) {
        let cases = match &mut not_started {
            Some((error, time)) => {
                // The time is counted once.
                with_points(stage, stage.names().map(|name| failed(name, "", error, take(time))).collect())
            }
            None => run_stage(stage, &flags.command)?,
        };
        let part = Report { server: format!("stage {number}"), ..Report::default() }.with(cases.clone());
        if is_text {
            let gap = if flags.stage.is_none() && number > 1 { "\n" } else { "" };
            println!("{gap}stage {number}, {}:\n{}", stage.name, part.rendered("text")?.trim_end());
            println!("{} of {} points", part.points(), stage.points);
        }
        report = report.with(cases);
    }
    if !is_text {
        println!("{}", report.rendered(&flags.format)?.trim_end());
    } else if flags.stage.is_none() {
        if flags.seconds > 0 {
            compare(flags)?;
        }
        println!("{} passed, {} failed, {} of 100 points", report.passed, report.failed, report.points());
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The input of `zen-client render`.
#[derive(Default, serde::Serialize)]
struct Report {
    server: String,
    cases: Vec<Value>,
    passed: usize,
    failed: usize,
}

impl Report {
    fn with(mut self, cases: Vec<Value>) -> Self {
        let passed = cases.iter().filter(|case| case["passed"] == true).count();
        (self.passed, self.failed) = (self.passed + passed, self.failed + cases.len() - passed);
        self.cases.extend(cases);
        self
    }

    /// Returns the points of the passed cases, rounded to a hundredth.
    fn points(&self) -> f64 {
        let passed = self.cases.iter().filter(|case| case["passed"] == true);
        // Not `sum`, which is -0 where no case has passed.
        let points = passed.filter_map(|case| case["points"].as_f64()).fold(0.0, |sum, points| sum + points);
        (points * 100.0_f64).round() / 100.0
    }

    fn rendered(&self, format: &str) -> Result<String> {
        let mut render = Command::new(workspace::binary("zen-client")?);
        render.args(["render", "--format", format]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut render = render.spawn().context("zen-client render")?;
        let mut stdin = render.stdin.take().context("stdin is piped")?;
        // zen-client reads all of its input before it writes, so this cannot deadlock.
        stdin.write_all(&serde_json::to_vec(self)?)?;
        drop(stdin);
        let output = render.wait_with_output()?;
        ensure!(output.status.success(), "zen-client render ended with {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Runs the cases and the probes of a stage, each probe on a fresh server.
fn run_stage(stage: &Stage, command: &[String]) -> Result<Vec<Value>> {
    let mut cases = if stage.cases.is_empty() { Vec::new() } else { judge(stage.cases, command)? };
    cases.extend(stage.probes.iter().map(|probe| run_probe(probe, command)));
    Ok(with_points(stage, cases))
}

/// Shares the points of a stage among its cases, in hundredths.
fn with_points(stage: &Stage, mut cases: Vec<Value>) -> Vec<Value> {
    let (hundredths, count) = (stage.points as usize * 100, cases.len());
    for (number, case) in cases.iter_mut().enumerate() {
        let share = hundredths / count + usize::from(number < hundredths % count);
        case["points"] = json!(share as f64 / 100.0);
    }
    cases
}

/// Runs cases of `zen-client check` against a server, and returns their results.
fn judge(cases: &[&str], command: &[String]) -> Result<Vec<Value>> {
    let challenger = match Challenger::start(command) {
        Ok(challenger) => challenger,
        Err(error) => return Ok(cases.iter().map(|case| failed(case, "", &error, Duration::ZERO)).collect()),
    };
    let this = std::env::current_exe()?;
    let observe = format!("'{}' blocked {}", this.display(), challenger.id());
    let mut check = Command::new(workspace::binary("zen-client")?);
    check.args(["check", "-p", &challenger.address.port().to_string(), "--json", "--on-failure", &observe]);
    cases.iter().for_each(|case| _ = check.args(["--case", case]));
    let output = run_within(LONGEST_CHECK, &mut check)?;
    if output.stdout.is_empty() {
        let error = anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim_end().to_owned());
        return Ok(cases.iter().map(|case| failed(case, "", &error, Duration::ZERO)).collect());
    }
    let mut report: Value = serde_json::from_slice(&output.stdout).context("zen-client check --json")?;
    let Value::Array(mut cases) = report["cases"].take() else { anyhow::bail!("zen-client check --json has no cases") };
    for case in cases.iter_mut().filter(|case| case["passed"] == false) {
        if let Value::Array(observed) = &mut case["observed"] {
            observed.extend(challenger.stderr().into_iter().map(Value::String));
        }
    }
    Ok(cases)
}

fn run_probe(probe: &Probe, command: &[String]) -> Value {
    let start = Instant::now();
    let challenger = match Challenger::start(command) {
        Ok(challenger) => challenger,
        Err(error) => return failed(probe.name, probe.about, &error, start.elapsed()),
    };
    match (probe.run)(&challenger, command) {
        Ok(()) => json!({
            "name": probe.name, "rule": null, "passed": true, "expected": null, "saw": null,
            "milliseconds": start.elapsed().as_millis() as u64,
        }),
        Err(error) => {
            let mut case = failed(probe.name, probe.about, &error, start.elapsed());
            case["observed"] = json!([challenger.observed(), challenger.stderr()].concat());
            case
        }
    }
}

/// Returns the result of a failed case. The first line of the error is what the case saw; further ones were observed.
fn failed(name: &str, about: &str, error: &anyhow::Error, time: Duration) -> Value {
    let text = format!("{error:#}");
    let mut lines = text.lines();
    json!({
        "name": name, "rule": null, "about": about, "passed": false, "expected": null, "saw": lines.next(),
        "observed": lines.collect::<Vec<_>>(), "milliseconds": time.as_millis() as u64,
    })
}

/// Runs a load on your server and on ours, in turns, and prints the rates.
fn compare(flags: &Flags) -> Result<()> {
    println!("\nanswers a second to 16 clients that ask without a pause (the least … the most of {ROUNDS} rounds):");
    let mut rates: Vec<(&str, Vec<f64>)> = [("yours", Vec::new())].into();
    rates.extend(OURS.iter().map(|(package, _)| (*package, Vec::new())));
    for _ in 0..ROUNDS {
        for (n, (_, rates)) in rates.iter_mut().enumerate() {
            let command = match n.checked_sub(1).map(|n| OURS[n]) {
                None => flags.command.clone(),
                Some((package, arguments)) => {
                    let program = workspace::binary(package)?.to_string_lossy().into_owned();
                    [program].into_iter().chain(arguments.iter().map(ToString::to_string)).collect()
                }
            };
            rates.push(answers_per_second(Challenger::start(&command)?.address, flags.seconds)?);
        }
    }
    for (name, rates) in rates {
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        println!("{name:<14} {least:>9.0} … {most:.0}");
    }
    println!("(ours are debug builds; `cargo xtask bench --peer yours='COMMAND {{port}}'` compares release builds)\n");
    Ok(())
}

fn answers_per_second(server: SocketAddr, seconds: u64) -> Result<f64> {
    #[derive(Deserialize)]
    struct Load {
        answers_per_second: f64,
    }
    let mut load = Command::new(workspace::binary("zen-client")?);
    load.args(["load", "127.0.0.1", "-p", &server.port().to_string(), "--json", "-c", "16", "--warmup", "200ms"]);
    load.args(["--timeout", "2s", "--duration", &format!("{seconds}s")]);
    let output = run_within(LONGEST_CHECK, &mut load)?;
    // A load with failures has a result, too. Stage 6 has already reported the failures.
    let load: Load = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("zen-client load printed no result: {}", String::from_utf8_lossy(&output.stderr).trim_end())
    })?;
    Ok(load.answers_per_second)
}

/// Our servers for the comparison: the simplest one, one with a thread for each client, and one with an event loop.
const OURS: [(&str, &[&str]); 3] = [
    ("zen-single", &["-q", "-p", "{port}"]),
    ("zen-threaded", &["-q", "--mode", "per-connection", "-p", "{port}"]),
    ("zen-poll", &["-q", "-p", "{port}"]),
];

const ROUNDS: usize = 3;
/// The longest time for the cases of a stage: more than 14 cases of 5 s each.
const LONGEST_CHECK: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn points_are_those_of_the_passed_cases() {
        let case = |passed: bool| json!({ "passed": passed, "points": 2.505 });
        let points =
            |cases: &[bool]| Report::default().with(cases.iter().map(|passed| case(*passed)).collect()).points();
        assert_eq!(points(&[true, false, true]).to_string(), "5.01");
        assert_eq!(points(&[false]).to_string(), "0");
    }
}
