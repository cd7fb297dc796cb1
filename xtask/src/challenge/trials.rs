//! Tests of the challenge: every case belongs to a stage, a failure shows its cause, and each starter passes the first
//! stage.

mod formats;

use std::process::Command;

use anyhow::{Result, ensure};

use super::Report;
use super::probes::STAGES;
use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::{WAIT_LIMIT, strace, tool};
use crate::trial::{Trial, note};
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    workspace::build()?;
    let mut trials = vec![
        Trial::new("challenge::every_case_has_its_stage", every_case_has_its_stage),
        Trial::new(
            "challenge::a_failure_shows_what_threads_are_blocked_in",
            a_failure_shows_what_threads_are_blocked_in,
        ),
        Trial::new("challenge::a_server_that_does_not_start_fails", a_server_that_does_not_start_fails),
        Trial::new("challenge::a_failure_shows_stderr", a_failure_shows_stderr),
        Trial::new("challenge::the_first_start_may_compile", the_first_start_may_compile).slow(),
    ];
    for (name, run) in formats::TESTS {
        trials.push(Trial::new(format!("challenge::formats::{name}"), run));
    }
    for (language, tools, build, start) in STARTERS {
        let run = move || a_starter_passes_the_first_stage(tools, build, start);
        trials.push(Trial::new(format!("challenge::starters::{language}"), run));
    }
    for (example, stage, case, shown) in FAULTY {
        let run = move || a_faulty_example_is_explained(example, stage, case, shown);
        trials.push(Trial::new(format!("challenge::faulty::{example}"), run));
    }
    Ok(trials)
}

fn every_case_has_its_stage() -> Result<()> {
    let list = run_within(WAIT_LIMIT, Command::new(workspace::binary("zen-client")?).args(["check", "--list"]))?;
    let list = String::from_utf8(list.stdout)?;
    let mut listed: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut staged: Vec<_> = STAGES.iter().flat_map(|stage| stage.cases).copied().collect();
    listed.sort_unstable();
    staged.sort_unstable();
    ensure!(listed == staged, "check has {listed:?}\nthe stages have {staged:?}");
    ensure!(STAGES.iter().map(|stage| stage.points).sum::<u32>() == 100, "the points are not a hundred");
    Ok(())
}

fn a_failure_shows_what_threads_are_blocked_in() -> Result<()> {
    strace()?;
    let shown = stage(3, &ours("zen-single")?)?;
    ensure!(
        shown.contains("FAILED silent-client: saw while a silent client is connected, no other is answered"),
        "{shown}"
    );
    // The server's thread waits for the silent client, which is still connected.
    ensure!(shown.contains(" is blocked in recvfrom("), "{shown}");
    Ok(())
}

fn a_server_that_does_not_start_fails() -> Result<()> {
    let shown = stage(1, &["true".to_owned(), "{port}".to_owned()])?;
    ensure!(shown.contains("FAILED known-questions: saw nothing listens on 127.0.0.1:"), "{shown}");
    ensure!(shown.contains("`: it has ended\n"), "{shown}");
    ensure!(shown.contains("\n0 passed, 5 failed"), "{shown}");
    Ok(())
}

/// The learner sees why a server has ended, or why it has closed a connection.
fn a_failure_shows_stderr() -> Result<()> {
    let script = "echo SyntaxError: {port} >&2; exit 1";
    let shown = stage(1, &["sh", "-c", script].map(str::to_owned))?;
    ensure!(shown.contains(": it has ended\n"), "{shown}");
    ensure!(shown.matches("\n      SyntaxError: ").count() == 5 && shown.contains("\n0 passed, 5 failed"), "{shown}");
    let panics = ["-p", "{port}", "--panic-on", "Simple is better than?"].map(str::to_owned);
    let shown = stage(1, &[&[workspace::binary("zen-single")?.to_string_lossy().into_owned()], &panics[..]].concat())?;
    ensure!(shown.contains("the last lines of its stderr:\n") && shown.contains("panicked at "), "{shown}");
    Ok(())
}

