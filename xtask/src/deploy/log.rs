//! log: lines for the journal have priorities, others have times, and neither clients nor a balancer can flood the log.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::fixture::{every, on_each, part, succeeds};
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::log::{converse, stands_for};
use crate::harness::verdict::{Ctx, ended};
use crate::harness::{WAIT_LIMIT, tool, wait_for};
use crate::servers::Entry;
use crate::trial::Trial;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        on_each("log::priorities", every, priorities),
        on_each("log::no_journal", Entry::is_first_of_package, no_journal),
        on_each("log::log_file", Entry::is_first_of_package, log_file),
        on_each("log::logrotate", every, logrotate),
        on_each("log::lines_under_load", every, lines_under_load),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// Lines for the journal have a priority and no time, which the journal records itself.
fn priorities(entry: &'static Entry) -> Result<()> {
    ended(entry, &["sh", "-c", IS_JOURNAL, "sh"], &["-vv", "--panic-on", FATAL], |ctx| {
        converse_and_panic(ctx)?;
        ctx.server.stop(WAIT_LIMIT)?;
        let log = ctx.server.whole_log();
        for line in log.lines() {
            ensure!(priority(line).is_some() && !has_time(&line[3..]), "not a line for the journal: {line}");
        }
        let has =
            |priority: &str, what: &str| log.lines().any(|line| line.starts_with(priority) && line.contains(what));
        ensure!(has("<3>", PANICKED), "no line with priority error");
        ensure!(has("<6>", START) && has("<6>", "question cut short"), "no line with priority info");
        ensure!(has("<7>", " accepted") && has("<7>", "complex."), "no line with priority debug");
        Ok(())
    })
}

/// JOURNAL_STREAM that names another stream than stderr is ignored: lines have the time.
fn no_journal(entry: &'static Entry) -> Result<()> {
    ended(entry, &["env", "JOURNAL_STREAM=1:2"], &["-vv"], |ctx| {
        converse_and_panic(ctx)?;
        ctx.server.stop(WAIT_LIMIT)?;
        all_have_time(&ctx.server.whole_log())
    })
}

/// A log file is not the journal: lines have the time.
fn log_file(entry: &'static Entry) -> Result<()> {
    let folder = Folder::new()?;
    let path = folder.write("log", "")?;
    ended(entry, &["sh", "-c", IS_JOURNAL, "sh"], &["-vv", "--log-file", &path.to_string_lossy()], |ctx| {
        converse_and_panic(ctx)?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(ctx.server.whole_log().is_empty(), "stderr is not empty");
        all_have_time(&fs::read_to_string(&path)?)
    })
}

/// The real logrotate rotates the file: the server and its workers continue in a new one, and clients stay connected.
fn logrotate(entry: &'static Entry) -> Result<()> {
    let logrotate = tool("logrotate")?;
    let folder = Folder::new()?;
    let path = folder.path().join("1060.log");
    ended(entry, &[], &["--log-file", &path.to_string_lossy()], |ctx| {
        let mut conf = part("logrotate.conf")?;
        let signal = format!("kill -HUP {}", ctx.server.pid());
        let all = folder.path().join("*.log");
        // Folder, user and process are those of this test.
        for (of_the_part, of_the_test) in [
            ("/var/log/zen/*.log", &*all.to_string_lossy()),
            ("    su zen zen\n", ""),
            ("pkill -HUP -u zen '^zen-' || true", &signal),
        ] {
            ensure!(conf.contains(of_the_part), "logrotate.conf has no {of_the_part:?}");
            conf = conf.replace(of_the_part, of_the_test);
        }
        let conf = folder.write("logrotate.conf", &conf)?;
        let processes = ctx.server.processes().len();
        let mut client = ctx.server.served_client()?;
        let state = folder.path().join("state");
        succeeds(Command::new(logrotate).arg("--force").arg("--state").args([&state, &conf]))?;
        wait_for(WAIT_LIMIT, || path.exists().then_some(())).context("there is no new file")?;
        client.ask_all().context("a client from before the rotation")?;
        client.leave()?;
        ctx.server.stop(WAIT_LIMIT)?;
        let old = fs::read_to_string(folder.path().join("1060.log.1"))?;
        ensure!(old.contains(START) && !old.contains("stopped"), "the old file has {old:?}");
        let new = fs::read_to_string(&path)?;
        let stopped = new.matches("stopped").count();
        ensure!(stopped == processes, "{stopped} of {processes} processes log their end in the new file: {new:?}");
        Ok(())
    })
}

