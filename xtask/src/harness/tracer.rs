//! strace, attached to a running server: it makes system calls fail, and lets go of the server again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::capture::Capture;
use super::group::Group;
use super::{Missing, WAIT_LIMIT, strace};

/// Faults injected into a server for as long as this lives.
pub(crate) struct Tracer {
    // First, so that strace has gone before its file goes.
    group: Group,
    trace: Trace,
}

/// What strace writes.
struct Trace(PathBuf);

impl Tracer {
    /// Lets `call` fail in each thread of these processes, present and future, as `fault` says:
    /// `error=EMFILE:when=1..4`. Each thread counts for itself.
    pub(crate) fn attach(processes: &[i32], call: &str, fault: &str) -> Result<Tracer> {
        Tracer::start(processes, call, fault, &[])
    }

    /// The same, only where the call is about `socket`, which is called as in /proc: `socket:[123]`.
    pub(crate) fn attach_to(socket: &str, processes: &[i32], call: &str, fault: &str) -> Result<Tracer> {
        Tracer::start(processes, call, fault, &["-P", socket])
    }

    fn start(processes: &[i32], call: &str, fault: &str, which: &[&str]) -> Result<Tracer> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let trace = Trace(std::env::temp_dir().join(format!("zen-trace-{}-{number}", process::id())));
        let mut command = Command::new(strace()?);
        // strace injects only into calls that it traces.
        let (traced, injected) = (format!("trace={call}"), format!("inject={call}:{fault}"));
        command.args(["-f", "-ttt", "-e", &traced, "-e", &injected]).args(which).arg("-o").arg(&trace.0);
        processes.iter().for_each(|pid| _ = command.args(["-p", &pid.to_string()]));
        let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
        let attached = |said: &[u8]| {
            let said = String::from_utf8_lossy(said);
            let has = |pid: &i32| said.contains(&format!("Process {pid} attached"));
            processes.iter().all(has).then_some(())
        };
        if stderr.wait_for(WAIT_LIMIT, attached).is_none() {
            let said = stderr.text();
            ensure!(!said.contains("not permitted"), Missing("the right to trace a running process".to_owned()));
            bail!("{command:?} did not attach: {said}");
        }
        Ok(Tracer { group, trace })
    }

    /// When calls were made to fail so far, for each thread: seconds of the clock.
    pub(crate) fn injected(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let text = fs::read_to_string(&self.trace.0).context("the trace")?;
        let mut injected: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (thread, time) in text.lines().filter(|line| line.ends_with("(INJECTED)")).filter_map(thread_and_time) {
            injected.entry(thread).or_default().push(time);
        }
        Ok(injected)
    }

    /// Lets go of the server, and tells what [`injected`](Tracer::injected) does. An error if nothing was: then nothing
    /// has been tested.
    pub(crate) fn detach(mut self) -> Result<BTreeMap<String, Vec<f64>>> {
        let pid = Pid::from_raw(self.group.id()).context("strace has a number")?;
        // It may have ended with the server.
        let _ = kill_process(pid, Signal::TERM);
        self.group.ended_within(WAIT_LIMIT).context("strace does not let go")?;
        let injected = self.injected()?;
        ensure!(!injected.is_empty(), "no call was made to fail; the trace is {:?}", fs::read_to_string(&self.trace.0));
        Ok(injected)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How long it is from the first to the last of a thread's failed calls.
pub(crate) fn span(times: &[f64]) -> Duration {
    match times {
        [first, .., last] => Duration::from_secs_f64((last - first).max(0.0)),
        _ => Duration::ZERO,
    }
}

/// `THREAD TIME CALL(…) = …`
fn thread_and_time(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
