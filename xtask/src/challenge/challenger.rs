//! The learner's server, or one of ours instead, and what its threads are blocked in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::client::connect;
use crate::harness::group::{Group, run_within};
use crate::harness::{Client, WAIT_LIMIT, process, wait_for};

/// A server that runs; its process group is killed and reaped on drop.
pub(super) struct Challenger {
    group: Group,
    pub(super) address: SocketAddr,
    observed: RefCell<Vec<String>>,
}

impl Challenger {
    /// Starts a command on a free port, which replaces `{port}`, and waits until it can be connected to.
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
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut group = Group::start(&mut command)?;
        let is_up = || connect(address, WAIT_LIMIT).ok().map(|_| true);
        let up = wait_for(limit, || is_up().or_else(|| group.ended_within(Duration::ZERO).map(|_| false)));
        ensure!(up == Some(true), "nothing listens on {address} after `{}`", words.join(" "));
        Ok(Self { group, address, observed: RefCell::default() })
    }

    pub(super) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Looks at the server's threads if `outcome` is a failure, while the clients that led to it are still connected.
    pub(super) fn observing<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            *self.observed.borrow_mut() = blocked(self.id());
        }
        outcome
    }

    /// Returns what was observed.
    pub(super) fn observed(&self) -> Vec<String> {
        self.observed.borrow().clone()
    }

    /// Returns the number of its process, which is also that of its process group.
    pub(super) fn id(&self) -> i32 {
        self.group.id()
    }

    /// Bytes of stacks and heap.
    pub(super) fn memory(&self) -> u64 {
        process::usage(process::members(self.group.id())).memory
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns what each thread of a process group is blocked in at this moment, a line for each. Without strace, or the
/// right to use it, the lines say so.
pub(super) fn blocked(group: i32) -> Vec<String> {
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
        let said = String::from_utf8_lossy(&output.stderr);
        return vec![format!("no thread is blocked in a system call {}", said.lines().next().unwrap_or_default())];
    }
    calls.iter().map(|(thread, call)| format!("thread {thread} is blocked in {call}")).collect()
}

/// Reads the calls that had not returned when strace went away. A line of another thread cuts one in two.
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

/// Enough for any of our servers and what it depends on.
const LONGEST_COMPILATION: Duration = Duration::from_secs(120);
/// Seconds in which every blocked thread has been seen.
const WATCHED: &str = "0.2";
/// Characters of a call: enough for its name and its descriptor.
const LONGEST_CALL: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_returned_is_what_a_thread_is_blocked_in() {
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
