//! What several rows need: the parts as they lie in the checkout, a folder to put them together in, and the judge.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::PATIENCE;
use crate::harness::group::run_within;
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// A case as a test of each server that it applies to: `deploy::ROW::CASE::SERVER`.
pub(super) fn on_each(name: &str, applies: fn(&Entry) -> bool, case: fn(&'static Entry) -> Result<()>) -> Vec<Trial> {
    let servers = SERVERS.iter().filter(|entry| !entry.is_exhibit && applies(entry));
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

/// A temporary folder, removed when this goes.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Folder> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zen-deploy-{}-{number}", process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }

    /// Writes a file and says where it is.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the command says, stdout and stderr together; an error with all of it if it fails.
pub(super) fn succeeds(command: &mut Command) -> Result<String> {
    let output = run_within(2 * PATIENCE, command)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}

/// Sends a signal to one process.
pub(super) fn kill(pid: i32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("a process")?, signal).with_context(|| format!("no process {pid}"))
}
