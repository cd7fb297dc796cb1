//! What several rows need: the parts as they lie in the checkout, and the servers that a case applies to.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::WAIT_LIMIT;
use crate::harness::group::run_within;
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// A case as a test of each server that it applies to: `deploy::ROW::CASE::SERVER`.
pub(super) fn on_each(name: &str, applies: fn(&Entry) -> bool, case: fn(&'static Entry) -> Result<()>) -> Vec<Trial> {
    let servers = SERVERS.iter().filter(|entry| !entry.is_example && applies(entry));
    servers.map(|entry| Trial::new(format!("deploy::{name}::{}", entry.name), move || case(entry))).collect()
}

/// For a case that concerns all of them.
pub(super) fn every(_: &Entry) -> bool {
    true
}

/// For a case about a parent and its workers.
pub(super) fn has_workers(entry: &Entry) -> bool {
    entry.processes > 1
}

/// For one about a process that serves by itself.
pub(super) fn is_one_process(entry: &Entry) -> bool {
    entry.processes == 1
}

/// The file of this name in `xtask/deploy/`.
pub(super) fn part(name: &str) -> Result<String> {
    let path = workspace::root()?.join("xtask/deploy").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What the command says, stdout and stderr together; an error with all of it if it fails.
pub(super) fn succeeds(command: &mut Command) -> Result<String> {
    let output = run_within(2 * WAIT_LIMIT, command)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}

/// Sends a signal to one process.
pub(super) fn kill(pid: i32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("a process")?, signal).with_context(|| format!("no process {pid}"))
}
