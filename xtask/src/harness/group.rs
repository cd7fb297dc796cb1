//! Process groups that cannot outlive the test. Each child leads a group. The whole group is killed when its [`Group`]
//! is dropped, when its time limit is over, and when a signal ends this task. Dropping the [`Group`] also reaps it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, waitpgid};
use signal_hook::consts::SIGCHLD;
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::capture::Capture;
use super::{WAIT_LIMIT, process, wait_for};
use crate::signals::{ENDING, IGNORED, is_ignored};

/// The living groups, each with the time at which it is killed.
static GROUPS: Mutex<BTreeMap<i32, Instant>> = Mutex::new(BTreeMap::new());

/// The time after which a group is killed, unless the test extends it. Most tests need a server for less.
const TIME_LIMIT: Duration = Duration::from_secs(150);

/// Sets this process up to kill every [`Group`] at its time limit, or when a signal ends this process. Orphans become
/// its children, so that it can reap them.
pub(crate) fn set_up_cleanup() -> Result<()> {
    // The workers of a killed parent become children of this process, so that they can be reaped.
    set_child_subreaper(Some(getpid()))?;
    LazyLock::force(&IGNORED);
    // A signal that is ignored here would be ignored by the children too, and some tests send it to them. So it is
    // caught, without effect.
    let mut signals = Signals::new(ENDING.map(|(signal, _)| signal))?;
    if is_ignored(SIGCHLD)? {
        // A process that ignores SIGCHLD cannot wait for its children.
        flag::register(SIGCHLD, Arc::default())?;
    }
    // A signal that is blocked here would be blocked in every thread and in every process of a test.
    SigSet::all().thread_unblock()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().find(|signal| IGNORED.iter().all(|(ignored, _)| ignored != signal)) {
            kill_groups(|_| true);
            std::process::exit(128 + signal);
        }
    })?;
    thread::Builder::new().name("watchdog".into()).spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(250));
            let now = Instant::now();
            kill_groups(|deadline| deadline <= now);
        }
    })?;
    Ok(())
}

fn kill_groups(is_due: impl Fn(Instant) -> bool) {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    for (&group, _) in groups.iter().filter(|&(_, &deadline)| is_due(deadline)) {
        kill(group);
    }
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may have exited already.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A child and all that it starts.
pub(crate) struct Group {
    child: Child,
}

impl Group {
    /// Starts `command` as the leader of a group of its own.
    pub(crate) fn start(command: &mut Command) -> Result<Group> {
        // Held while the child starts, so that a signal to this task finds every group.
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {command:?}"))?;
        let group = Group { child };
        groups.insert(group.id(), Instant::now() + TIME_LIMIT);
        Ok(group)
    }

    /// Returns the number of the group, which is the pid of its leader.
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel numbers processes with an i32")
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Starts to read the leader's stdout, which must be piped.
    pub(crate) fn capture_stdout(&mut self) -> Result<Capture> {
        Capture::of(self.child.stdout.take().context("stdout is not piped")?)
    }

    /// Starts to read the leader's stderr, which must be piped.
    pub(crate) fn capture_stderr(&mut self) -> Result<Capture> {
        Capture::of(self.child.stderr.take().context("stderr is not piped")?)
    }

    /// Sends a signal to the leader.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.id(), signal)
    }

    /// Sets its time limit to `time` from now, for a test that needs more.
    pub(crate) fn extend_time_limit(&self, time: Duration) {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id(), Instant::now() + time);
    }

    /// Waits until the leader ends, at most for `limit`, and returns its status.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for(limit, || self.child.try_wait().ok().flatten())
    }

    /// Waits until the leader ends, and expects status 0.
    pub(crate) fn ends_well(&mut self) -> Result<()> {
        let threads = |group: &Self| format!("it does not exit; its threads:\n{}", process::threads_shown(group.id()));
        let status = self.ended_within(WAIT_LIMIT).with_context(|| threads(self))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.id();
        // The number stays reserved until the leader and all orphans are reaped; so kill first, forget, then reap.
        kill(id);
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let _ = self.child.wait();
        let Some(group) = Pid::from_raw(id) else { return };
        // An orphan is handed over a moment after its parent died; ECHILD says that none is left.
        wait_for(WAIT_LIMIT, || waitpgid(group, WaitOptions::NOHANG).is_err().then_some(()));
    }
}

/// Runs `command` to its end, with a bound on its time and on its output.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Result<Output> {
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = group.capture_stdout()?;
    let stderr = group.capture_stderr()?;
    let Some(status) = group.ended_within(limit) else {
        bail!("{command:?} did not end within {limit:?}; stderr so far: {}", stderr.text());
    };
    drop(group);
    Ok(Output { status, stdout: stdout.at_end(), stderr: stderr.at_end() })
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal as Masked;
    use rustix::process::kill_process;
    use signal_hook::consts::SIGTERM;

    use super::*;
    use crate::signals::command_with_ignored_signals;

    #[test]
    fn no_signal_stays_blocked() -> Result<()> {
        SigSet::all().thread_block()?;
        set_up_cleanup()?;
        let blocked = SigSet::thread_get_mask()?;
        assert!(Masked::iterator().all(|signal| !blocked.contains(signal)));
        assert!(!is_ignored(SIGCHLD)?);
        Ok(())
    }

    /// Starts this test again with SIGHUP ignored, as nohup(1) does. The second process prints the signals that its
    /// children ignore, and waits.
    #[test]
    fn what_was_ignored_stays_ignored() {
        const STARTED: &str = "ZEN_TEST_WAITS";
        if std::env::var_os(STARTED).is_some() {
            set_up_cleanup().expect("signal handlers and threads");
            let ignored = |mut command: Command| {
                command.args(["-c", "grep SigIgn /proc/self/status"]).status().expect("it runs");
            };
            ignored(Command::new("sh"));
            ignored(command_with_ignored_signals("sh"));
            thread::sleep(WAIT_LIMIT);
            return;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(std::env::current_exe().expect("it runs"));
        command.args(["--exact", "--nocapture", "harness::group::tests::what_was_ignored_stays_ignored"]);
        let mut group = Group::start(command.env(STARTED, "").stdout(Stdio::piped())).expect("it starts");
        let stdout = group.capture_stdout().expect("a thread");
        let masks = stdout.wait_for(WAIT_LIMIT, |printed| {
            let text = String::from_utf8_lossy(printed);
            let (whole, _) = text.rsplit_once('\n')?;
            let masks =
                whole.lines().filter_map(|line| u64::from_str_radix(line.split_once("SigIgn:")?.1.trim(), 16).ok());
            let masks: Vec<bool> = masks.map(|mask| mask & 1 == 1).collect();
            (masks.len() == 2).then_some(masks)
        });
        // A server gets the default disposition; cargo, which shares this process group, gets what this task has.
        assert_eq!(masks, Some(vec![false, true]), "{}", stdout.text());
        let pid = Pid::from_raw(group.id()).expect("a number");
        kill_process(pid, Signal::HUP).expect("it is there");
        kill_process(pid, Signal::TERM).expect("it is there");
        let status = group.ended_within(WAIT_LIMIT).expect("SIGTERM ends it");
        assert_eq!(status.code(), Some(128 + SIGTERM), "{status}");
    }
}
