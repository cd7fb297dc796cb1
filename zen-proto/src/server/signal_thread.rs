//! The thread that handles signals. SIGTERM and SIGINT drain the server; a second one ends it immediately, as does the
//! end of the grace period. SIGHUP reopens the log file, or drains the server if there is none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, getpid, pidfd_getfd, pidfd_open};
use signal_hook::consts::SIGHUP;
use socket2::SockRef;

use super::shared::Server;
use super::signals::{Signals, ends_when_repeated, handled};
use super::socket_io::reset;
use super::stop::defect;
use super::worker::REPORT;
use super::{logging, service_manager};

/// Starts the signal thread. Normally the main thread ends the process, when the last client is closed. If that has not
/// happened when `grace` is over, this thread ends it, even if every other thread is busy with an answer.
pub(super) fn start(server: &'static Server, grace: Duration, ends_at_second_signal: bool) -> Result<()> {
    let (stop, permits) = (&server.stop, &server.permits);
    let mut signals = Signals::register(handled())?;
    let _ = stop.waker.set(signals.waker()?);
    let mut run = move || -> ! {
        let mut is_signalled = loop {
            match next_signal(server, &mut signals, None) {
                Some(SIGHUP) if logging::has_file() => reopen_logs(server),
                Some(signal) => break ends_when_repeated(signal),
                None => {}
            }
        };
        stop.set();
        service_manager::notify_stopping();
        if !server.is_child {
            log::info!("draining: {} clients are connected", permits.taken());
        }
        let mut wait_until = |end: Option<Instant>| {
            while let Some(signal) = next_signal(server, &mut signals, end) {
                match signal {
                    SIGHUP => reopen_logs(server),
                    _ if ends_when_repeated(signal) && is_signalled && ends_at_second_signal => exit(128 + signal),
                    _ => is_signalled |= ends_when_repeated(signal),
                }
            }
        };
        let end = Instant::now().checked_add(grace);
        wait_until(end);
        if permits.taken() > 0 && !server.is_child {
            log::warn!("--grace is over: {} clients are reset", permits.taken());
        }
        if server.children().is_some() {
            // The grace of the child processes is over, too: each resets its client and exits. When the last has
            // exited, the main thread ends this process.
            wait_until(end.and_then(|end| end.checked_add(MARGIN)));
            log::warn!("{} processes have not ended, and are killed", permits.taken());
        }
        reset_all();
        server.report_counters();
        server.log_totals();
        logging::flush();
        stop.failure().inspect(|error| logging::print_error(&format!("error: {error:#}")));
        exit(i32::from(stop.failure().is_some()));
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Without this thread the server could not be drained.
            let _ = catch_unwind(AssertUnwindSafe(&mut run));
            logging::print_error(&format!("error: {}", defect()));
            exit(1)
        })
        .context("cannot start a thread: raise the limit of threads")?;
    Ok(())
}

/// Waits for the next signal, at most until `end`. Meanwhile reports the counters to the parent, if there is one.
fn next_signal(server: &Server, signals: &mut Signals, end: Option<Instant>) -> Option<i32> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let report = server.reports_to_parent.then_some(REPORT);
        if let Some(signal) = signals.wait(left.into_iter().chain(report).min()) {
            return Some(signal);
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            return None;
        }
        server.report_counters();
    }
}

fn reopen_logs(server: &Server) {
    logging::reopen();
    server.signal_children(Signal::HUP);
}

/// Makes the exit of this process reset all its TCP connections (SO_LINGER with 0), those for metrics included.
///
/// Other threads own the streams, and Rust has no safe way to use a descriptor by its number. So each is duplicated
/// with pidfd_getfd(2): an option that is set on the duplicate applies to the socket. Where that call is forbidden, the
/// clients receive FIN instead of RST.
fn reset_all() {
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    let numbers: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        Ok(all) => all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        Err(_) => (0..MAX_TRIED).collect(), // there is no /proc
    };
    for number in numbers.into_iter().filter(|number| *number > 2) {
        let Ok(descriptor) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        let is_client = SockRef::from(&descriptor).peer_addr().is_ok_and(|peer| peer.as_socket().is_some());
        if is_client {
            reset(&descriptor);
        }
    }
}

/// The time beyond their grace in which child processes may still exit by themselves.
const MARGIN: Duration = Duration::from_secs(1);

/// The number of descriptors to try if /proc is missing: some milliseconds of system calls.
const MAX_TRIED: i32 = 65_536;
