//! `zen-client check`, one test for each of its cases, against every server and every example.
//!
//! Where an answer can be awaited or offloaded, two further tests run all cases in these ways.

use std::process::Command;

use anyhow::{Result, ensure};

use super::served;
use crate::harness::group::run_within;
use crate::harness::{WAIT_LIMIT, passes};
use crate::servers::SERVERS;
use crate::trial::Trial;
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for case in cases()? {
        for entry in SERVERS {
            let name = format!("matrix::{}::conformance::{case}", entry.name);
            let case = case.clone();
            trials.push(Trial::new(name, move || {
                served(entry, &[], &[], false, |ctx| passes(ctx.server.address(), &["--case", &case]))
            }));
        }
    }
    for entry in SERVERS.iter().filter(|entry| entry.package == "zen-async" && !entry.is_example) {
        for (name, arguments) in OTHER_WAYS {
            trials.push(Trial::new(format!("matrix::{}::conformance::{name}", entry.name), move || {
                served(entry, SMALL_POOL, arguments, false, |ctx| passes(ctx.server.address(), &["--timeout", "30s"]))
            }));
        }
    }
    Ok(trials)
}

/// Returns the names that `zen-client check --list` prints, one per line.
fn cases() -> Result<Vec<String>> {
    let output = run_within(WAIT_LIMIT, Command::new(workspace::binary("zen-client")?).args(["check", "--list"]))?;
    let cases: Vec<String> = String::from_utf8(output.stdout)?.lines().filter_map(first_word).collect();
    ensure!(output.status.success() && !cases.is_empty(), "zen-client check --list lists nothing");
    Ok(cases)
}

/// Returns the name of a case; the rest of its line says what it checks.
fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

/// The arguments for the other ways to work out an answer, each after the name of its test. One case asks 65,536
/// questions, so the delay is short, but long enough for the task to be suspended.
const OTHER_WAYS: [(&str, &[&str]); 2] =
    [("all_awaited", &["--delay", "5us", "--await"]), ("all_offloaded", &["--offload"])];

/// A wrapper that allows `--offload` one thread. The blocking pool never ends a thread (blocking 1.7), and the verdict
/// counts threads.
const SMALL_POOL: &[&str] = &["env", "BLOCKING_MAX_THREADS=1"];
