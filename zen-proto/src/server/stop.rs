//! Stopping: SIGTERM and SIGINT drain the server, a second one ends it, and so does the end of its grace.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{self, SigSet};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, getpid, pidfd_getfd, pidfd_open};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::SockRef;

use super::client::reset;
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
            let _ = bell.write_all(&[BELL]); // it fails only when it rings already, louder than anyone can hear
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
    let (stop, places) = (&server.stop, &server.places);
    let mut signals = Signals::register(&[SIGTERM, SIGINT])?;
    signals.bell.set_nonblocking(true)?;
    let _ = stop.bell.set(signals.bell.try_clone()?);
    let mut run = move || -> ! {
        // 0 is the bell: the server drains for a reason of its own, and a signal is still the first.
        let mut is_signalled = loop {
            if let Some(signal) = signals.wait(None) {
                break signal > 0;
            }
        };
        stop.set();
        manager::is_stopping();
        log::info!("draining: {} clients are here", places.taken());
        let end = Instant::now().checked_add(grace);
        while end.is_none_or(|end| Instant::now() < end) {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match signals.wait(left) {
                Some(signal) if signal > 0 && is_signalled && ends_at_second_signal => exit(128 + signal),
                Some(signal) => is_signalled |= signal > 0,
                None => {}
            }
        }
        match places.taken() {
            0 => {}
            cut => log::warn!("--grace is over: {cut} clients are cut off"),
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

/// What the server ends with when a thread of it has panicked.
pub(super) fn defect() -> anyhow::Error {
    anyhow!("the server has a defect: the log says where; please report it")
}

/// Signals as bytes of a stream, so that they can be waited for with a time-out, or polled.
pub(super) struct Signals {
    stream: UnixStream,
    bell: UnixStream,
    latest: Arc<AtomicUsize>,
}

impl Signals {
    /// Takes these signals from now on, also where the process was started with some of them blocked.
    ///
    /// Call it before the threads are started that are to take them: they inherit the mask of this one.
    pub(super) fn register(signals: &[i32]) -> Result<Self> {
        let (stream, bell) = UnixStream::pair()?;
        let latest = Arc::new(AtomicUsize::new(0));
        for &signal in signals {
            signal_hook::flag::register_usize(signal, Arc::clone(&latest), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
        }
        // Only now: one that is pending already finds its handler.
        let handled: SigSet = signals.iter().filter_map(|&signal| signal::Signal::try_from(signal).ok()).collect();
        handled.thread_unblock().context("cannot unblock signals")?;
        Ok(Self { stream, bell, latest })
    }

    /// The next signal, 0 for the bell; `None` when none comes within `time`, which is forever if `None`.
    pub(super) fn wait(&mut self, time: Option<Duration>) -> Option<i32> {
        // std refuses a time-out of nothing, which would mean forever to the kernel.
        let time = time.map(|time| time.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(time).ok()?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte).ok()?;
        let signal = if byte == [BELL] { 0 } else { self.latest.load(Ordering::SeqCst) };
        i32::try_from(signal).ok()
    }

    /// What becomes readable when a signal comes.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// What `request` says. (signal-hook says X for a signal.)
const BELL: u8 = b'!';

/// Makes the end of this process a reset for every client that is still connected.
///
/// Other threads own those connections. pidfd_getfd lends each to this one, by number and without `unsafe`.
/// Where that is forbidden the kernel closes the connections politely instead.
fn reset_all() {
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = descriptors.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number| *number > 2) {
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
