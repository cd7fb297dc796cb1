//! SIGHUP reopens the log file, as logrotate needs it, and disconnects no client.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::{Case, bare, ended};
use super::{END, File, START};
use crate::harness::{WAIT_LIMIT, process, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("sighup_reopens_the_log_file", |entry, _| reopens(entry, &[])),
    bare("sighup_reopens_the_log_file_under_nohup", |entry, _| reopens(entry, NOHUP)),
    bare("sighup_that_cannot_reopen", cannot_reopen),
    bare("a_worker_without_the_log_file", a_worker_without_the_log_file).on(|entry| entry.processes > 1),
    bare("sighup_while_a_worker_starts", sighup_while_a_worker_starts).on(|entry| entry.processes > 1),
];

/// Lines from before the signal are in the renamed file; those after it, from each process, are in the new one.
fn reopens(entry: &'static Entry, wrapper: &[&str]) -> Result<()> {
    let (new, old) = (File::new("rotated")?, File::new("rotated.1")?);
    ended(entry, wrapper, &["--log-file", &new.argument()], |ctx| {
        let processes = ctx.server.processes().len();
        let mut client = ctx.server.served_client()?;
        // The first lines may not be written yet.
        wait_for(WAIT_LIMIT, || new.read().contains(START).then_some(())).context("no first line")?;
        fs::rename(&new.path, &old.path)?;
        ctx.server.signal(Signal::HUP)?;
        wait_for(WAIT_LIMIT, || new.path.exists().then_some(())).context("there is no new file")?;
        client.ask_all().context("a client from before the signal")?;
        drop(client);
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        let [before, after] = [old.read(), new.read()];
        ensure!(before.contains(START) && !before.contains("stopped"), "the old file has {before:?}");
        let stopped = after.matches("stopped").count();
        ensure!(stopped == processes, "{stopped} of {processes} processes log their end in the new file: {after:?}");
        Ok(())
    })
}

/// If the path has become a folder, lines still go to the old file, and each process logs the reason.
fn cannot_reopen(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let (path, old) = (File::new("refused")?, File::new("refused.1")?);
    ended(entry, &[], &["--log-file", &path.argument()], |ctx| {
        let processes = ctx.server.processes().len();
        fs::rename(&path.path, &old.path)?;
        fs::create_dir(&path.path)?;
        ctx.server.signal(Signal::HUP)?;
        let says = |log: String| (log.matches(&*path.argument()).count() == processes).then_some(());
        wait_for(WAIT_LIMIT, || says(old.read())).with_context(|| format!("the old file has {:?}", old.read()))?;
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(old.read().contains(END), "the old file is not written any more");
        Ok(())
    })
}

/// A worker that starts when the file cannot be opened serves, and logs the error to stderr. SIGHUP makes it open the
/// file.
fn a_worker_without_the_log_file(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let (path, old) = (File::new("worker")?, File::new("worker.1")?);
    ended(entry, &[], &["--log-file", &path.argument()], |ctx| {
        fs::rename(&path.path, &old.path)?;
        fs::create_dir(&path.path)?;
        process::signal(ctx.server.workers()[0], Signal::KILL)?;
        let says = |log: &str| (log.contains(&*path.argument()) && log.contains(START)).then_some(());
        ctx.server.wait_for_log(WAIT_LIMIT, says).context("the new worker does not log its start")?;
        ctx.client()?.ask_all()?;
        fs::remove_dir(&path.path)?;
        ctx.server.signal(Signal::HUP)?;
        wait_for(WAIT_LIMIT, || path.path.exists().then_some(())).context("there is no new file")?;
        let processes = ctx.server.processes().len();
        ctx.server.stop(WAIT_LIMIT)?;
        let stopped = path.read().matches("stopped").count();
        ensure!(stopped == processes, "{stopped} of {processes} processes log their end in the file");
        Ok(())
    })
}

/// SIGHUP would kill a worker that is not ready for it, so the parent passes it on when the worker is.
fn sighup_while_a_worker_starts(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new("starting")?;
    ended(entry, &[], &["--log-file", &file.argument()], |ctx| {
        let workers = ctx.server.workers();
        let begun = || file.read().matches(START).count();
        let before = begun();
        workers.iter().try_for_each(|&worker| process::signal(worker, Signal::KILL))?;
        let deadline = Instant::now() + WAIT_LIMIT;
        while begun() < before + workers.len() {
            ensure!(Instant::now() < deadline, "the workers are not replaced: {}", file.read());
            (0..100).try_for_each(|_| ctx.server.signal(Signal::HUP))?;
        }
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        let log = file.read();
        ensure!(!log.contains("died by signal 1;"), "a worker died of SIGHUP: {log}");
        Ok(())
    })
}

/// A shell that ignores SIGHUP as nohup(1) does, and leaves stderr alone.
pub(crate) const NOHUP: &[&str] = &["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
