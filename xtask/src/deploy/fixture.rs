//! Shared by several rows: the files of `xtask/deploy/`, and the servers to which a case applies.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::harness::WAIT_LIMIT;
use crate::harness::group::run_within;
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// Returns a case as a test of each server that it applies to: `deploy::ROW::CASE::SERVER`.
pub(super) fn on_each(name: &str, applies: fn(&Entry) -> bool, case: fn(&'static Entry) -> Result<()>) -> Vec<Trial> {
    let servers = SERVERS.iter().filter(|entry| !entry.is_example && applies(entry));
    servers.map(|entry| Trial::new(format!("deploy::{name}::{}", entry.name), move || case(entry))).collect()
}

/// Selects every server.
pub(super) fn every(_: &Entry) -> bool {
    true
}

/// Selects the servers with a parent and its workers.
pub(super) fn has_workers(entry: &Entry) -> bool {
    entry.processes > 1
}

/// Selects the servers with one process.
pub(super) fn is_one_process(entry: &Entry) -> bool {
    entry.processes == 1
}

/// Reads the file of this name in `xtask/deploy/`.
pub(super) fn part(name: &str) -> Result<String> {
    let path = workspace::root()?.join("xtask/deploy").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Runs a command and returns its output, stdout and stderr together; an error with the output if it fails.
pub(super) fn succeeds(command: &mut Command) -> Result<String> {
    let output = run_within(2 * WAIT_LIMIT, command)?;
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{printed}", output.status);
    Ok(printed)
}