/// Answers and health checks are not logged. Of many clients with an unusual ending, some are logged in a line each,
/// and the others are counted in one line.
fn lines_under_load(entry: &'static Entry) -> Result<()> {
    ended(entry, &["sh", "-c", IS_JOURNAL, "sh"], &[], |ctx| {
        // Each process that serves logs its start.
        let serving = ctx.server.workers().len();
        let begun = |log: &str| (log.matches(START).count() == serving).then(|| log.to_owned());
        let before = ctx.server.wait_for_log(WAIT_LIMIT, begun).context("not all processes log their start")?;
        let mut busy = ctx.client()?;
        for (question, answer) in [APHORISMS[0]; 20] {
            busy.send(&question.repeat(100))?;
            busy.expect(&answer.repeat(100))?;
        }
        busy.leave()?;
        for _ in 0..CROWD {
            // Three health checks: one that only connects, one that resets as HAProxy does, and one that asks.
            drop(ctx.client()?);
            ctx.client()?.reset()?;
            let mut check = ctx.client()?;
            check.ask(APHORISMS[0].0, APHORISMS[0].1)?;
            check.leave()?;
        }
        ensure!(ctx.server.log() == before, "a client that ended well is logged");
        let start = Instant::now();
        for _ in 0..CROWD {
            let mut client = ctx.client()?;
            client.send(b"Simple is bet")?;
            client.leave()?;
        }
        let counted = ctx.server.wait_for_log(WAIT_LIMIT, |log| {
            let stand_for = log.lines().filter(|line| line.contains(CUT_SHORT)).map(stands_for);
            (stand_for.sum::<usize>() >= CROWD).then(|| log.to_owned())
        });
        let log = counted.with_context(|| format!("not all of {CROWD} are counted"))?;
        let stand_for: Vec<usize> = log.lines().filter(|line| line.contains(CUT_SHORT)).map(stands_for).collect();
        ensure!(stand_for.iter().sum::<usize>() == CROWD, "more than {CROWD} are counted: {stand_for:?}");
        // Each process logs at most ten lines a second, and one with the number of the others. The seconds of processes
        // begin at different times.
        let seconds = usize::try_from(start.elapsed().as_secs())? + 2;
        // With a process for each client, each has its own limit, and writes one line.
        let most = if ctx.entry.forks { CROWD } else { (10 * seconds + 1) * ctx.server.workers().len() };
        ensure!(stand_for.len() <= most, "{} lines in {seconds} s", stand_for.len());
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// Runs one client that is answered, one that is cut short, and one whose answer panics.
fn converse_and_panic(ctx: &Ctx) -> Result<()> {
    converse(&ctx.server)?;
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    // Without --panic-on it is an unknown aphorism.
    client.end_sending()?;
    client.read_some().map(drop)
}

fn all_have_time(log: &str) -> Result<()> {
    ensure!(!log.is_empty(), "nothing is logged");
    let without = log.lines().find(|line| !has_time(line));
    ensure!(without.is_none(), "no time: {without:?}");
    Ok(())
}

/// Parses the priority: `<6>` is 6.
fn priority(line: &str) -> Option<u32> {
    let (digit, _) = line.strip_prefix('<')?.split_once('>')?;
    digit.parse().ok().filter(|priority| (3..=7).contains(priority))
}

/// Returns whether the line begins like `2026-01-31T…`.
fn has_time(line: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| if [4, 7].contains(&at) { byte == b'-' } else { byte.is_ascii_digit() };
    line.len() > 10 && line.bytes().take(10).enumerate().all(shape) && line.as_bytes()[10] == b'T'
}

/// A shell that sets JOURNAL_STREAM as systemd does when stderr is the journal.
const IS_JOURNAL: &str = "JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec \"$@\"";

const FATAL: &str = "Who panics?";

const START: &str = "clients at once";

/// A word of the panic's line.
const PANICKED: &str = "panicked";

const CUT_SHORT: &str = "question cut short";

const CROWD: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        assert_eq!(priority("<6>[main] up"), Some(6));
        assert_eq!(priority("<9>[main] up"), None);
        assert_eq!(priority("6 up"), None);
        assert!(has_time("2026-01-31T00:00:00Z [INFO]") && !has_time("[main] 2026-01-31T"));
    }
}
