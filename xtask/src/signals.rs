//! The signals that end this task, and those of them that it was told to ignore.

use std::ffi::{OsStr, c_int};
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that end this task, with the shell's names.
pub(crate) const ENDING: [(c_int, &str); 3] = [(SIGHUP, "HUP"), (SIGINT, "INT"), (SIGTERM, "TERM")];

/// Those of them that were ignored when this task was started, as nohup(1) does. It must be read before any is caught.
pub(crate) static IGNORED: LazyLock<Vec<(c_int, &str)>> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ENDING.into_iter().filter(|(signal, _)| mask.unwrap_or(0) >> (signal - 1) & 1 == 1).collect()
});

/// A command that stays in our process group, where signals reach both: it ignores those that we do.
pub(crate) fn with_our_signals(program: impl AsRef<OsStr>) -> Command {
    if IGNORED.is_empty() {
        return Command::new(program);
    }
    let names: Vec<&str> = IGNORED.iter().map(|(_, name)| *name).collect();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' {}; exec \"$@\"", names.join(" ")), "sh"]).arg(program);
    command
}
