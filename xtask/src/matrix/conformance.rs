//! `zen-client check`, one test for each of its cases: the judge for any server judges ours, the exhibit included.
//!
//! Where an answer can be awaited or worked out elsewhere, one more test for each of these ways runs all cases.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::served;
use crate::harness::WAIT_LIMIT;
use crate::harness::group::run_within;
use crate::servers::SERVERS;
use crate::trial::Trial;
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for case in cases()? {
        for entry in SERVERS {
            let name = format!("{}::conformance::{case}", entry.name);
            let case = case.clone();
            trials.push(Trial::new(name, move || {
                served(entry, &[], &[], false, |ctx| check(ctx.server.address(), &["--case", &case]))
            }));
        }
    }
    for entry in SERVERS.iter().filter(|entry| entry.package == "zen-async" && !entry.is_example) {
        for (name, arguments) in OTHER_WAYS {
            trials.push(Trial::new(format!("{}::conformance::{name}", entry.name), move || {
                served(entry, SMALL_POOL, arguments, false, |ctx| check(ctx.server.address(), &["--timeout", "30s"]))
            }));
        }
    }
    Ok(trials)
}

/// The names that `zen-client check --list` prints, one a line.
fn cases() -> Result<Vec<String>> {
    let output = run_within(WAIT_LIMIT, Command::new(workspace::binary("zen-client")?).args(["check", "--list"]))?;
    let cases: Vec<String> = String::from_utf8(output.stdout)?.lines().filter_map(first_word).collect();
    ensure!(output.status.success() && !cases.is_empty(), "zen-client check --list lists nothing");
    Ok(cases)
}

/// A line may go on to say what the case checks.
fn first_word(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

fn check(address: std::net::SocketAddr, arguments: &[&str]) -> Result<()> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut client = Command::new(workspace::binary("zen-client")?);
    client.args(["check", &host, "-p", &port]).args(arguments);
    let output = run_within(4 * WAIT_LIMIT, &mut client).context("zen-client check")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
    Ok(())
}

/// The other ways to an answer, by the name of their test. One case asks 65,536 questions, so the delay is short, but
/// long enough for the task to be suspended.
const OTHER_WAYS: [(&str, &[&str]); 2] =
    [("all_awaited", &["--delay", "5us", "--await"]), ("all_offloaded", &["--offload"])];

/// One thread for `--offload`: the pool keeps the threads it has started (blocking 1.7), and the verdict counts them.
const SMALL_POOL: &[&str] = &["env", "BLOCKING_MAX_THREADS=1"];
