//! Signals that can be waited for, and those that are sent to a child.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, SigSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::logging;

/// The signals that a server handles. SIGHUP is one of them with a log file, or if it was not ignored when the server
/// started, as nohup has it.
pub(super) fn handled() -> &'static [i32] {
    // Where /proc is missing nothing tells, and SIGHUP stays as it was: ignored, or the end.
    let is_ignored = || std::fs::read_to_string("/proc/self/status").map_or(true, |status| ignores_hangup(&status));
    if logging::has_file() || !is_ignored() { &[SIGTERM, SIGINT, SIGHUP] } else { &[SIGTERM, SIGINT] }
}

/// Reads the ignored signals from proc_pid_status(5): a hexadecimal mask, of which the lowest bit is signal 1.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Signals that can be waited for with a timeout, or polled. Each has a stream of its own, so that none hides another.
pub(super) struct Signals(Vec<(i32, UnixStream)>);

impl Signals {
    /// Takes these signals from now on, also where the process was started with some of them blocked.
    ///
    /// Call it before the threads are started that are to take them: they inherit the mask of this one.
    pub(super) fn register(signals: &[i32]) -> Result<Self> {
        let register = |&signal: &i32| {
            let (stream, waker) = UnixStream::pair()?;
            signal_hook::low_level::pipe::register(signal, waker)?;
            Ok((signal, stream))
        };
        let streams = signals.iter().map(register).collect::<Result<_>>()?;
        // Only now: one that is pending already finds its handler.
        let handled: SigSet = signals.iter().filter_map(|&signal| signal::Signal::try_from(signal).ok()).collect();
        handled.thread_unblock().context("cannot unblock signals")?;
        Ok(Self(streams))
    }

    /// Adds a waker to them: a byte written to it is signal 0.
    pub(super) fn waker(&mut self) -> Result<UnixStream> {
        let (stream, waker) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        self.0.push((0, stream));
        Ok(waker)
    }

    /// The next signal, 0 for the waker; `None` when none comes within `time`, which is forever if `None`.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> Option<i32> {
        let mut descriptors: Vec<_> = self.streams().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        poll(&mut descriptors, time.as_ref()).ok()?;
        let came = descriptors.iter().position(|descriptor| !descriptor.revents().is_empty())?;
        let (signal, stream) = &mut self.0[came];
        stream.read_exact(&mut [0]).ok()?;
        Some(*signal)
    }

    /// What becomes readable when a signal comes.
    pub(super) fn streams(&self) -> impl Iterator<Item = &UnixStream> {
        self.0.iter().map(|(_, stream)| stream)
    }
}

/// Whether a further signal ends the server at once. After the waker and after SIGHUP, which a service manager may send
/// together with SIGTERM, it does not.
pub(super) fn is_first_of_two(signal: i32) -> bool {
    [SIGTERM, SIGINT].contains(&signal)
}

/// Sends SIGTERM or SIGKILL to a child. One that is gone already needs none.
pub(super) fn send(signal: Signal, child: u32) {
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use signal_hook::consts::{SIGUSR1, SIGUSR2};
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn no_signal_hides_another() {
        let mut signals = Signals::register(&[SIGUSR1, SIGUSR2]).expect("they can be had");
        let mut waker = signals.waker().expect("it can be had");
        waker.write_all(b"!").expect("there is room");
        for signal in [SIGUSR1, SIGUSR2, SIGUSR1] {
            raise(signal).expect("it is one");
        }
        let came: Vec<_> = std::iter::from_fn(|| signals.wait(Some(Duration::ZERO))).collect();
        assert_eq!(came, [SIGUSR1, SIGUSR1, SIGUSR2, 0]);
    }

    #[test]
    fn an_ignored_hangup_is_found_in_the_status() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(ignores_hangup("nothing is said"), "what is not known stays as it is");
    }
}
