//! The signals that end this task, and those of them that were ignored when it was started.

use std::ffi::{OsStr, c_int};
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that end this task, with the names that a shell uses.
pub(crate) const ENDING: [(c_int, &str); 3] = [(SIGHUP, "HUP"), (SIGINT, "INT"), (SIGTERM, "TERM")];

/// The signals of [`ENDING`] that were ignored when this task was started, as by nohup(1). Must be read before one of
/// them is caught.
pub(crate) static IGNORED: LazyLock<Vec<(c_int, &str)>> =
    LazyLock::new(|| ENDING.into_iter().filter(|(signal, _)| is_ignored(*signal).unwrap_or(false)).collect());

/// Returns whether this task ignores `signal`. A process inherits ignored signals from its parent.
pub(crate) fn is_ignored(signal: c_int) -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).context("no SigIgn in /proc")?;
    Ok(u64::from_str_radix(ignored.trim(), 16)? >> (signal - 1) & 1 == 1)
}

/// Returns a command for a program that runs in this task's process group. It ignores the signals of [`IGNORED`], which
/// this task itself catches.
pub(crate) fn command_with_ignored_signals(program: impl AsRef<OsStr>) -> Command {
    if IGNORED.is_empty() {
        return Command::new(program);
    }
    let names: Vec<&str> = IGNORED.iter().map(|(_, name)| *name).collect();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' {}; exec \"$@\"", names.join(" ")), "sh"]).arg(program);
    command
}
