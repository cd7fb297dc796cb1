//! strace, attached to a running server: it makes system calls fail, and detaches again.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::folder::Folder;
use super::group::Group;
use super::{Missing, WAIT_LIMIT, strace};

/// Faults injected into a server until this is dropped.
pub(crate) struct Tracer {
    // First, so that strace has exited before its file is removed.
    group: Group,
    folder: Folder,
}

impl Tracer {
    /// Makes `call` fail in each thread of these processes, present and future, as `fault` says:
    /// `error=EMFILE:when=1..4`. strace counts the calls of each thread separately.
    pub(crate) fn attach(processes: &[i32], call: &str, fault: &str) -> Result<Tracer> {
        Tracer::start(processes, call, fault, &[])
    }

    /// Makes `call` fail as [`attach`](Tracer::attach) does, only for `socket`, named as in /proc: `socket:[123]`.
    pub(crate) fn attach_to(socket: &str, process: i32, call: &str, fault: &str) -> Result<Tracer> {
        Tracer::start(&[process], call, fault, &["-P", socket])
    }

    fn start(processes: &[i32], call: &str, fault: &str, which: &[&str]) -> Result<Tracer> {
        let folder = Folder::new()?;
        let mut command = Command::new(strace()?);
        // strace injects only into calls that it traces.
        let (traced, injected) = (format!("trace={call}"), format!("inject={call}:{fault}"));
        command
            .args(["-f", "-ttt", "-e", &traced, "-e", &injected])
            .args(which)
            .arg("-o")
            .arg(folder.path().join(TRACE));
        processes.iter().for_each(|pid| _ = command.args(["-p", &pid.to_string()]));
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = group.capture_stderr()?;
        let attached = |printed: &[u8]| {
            let printed = String::from_utf8_lossy(printed);
            let has = |pid: &i32| printed.contains(&format!("Process {pid} attached"));
            processes.iter().all(has).then_some(())
        };
        if stderr.wait_for(WAIT_LIMIT, attached).is_none() {
            let printed = stderr.text();
            ensure!(!printed.contains("not permitted"), Missing("the right to trace a running process".to_owned()));
            bail!("{command:?} did not attach: {printed}");
        }
        Ok(Tracer { group, folder })
    }

    /// Returns the times of the calls that have failed so far, by thread id, in seconds since the epoch.
    pub(crate) fn injected(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let text = self.trace()?;
        let mut injected: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (thread, time) in text.lines().filter(|line| line.ends_with("(INJECTED)")).filter_map(thread_and_time) {
            injected.entry(thread).or_default().push(time);
        }
        Ok(injected)
    }

    /// Detaches strace, and returns what [`injected`](Tracer::injected) does. An error if nothing was injected, because
    /// then nothing has been tested.
    pub(crate) fn detach(mut self) -> Result<BTreeMap<String, Vec<f64>>> {
        let pid = Pid::from_raw(self.group.id()).context("strace has no pid")?;
        // It may have exited with the server.
        let _ = kill_process(pid, Signal::TERM);
        self.group.ended_within(WAIT_LIMIT).context("strace does not detach")?;
        let injected = self.injected()?;
        ensure!(!injected.is_empty(), "no call was made to fail; the trace is {:?}", self.trace());
        Ok(injected)
    }

    fn trace(&self) -> Result<String> {
        fs::read_to_string(self.folder.path().join(TRACE)).context("the trace")
    }
}

/// Parses the table of `strace -c -U name,calls`: the number of calls by name.
pub(crate) fn counted(table: &str) -> Result<BTreeMap<String, u64>> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, calls) = (fields.next()?, fields.next()?);
        (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
    };
    let calls: BTreeMap<_, _> = table.lines().filter_map(row).collect();
    ensure!(!calls.is_empty(), "strace counted nothing:\n{table}");
    Ok(calls)
}

/// Returns the time from the first to the last of a thread's failed calls.
pub(crate) fn span(times: &[f64]) -> Duration {
    match times {
        [first, .., last] => Duration::from_secs_f64((last - first).max(0.0)),
        _ => Duration::ZERO,
    }
}

/// Parses `THREAD TIME CALL(…) = …`.
fn thread_and_time(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// The file that strace writes.
const TRACE: &str = "trace";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_table() {
        let table =
            "syscall       calls\n--------- ---------\nrecvfrom        123\n--------- ---------\ntotal           456\n";
        assert_eq!(counted(table).ok(), Some(BTreeMap::from([("recvfrom".to_owned(), 123)])));
        assert!(counted("").is_err());
    }

    #[test]
    fn a_line_of_the_trace_has_thread_and_time() {
        let line =
            "19222 1795449270.5 accept4(3, 0x7ffe, [16], SOCK_CLOEXEC) = -1 EMFILE (Too many open files) (INJECTED)";
        assert_eq!(thread_and_time(line), Some(("19222".to_owned(), 1_795_449_270.5)));
        assert_eq!(thread_and_time("noise"), None);
        assert_eq!(span(&[1.0, 1.25, 2.0]), Duration::from_secs(1));
        assert_eq!(span(&[1.0]), Duration::ZERO);
    }
}
