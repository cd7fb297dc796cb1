//! The thread that takes the signals: SIGTERM and SIGINT drain the server, a second one ends it, and so does the end of
//! its grace. SIGHUP reopens the log file; without a log file it drains.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use signal_hook::consts::SIGHUP;
use socket2::SockRef;

use super::shared::Server;
use super::signals::{Signals, handled, is_first_of_two};
use super::socket_io::reset;
use super::stop::defect;
use super::{logging, sd_notify};

/// Starts the thread that takes the signals and keeps the time of `grace`. It ends the process when that is
/// over, even if every other thread is busy thinking.
pub(super) fn start(server: &'static Server, grace: Duration, ends_at_second_signal: bool) -> Result<()> {
    let (stop, permits) = (&server.stop, &server.permits);
    let mut signals = Signals::register(handled())?;
    let _ = stop.waker.set(signals.waker()?);
    let mut run = move || -> ! {
        let mut is_signalled = loop {
            match signals.wait(None) {
                Some(SIGHUP) if logging::has_file() => logging::reopen(),
                Some(signal) => break is_first_of_two(signal),
                None => {}
            }
        };
        stop.set();
        sd_notify::is_stopping();
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
        server.log_totals();
        logging::flush();
        stop.failure().inspect(|error| logging::print_error(&format!("error: {error:#}")));
        exit(i32::from(stop.failure().is_some()));
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Without this thread nothing could stop the server.
            let _ = catch_unwind(AssertUnwindSafe(&mut run));
            logging::print_error(&format!("error: {}", defect()));
            exit(1)
        })
        .context("cannot start a thread: raise the limit of them")?;
    Ok(())
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

/// How many descriptors are tried where there is no list of them: some milliseconds of system calls.
const MOST_TRIED: i32 = 65_536;
