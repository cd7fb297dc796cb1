//! SIGHUP reopens the log file, as logrotate wants it, and costs no client.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::supervision::send;
use super::super::{Case, bare, ended};
use super::{END, File, START};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("sighup_reopens_the_log_file", |entry, _| reopens(entry, &[])),
    bare("sighup_reopens_the_log_file_under_nohup", |entry, _| reopens(entry, NOHUP)),
    bare("sighup_that_cannot_reopen", cannot_reopen),
    bare("a_worker_without_the_log_file", a_worker_without_the_log_file).on(|entry| entry.processes > 1),
    bare("sighup_while_a_worker_starts", sighup_while_a_worker_starts).on(|entry| entry.processes > 1),
];

/// Lines from before the signal are in the renamed file; those after it, of each process, are in the new one.
fn reopens(entry: &'static Entry, wrapper: &[&str]) -> Result<()> {
    let [new, old] = ["rotated", "rotated.1"].map(|name| File::new(entry, name));
    ended(entry, wrapper, &["--log-file", &new.path()], |ctx| {
        let processes = ctx.server.processes().len();
        let mut client = ctx.client()?;
        client.ask_all()?;
        // Its first lines may still be on their way.
        wait_for(WAIT_LIMIT, || new.read().contains(START).then_some(())).context("no first line")?;
        fs::rename(&new.0, &old.0)?;
        ctx.server.signal(Signal::HUP)?;
        wait_for(WAIT_LIMIT, || new.0.exists().then_some(())).context("there is no new file")?;
        client.ask_all().context("a client from before the signal")?;
        drop(client);
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        let [before, after] = [old.read(), new.read()];
        ensure!(before.contains(START) && !before.contains("stopped"), "the old file has {before:?}");
        let stopped = after.matches("stopped").count();
        ensure!(stopped == processes, "{stopped} of {processes} processes end in the new file: {after:?}");
        Ok(())
    })
}

/// Where the path has become a folder, lines still go to the old file, and one of each process says why.
fn cannot_reopen(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let [path, old] = ["refused", "refused.1"].map(|name| File::new(entry, name));
    ended(entry, &[], &["--log-file", &path.path()], |ctx| {
        let processes = ctx.server.processes().len();
        fs::rename(&path.0, &old.0)?;
        fs::create_dir(&path.0)?;
        ctx.server.signal(Signal::HUP)?;
        let says = |log: String| (log.matches(&*path.path()).count() == processes).then_some(());
        wait_for(WAIT_LIMIT, || says(old.read())).with_context(|| format!("the old file has {:?}", old.read()))?;
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(old.read().contains(END), "the old file is not written any more");
        Ok(())
    })
}

/// A worker that is started when the file cannot be opened any more serves, and says on stderr what is wrong. SIGHUP
/// makes it good.
fn a_worker_without_the_log_file(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let [path, old] = ["worker", "worker.1"].map(|name| File::new(entry, name));
    ended(entry, &[], &["--log-file", &path.path()], |ctx| {
        fs::rename(&path.0, &old.0)?;
        fs::create_dir(&path.0)?;
        send(Signal::KILL, ctx.server.workers()[0])?;
        let says = |log: &str| (log.contains(&*path.path()) && log.contains(START)).then_some(());
        ctx.server.wait_for_log(WAIT_LIMIT, says).context("the new worker does not say that it begins")?;
        ctx.client()?.ask_all()?;
        fs::remove_dir(&path.0)?;
        ctx.server.signal(Signal::HUP)?;
        wait_for(WAIT_LIMIT, || path.0.exists().then_some(())).context("there is no new file")?;
        let processes = ctx.server.processes().len();
        ctx.server.stop(WAIT_LIMIT)?;
        let stopped = path.read().matches("stopped").count();
        ensure!(stopped == processes, "{stopped} of {processes} processes end in the file");
        Ok(())
    })
}

/// A worker that is not ready for SIGHUP would die of it: it is sent when the worker is.
fn sighup_while_a_worker_starts(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new(entry, "starting");
    ended(entry, &[], &["--log-file", &file.path()], |ctx| {
        let workers = ctx.server.workers();
        let begun = || file.read().matches(START).count();
        let before = begun();
        workers.iter().try_for_each(|&worker| send(Signal::KILL, worker))?;
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

/// As nohup(1) does, and leaves stderr alone.
pub(crate) const NOHUP: &[&str] = &["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
