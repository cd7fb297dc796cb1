//! log: to the journal with priorities, to a file otherwise; and no client, and no balancer, can flood it.

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

/// As the journal wants them: how bad, and no time, which it knows itself.
fn priorities(entry: &'static Entry) -> Result<()> {
    ended(entry, &["sh", "-c", IS_JOURNAL, "sh"], &["-vv", "--panic-on", FATAL], |ctx| {
        converse_and_panic(ctx)?;
        ctx.server.stop(WAIT_LIMIT)?;
        let log = ctx.server.whole_log();
        for line in log.lines() {
            ensure!(priority(line).is_some() && !has_time(&line[3..]), "not for the journal: {line}");
        }
        let says =
            |priority: &str, what: &str| log.lines().any(|line| line.starts_with(priority) && line.contains(what));
        ensure!(says("<3>", FATAL_SAID), "no error");
        ensure!(says("<6>", START) && says("<6>", "question cut short"), "no information");
        ensure!(says("<7>", " accepted") && says("<7>", "complex."), "nothing for who looks closely");
        Ok(())
    })
}

/// Where stderr is not the journal, though somebody else's may be: with the time.
fn no_journal(entry: &'static Entry) -> Result<()> {
    ended(entry, &["env", "JOURNAL_STREAM=1:2"], &["-vv"], |ctx| {
        converse_and_panic(ctx)?;
        ctx.server.stop(WAIT_LIMIT)?;
        all_have_time(&ctx.server.whole_log())
    })
}

/// A file is not the journal.
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

/// With the real program, told to rotate now: the server and its workers go on in a new file, and no client notices.
fn logrotate(entry: &'static Entry) -> Result<()> {
    let logrotate = tool("logrotate")?;
    let folder = Folder::new()?;
    let path = folder.path().join("1060.log");
    ended(entry, &[], &["--log-file", &path.to_string_lossy()], |ctx| {
        let mut conf = part("logrotate.conf")?;
        let signal = format!("kill -HUP {}", ctx.server.pid());
        let all = folder.path().join("*.log");
        // The folder, the user and the process are those of this test.
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
        let mut client = ctx.client()?;
        client.ask_all()?;
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
        ensure!(stopped == processes, "{stopped} of {processes} processes end in the new file: {new:?}");
        Ok(())
    })
}

/// Answers and probes leave no line. Of clients who end badly some have one, and the rest is counted: nobody is
/// forgotten.
fn lines_under_load(entry: &'static Entry) -> Result<()> {
    ended(entry, &["sh", "-c", IS_JOURNAL, "sh"], &[], |ctx| {
        // Each process that serves says that it begins.
        let serving = ctx.server.workers().len();
        let begun = |log: &str| (log.matches(START).count() == serving).then(|| log.to_owned());
        let before = ctx.server.wait_for_log(WAIT_LIMIT, begun).context("not all say that they begin")?;
        let mut busy = ctx.client()?;
        for (question, answer) in [APHORISMS[0]; 20] {
            busy.send(&question.repeat(100))?;
            busy.expect(&answer.repeat(100))?;
        }
        busy.leave()?;
        for _ in 0..CROWD {
            // A check that only connects; one that resets, as HAProxy's does; and one that asks.
            drop(ctx.client()?);
            ctx.client()?.reset()?;
            let mut check = ctx.client()?;
            check.ask(APHORISMS[0].0, APHORISMS[0].1)?;
            check.leave()?;
        }
        ensure!(ctx.server.log() == before, "who is served well shows");
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
        ensure!(stand_for.iter().sum::<usize>() == CROWD, "more than came: {stand_for:?}");
        // At most ten in a second of each process, whose seconds are not ours, and one that tells of the rest.
        let seconds = usize::try_from(start.elapsed().as_secs())? + 2;
        let most = (10 * seconds + 1) * ctx.server.workers().len();
        ensure!(stand_for.len() <= most, "{} lines in {seconds} s", stand_for.len());
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// One client that is answered, one that is cut short, and one at which the server panics.
fn converse_and_panic(ctx: &Ctx) -> Result<()> {
    converse(&ctx.server)?;
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    // Where nothing panics it is an unknown aphorism.
    client.end_sending()?;
    client.read_some().map(drop)
}

fn all_have_time(log: &str) -> Result<()> {
    ensure!(!log.is_empty(), "nothing is logged");
    let without = log.lines().find(|line| !has_time(line));
    ensure!(without.is_none(), "no time: {without:?}");
    Ok(())
}

/// `<6>` is 6.
fn priority(line: &str) -> Option<u32> {
    let (digit, _) = line.strip_prefix('<')?.split_once('>')?;
    digit.parse().ok().filter(|priority| (3..=7).contains(priority))
}

/// `2026-01-31T…`
fn has_time(line: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| if [4, 7].contains(&at) { byte == b'-' } else { byte.is_ascii_digit() };
    line.len() > 10 && line.bytes().take(10).enumerate().all(shape) && line.as_bytes()[10] == b'T'
}

/// What systemd does for a service whose stderr is the journal.
const IS_JOURNAL: &str = "JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec \"$@\"";

const FATAL: &str = "Who panics?";

const START: &str = "clients at once";

/// What a panic says of itself.
const FATAL_SAID: &str = "panicked";

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
