//! The log: its lines at each level, their limit per second, and a stderr that cannot be written, which no client
//! notices.

pub(crate) mod broken;
pub(crate) mod limit;
pub(crate) mod rotation;

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, case, ended};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::folder::Folder;
use crate::harness::group::{Group, run_within};
use crate::harness::log::{converse, stands_for};
use crate::harness::{WAIT_LIMIT, expect_one_error};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("quiet", |entry, _| logs(entry, &[], &["-q"], &[])),
    bare("default", |entry, _| logs(entry, &[], &[], &[START, CUT_SHORT, END])),
    bare("verbose", |entry, _| logs(entry, &[], &["-v"], &[START, CUT_SHORT, END, COME, GONE])),
    bare("very_verbose", |entry, _| logs(entry, &[], &["-vv"], &[START, CUT_SHORT, END, COME, GONE, QUESTION])),
    bare("rust_log_overrides_less", |entry, _| logs(entry, &["env", "RUST_LOG=error"], &["-vv"], &[])),
    bare("rust_log_overrides_more", |entry, _| {
        logs(entry, &["env", "RUST_LOG=trace"], &["-q"], &[START, CUT_SHORT, END, COME, GONE, QUESTION])
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

/// Expects exactly these lines about a start, a client that is answered, one that is cut short, and an end.
fn logs(entry: &'static Entry, wrapper: &[&str], arguments: &[&str], expected: &[&str]) -> Result<()> {
    ended(entry, wrapper, arguments, |ctx| {
        converse(&ctx.server)?;
        ctx.server.stop(WAIT_LIMIT)?;
        expect_lines(&ctx.server.whole_log(), expected)
    })
}

fn expect_lines(log: &str, expected: &[&str]) -> Result<()> {
    for what in ALL {
        let is_there = log.lines().any(|line| line.contains(what));
        let wrong = if is_there { "should not be" } else { "is not" };
        ensure!(is_there == expected.contains(&what), "{what:?} {wrong} in the log");
    }
    ensure!(!expected.is_empty() || log.is_empty(), "the log is not empty");
    Ok(())
}

/// The log is appended to the file, and stderr stays empty.
fn log_file(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new("log")?;
    fs::write(&file.path, "before\n")?;
    ended(entry, &[], &["--log-file", &file.argument()], |ctx| {
        converse(&ctx.server)?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(ctx.server.whole_log().is_empty(), "stderr is not empty");
        let log = fs::read_to_string(&file.path)?;
        ensure!(log.starts_with("before\n"), "the file was truncated");
        expect_lines(&log, &[START, CUT_SHORT, END])
    })
}

/// A log file that is also stdout is refused with one error, because only the ready line may go to stdout. The same
/// holds for servers with workers, whose parent prints the ready line.
fn log_file_is_stdout(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for path in ["/dev/stdout", "/proc/self/fd/1"] {
        let output = run_within(WAIT_LIMIT, entry.command()?.args(["-p", "0", "-vv", "--log-file", path]))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        expect_one_error(&output, 1)?;
        ensure!(errors.starts_with(&format!("error: the log file {path} ")), "{errors}");
    }
    // stdout and log may both be /dev/null.
    let mut server = Group::start(
        entry.command()?.args(["-p", "0", "--log-file", "/dev/null"]).stdout(Stdio::null()).stderr(Stdio::null()),
    )?;
    let early = server.ended_within(MOMENT);
    ensure!(early.is_none(), "with log and stdout in /dev/null it exited: {early:?}");
    Ok(())
}

/// Health checks, which connect and close every second, leave no line in the log.
fn probes_do_not_show(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.log();
    for _ in 0..10 {
        drop(ctx.client()?);
        ctx.client()?.leave()?;
    }
    // A client that connects after them is served after them.
    ctx.client()?.ask_all()?;
    ensure!(ctx.server.log() == before, "health checks are logged");
    Ok(())
}

/// Many clients end in the same unusual way within a short time: a few of them are logged, and the others counted.
fn some_lines_of_a_kind(ctx: &mut Ctx) -> Result<()> {
    let cut_short = |log: &str| log.lines().filter(|line| line.contains(CUT_SHORT)).map(stands_for).collect::<Vec<_>>();
    let start = Instant::now();
    for _ in 0..CROWD {
        let mut client = ctx.client()?;
        client.send(b"Simple is bet")?;
        client.leave()?;
    }
    let seconds = usize::try_from(start.elapsed().as_secs())? + 1;
    ctx.server.logs(CUT_SHORT)?;
    let lines = cut_short(&ctx.server.log()).len();
    // Where each client has a process, the limit applies to that process, which logs only one line.
    let most = if ctx.entry.forks { CROWD } else { SOME_LINES * seconds * ctx.server.workers().len() };
    ensure!(lines <= most, "{lines} lines for {CROWD} clients in {seconds} s");
    // After a second without such lines, each process logs how many it has left out.
    let all = ctx.server.wait_for_log(WAIT_LIMIT, |log| (cut_short(log).iter().sum::<usize>() >= CROWD).then_some(()));
    all.context("lines that were left out are not counted")?;
    let counted = cut_short(&ctx.server.log());
    ensure!(counted.iter().sum::<usize>() == CROWD, "{CROWD} clients are counted as {counted:?}");
    Ok(())
}

/// A path in a temporary folder, which is removed with everything in it.
struct File {
    path: PathBuf,
    _folder: Folder,
}

impl File {
    fn new(name: &str) -> Result<File> {
        let folder = Folder::new()?;
        Ok(File { path: folder.path().join(name), _folder: folder })
    }

    /// Returns the path as an argument.
    fn argument(&self) -> Cow<'_, str> {
        self.path.to_string_lossy()
    }

    /// Returns the content of the file so far.
    fn read(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }
}

/// Longer than a failed start takes.
const MOMENT: Duration = Duration::from_millis(300);

const CROWD: usize = 100;

/// The maximum number of lines of one kind in a second of the test, from each process. The limit is half of this, but a
/// second of the test may overlap with two seconds of the log.
const SOME_LINES: usize = 20;

/// Enough questions to fill a pipe and all buffers before it.
const QUESTIONS: usize = 4000;

/// Runs a client that asks many questions. At -vv each is two lines: the question and the answer.
fn load(ctx: &Ctx) -> Result<Client> {
    let (question, answer) = APHORISMS[0];
    let mut client = ctx.client()?;
    for _ in 0..QUESTIONS / 100 {
        client.send(&question.repeat(100))?;
        client.expect(&answer.repeat(100))?;
    }
    Ok(client)
}
