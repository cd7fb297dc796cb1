//! Stopping: SIGTERM and SIGINT drain the server, a second one ends it, and so does the end of its grace.
//!
//! SIGHUP reopens the log file. Without a log file it drains.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{self, SigSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, getpid, pidfd_getfd, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use socket2::SockRef;

use super::connection::reset;
use super::run::Server;
use super::{logging, manager};

/// Tells a server that it is to stop.
#[derive(Default)]
pub struct Stop {
    requested: AtomicBool,
    requested_at: OnceLock<Instant>,
    /// Wakes the thread that takes the signals.
    bell: OnceLock<UnixStream>,
    wakers: Mutex<Vec<Box<dyn Fn() + Send>>>,
    failure: OnceLock<anyhow::Error>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("requested", &self.requested).finish_non_exhaustive()
    }
}

impl Stop {
    /// Whether the server is to drain. A load; free on the path of an answer.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Calls `wake` when the server is to drain. For servers that sleep for longer than a tick.
    pub fn on_request(&self, wake: impl Fn() + Send + 'static) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            wake();
        }
        wakers.push(Box::new(wake));
    }

    /// When it was requested, if it was.
    pub(super) fn requested_at(&self) -> Option<Instant> {
        self.requested_at.get().copied()
    }

    /// Drains for a reason of the server's own.
    pub fn request(&self) {
        self.set();
        self.ring();
    }

    /// Drains, and ends with `error`; the first one counts.
    pub fn fail(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.request();
    }

    /// As [`Stop::fail`], for a panic hook: the thread that panics may hold any lock, so another one tells the others.
    pub(super) fn fail_in_panic(&self, error: anyhow::Error) {
        let _ = self.failure.set(error);
        self.ring();
    }

    fn ring(&self) {
        if let Some(mut bell) = self.bell.get() {
            let _ = bell.write_all(b"!"); // it fails only when it rings already, louder than anyone can hear
        }
    }

    pub(super) fn failure(&self) -> Option<&anyhow::Error> {
        self.failure.get()
    }

    fn set(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, Ordering::Relaxed);
        wakers.iter().for_each(|wake| wake());
    }
}

/// Starts the thread that takes the signals and keeps the time of `grace`. It ends the process when that is
/// over, even if every other thread is busy thinking.
pub(super) fn start(server: &'static Server, grace: Duration, ends_at_second_signal: bool) -> Result<()> {
    let (stop, permits) = (&server.stop, &server.permits);
    let mut signals = Signals::register(handled())?;
    let _ = stop.bell.set(signals.bell()?);
    let mut run = move || -> ! {
        let mut is_signalled = loop {
            match signals.wait(None) {
                Some(SIGHUP) if logging::has_file() => logging::reopen(),
                Some(signal) => break is_first_of_two(signal),
                None => {}
            }
        };
        stop.set();
        manager::is_stopping();
        log::info!("draining: {} clients are connected", permits.taken());
        let end = Instant::now().checked_add(grace);
        while end.is_none_or(|end| Instant::now() < end) {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match signals.wait(left) {
                Some(SIGHUP) => logging::reopen(),
                Some(signal) if is_first_of_two(signal) && is_signalled && ends_at_second_signal => exit(128 + signal),
                Some(signal) => is_signalled |= is_first_of_two(signal),
                None => {}
            }
        }
        match permits.taken() {
            0 => {}
            cut => log::warn!("--grace is over: {cut} clients are reset"),
        }
        reset_all();
        server.say_goodbye();
        logging::flush();
        stop.failure().inspect(|error| logging::complain(&format!("error: {error:#}")));
        exit(i32::from(stop.failure().is_some()));
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Without this thread nothing could stop the server.
            let _ = catch_unwind(AssertUnwindSafe(&mut run));
            logging::complain(&format!("error: {}", defect()));
            exit(1)
        })
        .context("cannot start a thread: raise the limit of them")?;
    Ok(())
}

/// Whether a further signal ends the server at once. After the bell and after SIGHUP, which a service manager may send
/// together with SIGTERM, it does not.
pub(super) fn is_first_of_two(signal: i32) -> bool {
    [SIGTERM, SIGINT].contains(&signal)
}

/// What the server ends with when a thread of it has panicked.
pub(super) fn defect() -> anyhow::Error {
    anyhow!("the server has a defect: the log says where; please report it")
}

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
            let (stream, bell) = UnixStream::pair()?;
            signal_hook::low_level::pipe::register(signal, bell)?;
            Ok((signal, stream))
        };
        let streams = signals.iter().map(register).collect::<Result<_>>()?;
        // Only now: one that is pending already finds its handler.
        let handled: SigSet = signals.iter().filter_map(|&signal| signal::Signal::try_from(signal).ok()).collect();
        handled.thread_unblock().context("cannot unblock signals")?;
        Ok(Self(streams))
    }

    /// Adds a bell to them: a byte written to it is signal 0.
    fn bell(&mut self) -> Result<UnixStream> {
        let (stream, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        self.0.push((0, stream));
        Ok(bell)
    }

    /// The next signal, 0 for the bell; `None` when none comes within `time`, which is forever if `None`.
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

/// Makes the end of this process a reset for every client that is still connected.
///
/// Other threads own those connections. pidfd_getfd lends each to this one, by number and without `unsafe`.
/// Where that is forbidden the kernel closes the connections politely instead.
fn reset_all() {
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    let numbers: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        Ok(all) => all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        Err(_) => (0..MOST_TRIED).collect(), // there is no /proc
    };
    for number in numbers.into_iter().filter(|number| *number > 2) {
        let Ok(descriptor) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        let is_client = SockRef::from(&descriptor).peer_addr().is_ok_and(|peer| peer.as_socket().is_some());
        if is_client {
            reset(&descriptor);
        }
    }
}

/// Sends SIGTERM or SIGKILL to a child. One that is gone already needs none.
pub(super) fn send(signal: Signal, child: u32) {
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// How many descriptors are tried where there is no list of them: some milliseconds of system calls.
const MOST_TRIED: i32 = 65_536;

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGUSR1, SIGUSR2};
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn no_signal_hides_another() {
        let mut signals = Signals::register(&[SIGUSR1, SIGUSR2]).expect("they can be had");
        let mut bell = signals.bell().expect("it can be had");
        bell.write_all(b"!").expect("there is room");
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
