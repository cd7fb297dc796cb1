//! The log: what it says at each level, how much at most, and that no stderr, however broken, is noticed by a client.

pub(crate) mod broken;
pub(crate) mod limit;
pub(crate) mod rotation;

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, case, ended};
use crate::harness::client::APHORISMS;
use crate::harness::group::{Group, run_within};
use crate::harness::log::{converse, stands_for};
use crate::harness::{WAIT_LIMIT, shown};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("quiet", |entry, _| says(entry, &[], &["-q"], &[])),
    bare("default", |entry, _| says(entry, &[], &[], &[START, CUT_SHORT, END])),
    bare("verbose", |entry, _| says(entry, &[], &["-v"], &[START, CUT_SHORT, END, COME, GONE])),
    bare("very_verbose", |entry, _| says(entry, &[], &["-vv"], &[START, CUT_SHORT, END, COME, GONE, QUESTION])),
    bare("rust_log_overrides_less", |entry, _| says(entry, &["env", "RUST_LOG=error"], &["-vv"], &[])),
    bare("rust_log_overrides_more", |entry, _| {
        says(entry, &["env", "RUST_LOG=trace"], &["-q"], &[START, CUT_SHORT, END, COME, GONE, QUESTION])
    }),
    bare("log_file", log_file),
    bare("log_file_is_stdout", log_file_is_stdout),
    case("probes_do_not_show", probes_do_not_show),
    case("some_lines_of_a_kind", some_lines_of_a_kind),
];

const START: &str = " clients at once";
const CUT_SHORT: &str = "question cut short: \"Simple is bet\"";
const END: &str = "stopped after ";
const COME: &str = " accepted";
const GONE: &str = " closed: finished";
const QUESTION: &str = " asks \"Simple is better than?\"";
const ALL: [&str; 6] = [START, CUT_SHORT, END, COME, GONE, QUESTION];

/// Exactly these things are said of a start, a client who is done, one who is cut short, and an end.
fn says(entry: &'static Entry, wrapper: &[&str], arguments: &[&str], expected: &[&str]) -> Result<()> {
    ended(entry, wrapper, arguments, |ctx| {
        converse(&ctx.server)?;
        ctx.server.stop(WAIT_LIMIT)?;
        is_said(&ctx.server.whole_log(), expected)
    })
}

fn is_said(log: &str, expected: &[&str]) -> Result<()> {
    for what in ALL {
        let is_there = log.lines().any(|line| line.contains(what));
        ensure!(is_there == expected.contains(&what), "{what:?} is {}there", if is_there { "" } else { "not " });
    }
    ensure!(!expected.is_empty() || log.is_empty(), "it is not quiet");
    Ok(())
}

/// The log is in the file and stderr is empty; what was in the file stays.
fn log_file(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new(entry, "log");
    fs::write(&file.0, "before\n")?;
    ended(entry, &[], &["--log-file", &file.path()], |ctx| {
        converse(&ctx.server)?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(ctx.server.whole_log().is_empty(), "stderr is not empty");
        let log = fs::read_to_string(&file.0)?;
        ensure!(log.starts_with("before\n"), "what was there is gone");
        is_said(&log, &[START, CUT_SHORT, END])
    })
}

/// Nothing but the ready line may go to stdout: one line says so, and with workers there is no ready line either.
fn log_file_is_stdout(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for path in ["/dev/stdout", "/proc/self/fd/1"] {
        let output = run_within(WAIT_LIMIT, entry.command()?.args(["-p", "0", "-vv", "--log-file", path]))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let is_one_line = errors.lines().count() == 1 && errors.starts_with(&format!("error: the log file {path} "));
        let seen = format!("{}, stdout {}, stderr {errors}", output.status, shown(&output.stdout));
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && is_one_line, "{seen}");
    }
    // Both may go nowhere.
    let mut server = Group::start(
        entry.command()?.args(["-p", "0", "--log-file", "/dev/null"]).stdout(Stdio::null()).stderr(Stdio::null()),
    )?;
    let early = server.ended_within(MOMENT);
    ensure!(early.is_none(), "with everything in /dev/null it ended: {early:?}");
    Ok(())
}

/// Health checks connect and leave, every second of a server's life.
fn probes_do_not_show(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.log();
    for _ in 0..10 {
        drop(ctx.client()?);
        ctx.client()?.leave()?;
    }
    // Whoever comes after them is served after them.
    ctx.client()?.ask_all()?;
    ensure!(ctx.server.log() == before, "they show");
    Ok(())
}

/// Clients end in unusual ways, many in a moment: the log takes a few lines of that and the number of the rest.
fn some_lines_of_a_kind(ctx: &mut Ctx) -> Result<()> {
    let cut_short = |log: &str| log.lines().filter(|line| line.contains(CUT_SHORT)).map(stands_for).collect::<Vec<_>>();
    let start = Instant::now();
    for _ in 0..CROWD {
        let mut client = ctx.client()?;
        client.send(b"Simple is bet")?;
        client.leave()?;
    }
    let seconds = usize::try_from(start.elapsed().as_secs())? + 1;
    let some = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains(CUT_SHORT).then_some(()));
    some.context("none of them is in the log")?;
    let lines = cut_short(&ctx.server.log()).len();
    let most = SOME_LINES * seconds * ctx.server.workers().len();
    ensure!(lines <= most, "{lines} lines for {CROWD} clients in {seconds} s");
    // A second of silence, and each process tells how many it has left out.
    let all = ctx.server.wait_for_log(WAIT_LIMIT, |log| (cut_short(log).iter().sum::<usize>() >= CROWD).then_some(()));
    all.context("those left out are not counted")?;
    let counted = cut_short(&ctx.server.log());
    ensure!(counted.iter().sum::<usize>() == CROWD, "{CROWD} clients are counted as {counted:?}");
    Ok(())
}

/// A path in the temporary folder. What is there is removed when it goes.
struct File(PathBuf);

impl File {
    fn new(entry: &Entry, name: &str) -> File {
        static COUNT: AtomicUsize = AtomicUsize::new(0); // two cases may use the same name at the same time
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        File(std::env::temp_dir().join(format!("zen-{name}-{}-{}-{number}", std::process::id(), entry.name)))
    }

    /// As an argument.
    fn path(&self) -> Cow<'_, str> {
        self.0.to_string_lossy()
    }

    /// What is in it so far.
    fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir(&self.0));
    }
}

/// Longer than a start that fails takes.
const MOMENT: Duration = Duration::from_millis(300);

const CROWD: usize = 100;

/// Of a kind, in a second, of a process. It is half as many; but the seconds of the log are not ours.
const SOME_LINES: usize = 20;

/// So much that a pipe and all that waits before it are full.
const QUESTIONS: usize = 4000;

/// A client that asks a lot. At -vv each question is two lines: what is asked, and the answer.
fn load(ctx: &Ctx) -> Result<()> {
    let (question, answer) = APHORISMS[0];
    let mut client = ctx.client()?;
    for _ in 0..QUESTIONS / 100 {
        client.send(&question.repeat(100))?;
        client.expect(&answer.repeat(100))?;
    }
    Ok(())
}