/// Runs `challenge` with a command whose first start takes longer than the limit of later starts.
fn the_first_start_may_compile() -> Result<()> {
    let folder = Folder::for_programs()?;
    let compiled = folder.path().join("compiled");
    let compile = format!("test -e {0} || {{ sleep {1}; touch {0}; }}", compiled.display(), WAIT_LIMIT.as_secs() + 1);
    let script = format!("{compile}; exec {} -q -p {{port}}", workspace::binary("zen-single")?.display());
    let mut challenge = Command::new(std::env::current_exe()?);
    challenge.args(["challenge", "--stage", "1", "--", "sh", "-c", &script]);
    let output = run_within(4 * WAIT_LIMIT, &mut challenge)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn a_starter_passes_the_first_stage(tools: &[&str], build: &str, start: &[&str]) -> Result<()> {
    if let Some(missing) = tools.iter().find(|name| tool(name).is_err()) {
        note(format!("a starter was not tested, because {missing} is not installed"));
        return Ok(());
    }
    let folder = Folder::for_programs()?;
    let source = workspace::root()?.join("xtask/challenge");
    let fill = |text: &str| {
        text.replace("{source}", &source.to_string_lossy()).replace("{folder}", &folder.path().to_string_lossy())
    };
    if !build.is_empty() {
        let output = run_within(4 * WAIT_LIMIT, Command::new("sh").args(["-c", &fill(build)]))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let command: Vec<_> = start.iter().map(|word| fill(word)).collect();
    let shown = stage(1, &command)?;
    ensure!(shown.ends_with("\n5 passed, 0 failed"), "{shown}");
    Ok(())
}

/// The report of a faulty example names the case that finds its bug, and shows the wrong bytes.
fn a_faulty_example_is_explained(example: &str, number: usize, case: &str, shown: &[&str]) -> Result<()> {
    let program = workspace::binary(&format!("examples/{example}"))?.to_string_lossy().into_owned();
    let printed = stage(number, &[program, "-p".to_owned(), "{port}".to_owned()])?;
    let lines = format!("\n{printed}");
    let failed = lines.split("\nFAILED ").skip(1).find(|block| block.starts_with(case));
    let failed = failed.ok_or_else(|| anyhow::anyhow!("{case:?} of {example} has not failed:\n{printed}"))?;
    for wanted in shown {
        ensure!(failed.contains(wanted), "{wanted:?} is not in\n{failed}");
    }
    Ok(())
}

/// Runs one stage and returns its report as text.
fn stage(number: usize, command: &[String]) -> Result<String> {
    let cases = super::run_stage(&STAGES[number - 1], command)?;
    Ok(Report::default().with(cases).rendered("text")?.trim_end().to_owned())
}

fn ours(package: &str) -> Result<Vec<String>> {
    let program = workspace::binary(package)?.to_string_lossy().into_owned();
    Ok(["-q", "-p", "{port}"].iter().fold(vec![program], |command, word| [command, vec![(*word).to_owned()]].concat()))
}

/// A starter: its language, the tools it needs, the command that builds it, and the command that starts it.
type Starter = (&'static str, &'static [&'static str], &'static str, &'static [&'static str]);

const STARTERS: [Starter; 5] = [
    ("python", &["python3"], "", &["python3", "{source}/starter.py", "{port}"]),
    ("c", &["gcc"], "gcc -Wall -Werror -O1 -o {folder}/starter {source}/starter.c", &["{folder}/starter", "{port}"]),
    ("go", &["go"], "go build -o {folder}/starter {source}/starter.go", &["{folder}/starter", "{port}"]),
    ("javascript", &["node"], "", &["node", "{source}/starter.js", "{port}"]),
    (
        "java",
        &["java", "javac"],
        "javac -d {folder} {source}/Starter.java",
        &["java", "-cp", "{folder}", "Starter", "{port}"],
    ),
];

/// A faulty example, the stage and the case that fail, and texts that the report must contain.
type Faulty = (&'static str, usize, &'static str, &'static [&'static str]);

const FAULTY: [Faulty; 7] = [
    (
        "ends_with",
        2,
        "two-in-one-segment",
        &[r#"sends "Simple is better than?Beautiful is better than?""#, r#"byte 1: expected "c", saw "E""#],
    ),
    (
        "no_full_stop",
        1,
        "unknown-then-known",
        &[r#"receives "Error: unknown aphorism""#, r#"byte 24: expected ".", saw nothing within"#],
    ),
    ("hasty_close", 4, "too-long-keeps-coming", &["client 1 is reset", "expected end of file, saw a reset"]),
    (
        "forgets_to_close",
        4,
        "clients-that-left",
        &["50 clients have disconnected, and ", " more descriptors are open", "is blocked in accept4("],
    ),
    ("accept_spin", 4, "too-long-keeps-coming", &["client 1 is reset", "expected end of file, saw a reset"]),
    // Any of the cases may fail: which one depends on when the loop wakes.
    ("stale_key", 1, "", &["first difference: byte 1: expected "]),
    ("never_yields", 2, "bare-question-marks", &[r#"sends "????"#, "sees nothing more"]),
];
