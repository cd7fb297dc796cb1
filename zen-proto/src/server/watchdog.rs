//! Being alive, and saying so: to the service manager that started this process, or to a worker's parent.
//!
//! Who asks for it says how often (sd_watchdog_enabled(3)). Every loop and every thread that serves has a heartbeat;
//! when all
//! have beaten since the last report, the one that was missing makes the next. So the report comes from one that
//! serves, and one that is stuck stops it. Threads that share their clients, as executors do, share a heartbeat: it
//! stops when none of them gets on.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::constants::TICK;

/// It is there once heartbeats are asked for.
static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();

struct Watchdog {
    /// From one heartbeat of a heartbeat to its next.
    pause: Duration,
    report: fn(),
    round: Mutex<Round>,
}

/// From one report to the next.
struct Round {
    number: u64,
    threads: usize,
    /// How many threads have not beaten in this round.
    missing: usize,
}

/// How long the service manager or the parent waits for a report before it takes the process for stuck.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Calls `report` from now on, while all threads are alive, if heartbeats are asked for.
pub(super) fn start(report: fn()) {
    let Some(interval) = interval() else { return };
    if interval < SHORTEST {
        log::warn!("the watchdog is to hear from this server every {interval:?}: allow it {SHORTEST:?} at least");
    }
    let round = Mutex::new(Round { number: 0, threads: 0, missing: 0 });
    let _ = WATCHDOG.set(Watchdog { pause: interval / 4, report, round });
}

thread_local! {
    /// That of a loop, or of a thread that serves one client.
    static HEARTBEAT: RefCell<Option<Heartbeat>> = const { RefCell::new(None) };
}

/// That of threads that share their clients.
static SHARED_HEARTBEAT: Mutex<Option<Heartbeat>> = Mutex::new(None);

/// Records that this loop is not stuck; called once per iteration. Costs next to nothing until a heartbeat is due.
pub fn heartbeat(now: Instant) {
    if WATCHDOG.get().is_some() {
        HEARTBEAT.with_borrow_mut(|heartbeat| heartbeat.get_or_insert_with(Heartbeat::start).record(now));
    }
}

/// When the loop is to have a turn, even if nothing happens; `None`: it may sleep.
pub fn next_heartbeat() -> Option<Instant> {
    WATCHDOG.get().map(|_| HEARTBEAT.with_borrow_mut(|heartbeat| heartbeat.get_or_insert_with(Heartbeat::start).next))
}

/// The same for any of several threads that share their clients.
pub fn heartbeat_together(now: Instant) {
    if WATCHDOG.get().is_some() {
        let mut shared = SHARED_HEARTBEAT.lock().unwrap_or_else(PoisonError::into_inner);
        shared.get_or_insert_with(Heartbeat::start).record(now);
    }
}

/// For a thread that sleeps in its calls, at each of them.
pub(super) fn beat_now() {
    if WATCHDOG.get().is_some() {
        heartbeat(Instant::now());
    }
}

/// For a thread that has worked out one of several answers: it is not stuck. A load, unless a watchdog is there.
#[inline]
pub(super) fn beat_between_answers() {
    if WATCHDOG.get().is_some() {
        beat_own_or_shared();
    }
}

#[cold]
fn beat_own_or_shared() {
    if HEARTBEAT.with_borrow(Option::is_some) {
        heartbeat(Instant::now());
    } else if SHARED_HEARTBEAT.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
        heartbeat_together(Instant::now());
    }
}

struct Heartbeat {
    /// When to heartbeat next.
    next: Instant,
    /// The last round in which it has beaten.
    round: u64,
}

impl Heartbeat {
    fn start() -> Self {
        let Some(watchdog) = WATCHDOG.get() else { return Self { next: Instant::now(), round: 0 } };
        let mut round = watchdog.round();
        round.threads += 1;
        round.missing += 1;
        Self { next: Instant::now(), round: round.number.wrapping_sub(1) }
    }

    fn record(&mut self, now: Instant) {
        let Some(watchdog) = WATCHDOG.get().filter(|_| self.next <= now) else { return };
        self.next = now + watchdog.pause;
        self.is_heard(watchdog);
    }

    fn is_heard(&mut self, watchdog: &Watchdog) {
        let mut round = watchdog.round();
        if self.round != round.number {
            self.round = round.number;
            round.report_to(watchdog);
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let Some(watchdog) = WATCHDOG.get() else { return };
        let mut round = watchdog.round();
        round.threads -= 1;
        if self.round != round.number {
            round.report_to(watchdog);
        }
    }
}

impl Watchdog {
    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Counts one missing thread fewer. The last of them reports, and the next round begins.
    fn report_to(&mut self, watchdog: &Watchdog) {
        self.missing -= 1;
        if self.missing == 0 && self.threads > 0 {
            (watchdog.report)();
            self.number += 1;
            self.missing = self.threads;
        }
    }
}

/// Shortest interval: a quarter of it is a tick, and a thread that sleeps in calls reports no faster.
const SHORTEST: Duration = Duration::from_secs(1);

const _: () = assert!(SHORTEST.as_millis() == 4 * TICK.as_millis());
