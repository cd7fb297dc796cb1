//! A log that cannot be written for a while, or was never one: clients are served, and what is lost is counted.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::super::command_line::is_one_error;
use super::super::{Case, bare, ended};
use super::{File, QUESTION, QUESTIONS, load};
use crate::harness::capture::Capture;
use crate::harness::group::{Group, run_within};
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    bare("log_file_at_its_limit", log_file_at_its_limit),
    bare("log_file_is_a_pipe_without_reader", log_file_is_a_pipe_without_reader),
    bare("log_file_cannot_be_one", log_file_cannot_be_one).on(Entry::is_first_of_package),
    bare("error_line_at_the_limit", error_line_at_the_limit).on(Entry::is_first_of_package),
];

/// At RLIMIT_FSIZE the file takes nothing. When it was emptied, a fresh line says how many were lost.
fn log_file_at_its_limit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new(entry, "limit");
    ended(entry, AT_LIMIT, &["-vv", "--log-file", &file.path()], |ctx| {
        load(ctx)?;
        ctx.server.falls_asleep(WAIT_LIMIT)?;
        let before = file.read();
        ensure!(LIMITS.contains(&before.len()), "the file is not at its limit: {} bytes", before.len());
        fs::File::options().write(true).open(&file.0)?.set_len(0)?;
        // Each process that lost something says so by itself.
        let told = |log: &str| log.lines().filter_map(lost).sum::<usize>();
        let is_whole = |line: &&str| ASKED_AND_ANSWERED.iter().any(|end| line.ends_with(end));
        let whole = |log: &str| log.lines().filter(is_whole).count();
        let all = || Some(file.read()).filter(|log| whole(&before) + told(log) >= LINES);
        let after = wait_for(WAIT_LIMIT, all).with_context(|| format!("not all are counted: {:?}", file.read()))?;
        ensure!(after.lines().all(|line| line.starts_with("20")), "not each line is a fresh one: {after:?}");
        // Besides the questions there are a few lines of each process, and of the client.
        let most = LINES + 4 * ctx.server.processes().len();
        ensure!(whole(&before) + told(&after) <= most, "{} of {most} are lost", told(&after));

        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(file.read().contains(QUESTION), "the log does not go on");
        Ok(())
    })
}

/// It serves at once, and goes on when a reader leaves. Each reader finds what the pipe could hold, and the number of
/// the rest.
fn log_file_is_a_pipe_without_reader(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new(entry, "pipe");
    mknodat(CWD, &file.0, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    ended(entry, &[], &["-vv", "--log-file", &file.path()], |ctx| {
        for reader in 1..=2 {
            load(ctx)?;
            ctx.client()?.ask_all()?;
            let mut cat = Group::start(Command::new("cat").arg(&file.0).stdout(Stdio::piped()))?;
            let read = Capture::of(cat.child().stdout.take().expect("it is piped"))?;
            let told = |read: &[u8]| String::from_utf8_lossy(read).lines().find_map(lost);
            let told = read.wait_for(WAIT_LIMIT, told);
            told.with_context(|| format!("reader {reader}: what did not fit into the pipe is not counted"))?;
        }
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// A folder and a socket take no lines: one error line.
fn log_file_cannot_be_one(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let [folder, socket] = ["folder", "socket"].map(|name| File::new(entry, name));
    fs::create_dir(&folder.0)?;
    let _listener = UnixListener::bind(&socket.0)?;
    for path in [folder.path(), socket.path()] {
        let output = run_within(WAIT_LIMIT, entry.command()?.args(["-p", "0", "--log-file", &path]))?;
        is_one_error(&output, 1)?;
        let line = String::from_utf8_lossy(&output.stderr);
        ensure!(line.contains(&*path) && line.contains("--log-file"), "it does not say what to do: {line}");
    }
    Ok(())
}

/// The line cannot be written. The status says what it would have said.
fn error_line_at_the_limit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for (arguments, status) in [(["-p", "http"], 2), (["-p0", "192.0.2.1"], 1)] {
        let mut command = Command::new("sh");
        command.args(["-c", "f=$(mktemp); exec 2>>$f; rm $f; ulimit -f 0; exec \"$@\"", "sh"]);
        let output = run_within(WAIT_LIMIT, command.arg(workspace::binary(entry.binary)?).args(arguments))?;
        ensure!(output.status.code() == Some(status), "{arguments:?}: {}", output.status);
    }
    Ok(())
}

/// How many were lost, if `line` says so.
fn lost(line: &str) -> Option<usize> {
    line.strip_suffix(" lines of the log were lost before this")?.rsplit(' ').next()?.parse().ok()
}

/// How the two lines of each question of [`load`] end.
const ASKED_AND_ANSWERED: [&str; 2] = [" is better than?\"", " is answered ugly."];

/// How many lines [`load`] causes.
const LINES: usize = 2 * QUESTIONS;

const AT_LIMIT: &[&str] = &["sh", "-c", "ulimit -f 16; exec \"$@\"", "sh"];

/// Blocks of 512 bytes as POSIX has it, or of 1024 as some shells do.
const LIMITS: [usize; 2] = [8192, 16384];
