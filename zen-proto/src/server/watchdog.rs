//! Heartbeats, for the service manager that started this process or for a worker's parent.
//!
//! The service manager or the parent sets an interval (sd_watchdog_enabled(3)). Each loop, and each serving thread,
//! records its own heartbeat in every round. The last thread of a round sends the report, so one stuck thread stops all
//! reports. Threads that share their clients, as executors do, share a heartbeat, which stops when all are stuck.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::constants::TICK;

/// The watchdog of this process, if heartbeats are requested.
static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();

struct Watchdog {
    /// The time between two records of a heartbeat.
    pause: Duration,
    report: fn(),
    round: Mutex<Round>,
}

/// A round: the time between two reports.
struct Round {
    number: u64,
    threads: usize,
    /// The number of heartbeats that are missing in this round.
    missing: usize,
}

/// Returns the time after which the service manager or the parent considers a process without a report stuck.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Calls `report` in each round while all threads are alive, if heartbeats are requested.
pub(super) fn start(report: fn()) {
    let Some(interval) = interval() else { return };
    if interval < MIN_INTERVAL {
        log::warn!("the watchdog interval of {interval:?} is too short: set WatchdogSec= to {MIN_INTERVAL:?} or more");
    }
    let round = Mutex::new(Round { number: 0, threads: 0, missing: 0 });
    let _ = WATCHDOG.set(Watchdog { pause: interval / 4, report, round });
}

thread_local! {
    /// The heartbeat of an event loop, or of a thread for one client.
    static HEARTBEAT: RefCell<Option<Heartbeat>> = const { RefCell::new(None) };
}

/// The heartbeat of all threads that share their clients.
static SHARED_HEARTBEAT: Mutex<Option<Heartbeat>> = Mutex::new(None);

/// Records that this loop is not stuck. Called once per iteration; it costs little until a heartbeat is due.
pub fn heartbeat(now: Instant) {
    if WATCHDOG.get().is_some() {
        HEARTBEAT.with_borrow_mut(|heartbeat| heartbeat.get_or_insert_with(Heartbeat::start).record(now));
    }
}

/// Returns the time at which the loop must wake up for its heartbeat, or `None` if no heartbeats are requested.
pub fn next_heartbeat() -> Option<Instant> {
    WATCHDOG.get().map(|_| HEARTBEAT.with_borrow_mut(|heartbeat| heartbeat.get_or_insert_with(Heartbeat::start).next))
}

/// Records that one of several threads that share their clients is not stuck.
pub fn shared_heartbeat(now: Instant) {
    if WATCHDOG.get().is_some() {
        let mut shared = SHARED_HEARTBEAT.lock().unwrap_or_else(PoisonError::into_inner);
        shared.get_or_insert_with(Heartbeat::start).record(now);
    }
}

/// Records that a thread which sleeps in its calls is not stuck. Called before each of them.
pub(super) fn beat_now() {
    if WATCHDOG.get().is_some() {
        heartbeat(Instant::now());
    }
}

/// Records that a thread is not stuck, after one of several answers. Costs a load unless there is a watchdog.
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
        shared_heartbeat(Instant::now());
    }
}

struct Heartbeat {
    /// When to record the next heartbeat.
    next: Instant,
    /// The last round in which it was recorded.
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
        self.record_in_round(watchdog);
    }

    fn record_in_round(&mut self, watchdog: &Watchdog) {
        let mut round = watchdog.round();
        if self.round != round.number {
            self.round = round.number;
            round.report_if_complete(watchdog);
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let Some(watchdog) = WATCHDOG.get() else { return };
        let mut round = watchdog.round();
        round.threads -= 1;
        if self.round != round.number {
            round.report_if_complete(watchdog);
        }
    }
}

impl Watchdog {
    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Records one heartbeat. The last one of a round sends the report, and the next round begins.
    fn report_if_complete(&mut self, watchdog: &Watchdog) {
        self.missing -= 1;
        if self.missing == 0 && self.threads > 0 {
            (watchdog.report)();
            self.number += 1;
            self.missing = self.threads;
        }
    }
}

/// The shortest interval: a quarter of it is a tick, and a thread that sleeps in its calls records no more often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(MIN_INTERVAL.as_millis() == 4 * TICK.as_millis());
