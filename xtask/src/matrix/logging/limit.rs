//! A log file that cannot be written for a while, or that is refused at the start. Clients are served meanwhile, and
//! lost lines are counted.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::super::{Case, bare, ended};
use super::{File, QUESTION, QUESTIONS, load};
use crate::harness::group::{Group, run_within};
use crate::harness::{WAIT_LIMIT, expect_one_error, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    bare("log_file_at_its_limit", log_file_at_its_limit),
    bare("log_file_is_a_pipe_without_reader", log_file_is_a_pipe_without_reader),
    bare("log_file_cannot_be_one", log_file_cannot_be_one).on(Entry::is_first_of_package),
    bare("error_line_at_the_limit", error_line_at_the_limit).on(Entry::is_first_of_package),
];

/// At RLIMIT_FSIZE the file takes no more lines. After it was truncated, a line says how many were lost.
fn log_file_at_its_limit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new("limit")?;
    ended(entry, AT_LIMIT, &["-vv", "--log-file", &file.argument()], |ctx| {
        let client = load(ctx)?; // it stays, or its process would exit before the file takes a line
        ctx.server.wait_until_asleep(WAIT_LIMIT)?;
        let before = file.read();
        ensure!(LIMITS.contains(&before.len()), "the file is not at its limit: {} bytes", before.len());
        fs::File::options().write(true).open(&file.path)?.set_len(0)?;
        // Each process reports the lines that it has lost.
        let told = |log: &str| log.lines().filter_map(lost).sum::<usize>();
        let is_whole = |line: &&str| ASKED_AND_ANSWERED.iter().any(|end| line.ends_with(end));
        let whole = |log: &str| log.lines().filter(is_whole).count();
        let all = || Some(file.read()).filter(|log| whole(&before) + told(log) >= LINES);
        let after = wait_for(WAIT_LIMIT, all).with_context(|| format!("not all are counted: {:?}", file.read()))?;
        ensure!(after.lines().all(|line| line.starts_with("20")), "a line has no time stamp: {after:?}");
        // There are a few more lines of each process and of the client.
        let most = LINES + 4 * ctx.server.processes().len();
        let (written, left_out) = (whole(&before), told(&after));
        ensure!(
            written + left_out <= most,
            "{written} lines were written and {left_out} counted as lost, which is more than {most}"
        );

        drop(client);
        ctx.client()?.ask_all()?;
        ctx.server.stop(WAIT_LIMIT)?;
        ensure!(file.read().contains(QUESTION), "the log does not go on");
        Ok(())
    })
}

/// The server serves immediately, and goes on after a reader has left. Each reader receives what the pipe held, and the
/// number of lost lines.
fn log_file_is_a_pipe_without_reader(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let file = File::new("pipe")?;
    mknodat(CWD, &file.path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    ended(entry, &[], &["-vv", "--log-file", &file.argument()], |ctx| {
        for reader in 1..=2 {
            let mut client = load(ctx)?; // it stays, or its process would exit before there is a reader
            client.ask_all()?;
            let mut cat = Group::start(Command::new("cat").arg(&file.path).stdout(Stdio::piped()))?;
            let read = cat.capture_stdout()?;
            let told = |read: &[u8]| String::from_utf8_lossy(read).lines().find_map(lost);
            let told = read.wait_for(WAIT_LIMIT, told);
            told.with_context(|| format!("reader {reader}: the lines that were lost are not counted"))?;
        }
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// A folder or a socket as --log-file is refused with one line of error.
fn log_file_cannot_be_one(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let (folder, socket) = (File::new("folder")?, File::new("socket")?);
    fs::create_dir(&folder.path)?;
    let _listener = UnixListener::bind(&socket.path)?;
    for path in [folder.argument(), socket.argument()] {
        let output = run_within(WAIT_LIMIT, entry.command()?.args(["-p", "0", "--log-file", &path]))?;
        expect_one_error(&output, 1)?;
        let line = String::from_utf8_lossy(&output.stderr);
        ensure!(line.contains(&*path) && line.contains("--log-file"), "the error does not name path and flag: {line}");
    }
    Ok(())
}

/// The error cannot be written, but the exit status is still right.
fn error_line_at_the_limit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for (arguments, status) in [(["-p", "http"], 2), (["-p0", "192.0.2.1"], 1)] {
        let mut command = Command::new("sh");
        command.args(["-c", "f=$(mktemp); exec 2>>$f; rm $f; ulimit -f 0; exec \"$@\"", "sh"]);
        let output = run_within(WAIT_LIMIT, command.arg(workspace::binary(entry.binary)?).args(arguments))?;
        ensure!(output.status.code() == Some(status), "{arguments:?}: {}", output.status);
    }
    Ok(())
}

/// Returns how many lines were lost, if `line` reports it.
fn lost(line: &str) -> Option<usize> {
    line.strip_suffix(" lines of the log were lost before this")?.rsplit(' ').next()?.parse().ok()
}

/// The ends of the two lines that each question of [`load`] causes.
const ASKED_AND_ANSWERED: [&str; 2] = [" is better than?\"", " is answered ugly."];

/// How many lines [`load`] causes.
const LINES: usize = 2 * QUESTIONS;

const AT_LIMIT: &[&str] = &["sh", "-c", "ulimit -f 16; exec \"$@\"", "sh"];

/// The limit in bytes: 16 blocks of 512 bytes as in POSIX, or of 1024 as in some shells.
const LIMITS: [usize; 2] = [8192, 16384];
