//! Receiving signals with a timeout, and sending signals to child processes.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, SigSet};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::logging;
use super::wait_ready::wait_ready;

/// Returns the signals that a server handles. SIGHUP is one of them, unless the server has no log file and SIGHUP was
/// ignored at its start (as under nohup(1)).
pub(super) fn handled() -> &'static [i32] {
    // Without /proc this is unknown. Then SIGHUP keeps its disposition.
    let is_ignored = || std::fs::read_to_string("/proc/self/status").map_or(true, |status| ignores_hangup(&status));
    if logging::has_file() || !is_ignored() { &[SIGTERM, SIGINT, SIGHUP] } else { &[SIGTERM, SIGINT] }
}

/// Returns whether SIGHUP is ignored, from the text of /proc/self/status (proc_pid_status(5)). The mask is hexadecimal,
/// and its lowest bit is signal 1.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Registered signals. Each signal has a stream of its own, so that none hides another.
#[derive(Debug)]
pub(super) struct Signals(Vec<(i32, UnixStream)>);

impl Signals {
    /// Registers handlers for these signals, and unblocks them if the process was started with some blocked.
    ///
    /// Threads that are started later inherit the signal mask. An earlier one, such as `log`, may keep the signals
    /// blocked: the kernel delivers a signal to a thread that does not block it.
    pub(super) fn register(signals: &[i32]) -> Result<Self> {
        let register = |&signal: &i32| {
            let (stream, waker) = UnixStream::pair()?;
            stream.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, waker)?;
            Ok((signal, stream))
        };
        let streams = signals.iter().map(register).collect::<Result<_>>()?;
        // After the handlers are registered: a pending signal is delivered now.
        let handled: SigSet = signals.iter().filter_map(|&signal| signal::Signal::try_from(signal).ok()).collect();
        handled.thread_unblock().context("cannot unblock signals")?;
        Ok(Self(streams))
    }

    /// Returns a waker: a byte written to it is reported as signal 0.
    pub(super) fn waker(&mut self) -> Result<UnixStream> {
        let (stream, waker) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        self.0.push((0, stream));
        Ok(waker)
    }

    /// Waits for the next signal, for at most `time` (`None`: no limit). The waker is signal 0. It may
    /// return `None` early.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> Option<i32> {
        wait_ready(self.streams().map(|stream| PollFd::new(stream, PollFlags::IN)).collect(), time);
        self.pending()
    }

    /// Returns the next signal that has already arrived.
    pub(super) fn pending(&mut self) -> Option<i32> {
        self.0.iter_mut().find_map(|(signal, stream)| stream.read_exact(&mut [0]).is_ok().then_some(*signal))
    }

    /// Returns the streams, one of which becomes readable when a signal arrives.
    pub(super) fn streams(&self) -> impl Iterator<Item = &UnixStream> {
        self.0.iter().map(|(_, stream)| stream)
    }
}

/// Returns whether this is SIGTERM or SIGINT. If one of them has arrived before, of either kind, the server ends
/// immediately. SIGHUP does not count, because a service manager may send it together with SIGTERM. Neither does the
/// waker.
pub(super) fn ends_when_repeated(signal: i32) -> bool {
    [SIGTERM, SIGINT].contains(&signal)
}

/// Sends a signal to a child. An error means that the child has ended, and is ignored.
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
        let mut signals = Signals::register(&[SIGUSR1, SIGUSR2]).expect("registers handlers");
        let mut waker = signals.waker().expect("creates a socket pair");
        waker.write_all(b"!").expect("there is room");
        for signal in [SIGUSR1, SIGUSR2, SIGUSR1] {
            raise(signal).expect("is a signal");
        }
        let came: Vec<_> = std::iter::from_fn(|| signals.pending()).collect();
        assert_eq!(came, [SIGUSR1, SIGUSR1, SIGUSR2, 0]);
    }

    #[test]
    fn an_ignored_hangup_is_found_in_the_status() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(ignores_hangup("no such line"), "if it is unknown, it counts as ignored");
    }
}
