//! A server under test, the learner's or one of ours, and what its threads are blocked in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::capture::Capture;
use crate::harness::client::connect;
use crate::harness::group::{Group, run_within};
use crate::harness::{Client, WAIT_LIMIT, process, wait_for};

/// A running server under test; its process group is killed and reaped on drop.
pub(super) struct Challenger {
    group: Group,
    pub(super) address: SocketAddr,
    stderr: Capture,
    observed: RefCell<Vec<String>>,
}

impl Challenger {
    /// Starts a command, in which `{port}` becomes a free port, and waits until a client can connect.
    pub(super) fn start(command: &[String]) -> Result<Self> {
        Self::start_on(command, free_address()?, WAIT_LIMIT)
    }

    /// Starts a command that may compile the server first, as `cargo run` and `go run` do.
    pub(super) fn compile_and_start(command: &[String]) -> Result<Self> {
        Self::start_on(command, free_address()?, LONGEST_COMPILATION)
    }

    /// Starts a command on the port of `address` again.
    pub(super) fn restart(&self, command: &[String]) -> Result<Self> {
        Self::start_on(command, self.address, WAIT_LIMIT)
    }

    fn start_on(command: &[String], address: SocketAddr, limit: Duration) -> Result<Self> {
        let port = address.port().to_string();
        let words: Vec<_> = command.iter().map(|word| word.replace("{port}", &port)).collect();
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut group = Group::start(&mut command)?;
        let stderr = group.capture_stderr()?;
        let is_up = || connect(address, WAIT_LIMIT).ok().map(|_| true);
        let up = wait_for(limit, || is_up().or_else(|| group.ended_within(Duration::ZERO).map(|_| false)));
        let state = if up.is_none() { "it runs, and does not listen on this port" } else { "it has ended" };
        if up == Some(false) {
            stderr.wait_for(LAST_OUTPUT, |_| None::<()>); // until all that it has printed is read
        }
        ensure!(
            up == Some(true),
            "nothing listens on {address} after `{}`: {state}\n{}",
            words.join(" "),
            last_lines(&stderr).join("\n")
        );
        Ok(Self { group, address, stderr, observed: RefCell::default() })
    }

    pub(super) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Records what the server's threads are blocked in if `outcome` is an error. Call it while the clients that caused
    /// the error are still connected.
    pub(super) fn observing<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            *self.observed.borrow_mut() = blocked(self.id());
        }
        outcome
    }

    /// Returns what the threads were blocked in at the error, a line for each; empty if there was none.
    pub(super) fn observed(&self) -> Vec<String> {
        self.observed.borrow().clone()
    }

    /// Returns the last lines that the server has printed on stderr, with a heading; empty if it has printed nothing.
    pub(super) fn stderr(&self) -> Vec<String> {
        last_lines(&self.stderr)
    }

    /// Returns its process ID, which is also that of its process group.
    pub(super) fn id(&self) -> i32 {
        self.group.id()
    }

    /// Returns the number of open descriptors of all its processes.
    pub(super) fn descriptors(&self) -> usize {
        process::usage(process::members(self.group.id())).descriptors
    }

    /// Returns the bytes of stacks and heap of all its processes.
    pub(super) fn memory(&self) -> u64 {
        process::usage(process::members(self.group.id())).memory
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns a heading and the last lines of a server's stderr; empty if it has printed nothing.
fn last_lines(stderr: &Capture) -> Vec<String> {
    let text = stderr.text();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    let heading = (!last.is_empty()).then_some("the last lines of its stderr:");
    heading.into_iter().chain(last.iter().copied()).map(str::to_owned).collect()
}

/// Returns what each thread of a process group is blocked in at this moment, a line for each. If strace is missing or
/// not allowed, a line says so.
pub(super) fn blocked(group: i32) -> Vec<String> {
    if process::members(group).is_empty() {
        return vec!["the server has ended".to_owned()];
    }
    let mut strace = Command::new("timeout");
    strace.args(["--signal=INT", WATCHED, "strace", "-qq", "-f", "-yy", "-o", "/dev/stdout"]);
    process::members(group).iter().for_each(|pid| _ = strace.args(["-p", &pid.to_string()]));
    let output = match run_within(WAIT_LIMIT, &mut strace) {
        Ok(output) => output,
        Err(error) => return vec![format!("{error:#}")],
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let calls = calls(&stdout);
    if calls.is_empty() {
        let printed = String::from_utf8_lossy(&output.stderr);
        return vec![format!("strace shows no blocked thread: {}", printed.lines().next().unwrap_or_default())];
    }
    calls.iter().map(|(thread, call)| format!("thread {thread} is blocked in {call}")).collect()
}

/// Parses the output of strace: the call of each thread that had not returned when strace detached.
///
/// If a call returns after a line of another thread, strace prints it in two lines.
fn calls(strace: &str) -> BTreeMap<&str, String> {
    let mut calls = BTreeMap::new();
    for (thread, what) in strace.lines().filter_map(|line| line.split_once(' ')) {
        let call = what.trim_start().trim_end_matches("<detached ...>").trim_end_matches("<unfinished ...>").trim_end();
        match (what.ends_with("...>"), call.starts_with("<...")) {
            (true, true) => {}
            (true, false) => _ = calls.insert(thread, call.chars().take(LONGEST_CALL).collect()),
            (false, _) => _ = calls.remove(thread),
        }
    }
    calls
}

/// The longest time to wait for the stderr of a server that has ended. A process that it has started may keep it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// The number of lines of stderr that are shown.
const SHOWN_LINES: usize = 10;
/// The longest time for a first start, which may compile a server of ours and its dependencies.
const LONGEST_COMPILATION: Duration = Duration::from_secs(120);
/// The seconds for which strace is attached: enough to print the call of every blocked thread.
const WATCHED: &str = "0.2";
/// The characters of a call that are kept: enough for its name and its descriptor.
const LONGEST_CALL: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_blocked_in_the_call_that_has_not_returned() {
        let strace = "11 ppoll([{fd=4<UNIX-STREAM>}], 1 <unfinished ...>\n\
            12 recvfrom(5<TCP:[1->2]>, 0x7f, 8, 0, NULL, NULL) = 3\n\
            12 recvfrom(5<TCP:[1->2]>,  <unfinished ...>\n13 futex(0x7f, FUTEX_WAIT <unfinished ...>\n\
            13 <... futex resumed>) = 0\n11 <... ppoll resumed> <detached ...>\n\
            12 <... recvfrom resumed> <detached ...>\n\
            14 accept4(3,  <detached ...>\n";
        let expected =
            [("11", "ppoll([{fd=4<UNIX-STREAM>}], 1"), ("12", "recvfrom(5<TCP:[1->2]>,"), ("14", "accept4(3,")];
        assert_eq!(calls(strace), expected.map(|(thread, call)| (thread, call.to_owned())).into());
    }
}
