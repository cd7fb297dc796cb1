//! Being alive, and saying so: to the service manager that started this process, or to a worker's parent.
//!
//! Who asks for it says how often (sd_watchdog_enabled(3)). Every thread that serves has a [`Pulse`]; when all have
//! beaten since the last report, the one that was missing makes the next. So the report comes from a loop that
//! serves, and one stuck thread stops it.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::calls::TICK;

/// There is one as soon as somebody asks for it.
static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();

struct Watchdog {
    /// From one beat of a pulse to its next.
    pause: Duration,
    report: fn(),
    round: Mutex<Round>,
}

/// From one report to the next.
struct Round {
    number: u64,
    pulses: usize,
    /// How many pulses have not beaten in this round.
    missing: usize,
}

/// How long whoever asked waits for a report before it takes the process for stuck.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// From now on `report` is called while all threads are alive, if somebody asks for it.
pub(super) fn start(report: fn()) {
    let Some(interval) = interval() else { return };
    if interval < SHORTEST {
        log::warn!("the watchdog is to hear from this server every {interval:?}: allow it {SHORTEST:?} at least");
    }
    let round = Mutex::new(Round { number: 0, pulses: 0, missing: 0 });
    let _ = WATCHDOG.set(Watchdog { pause: interval / 4, report, round });
}

/// Beats for a thread that sleeps in its calls, at each of them: it needs no pulse in its code.
pub(super) fn beat() {
    thread_local! {
        static PULSE: RefCell<Option<Pulse>> = const { RefCell::new(None) };
    }
    if WATCHDOG.get().is_some() {
        PULSE.with_borrow_mut(|pulse| pulse.get_or_insert_with(Pulse::start).beat(Instant::now()));
    }
}

/// The pulse of a loop that serves. A loop that is stuck does not beat.
#[derive(Debug, Default)]
pub struct Pulse {
    /// When to beat next; `None`: nobody asks.
    next: Option<Instant>,
    /// The last round in which it has beaten.
    round: u64,
}

impl Pulse {
    /// Begins to beat; to be called by the loop, when it begins.
    pub fn start() -> Self {
        let Some(watchdog) = WATCHDOG.get() else { return Self::default() };
        let mut round = watchdog.round();
        round.pulses += 1;
        round.missing += 1;
        Self { next: Some(Instant::now()), round: round.number.wrapping_sub(1) }
    }

    /// Once in each turn of the loop. Costs a comparison unless it is time.
    pub fn beat(&mut self, now: Instant) {
        if self.next.is_some_and(|next| next <= now) {
            self.is_heard(now);
        }
    }

    /// When the loop is to have a turn, even if nothing happens; `None`: it may sleep.
    pub fn next_beat(&self) -> Option<Instant> {
        self.next
    }

    #[cold]
    fn is_heard(&mut self, now: Instant) {
        let Some(watchdog) = WATCHDOG.get() else { return };
        self.next = Some(now + watchdog.pause);
        let mut round = watchdog.round();
        if self.round != round.number {
            self.round = round.number;
            round.hear(watchdog);
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let Some(watchdog) = WATCHDOG.get().filter(|_| self.next.is_some()) else { return };
        let mut round = watchdog.round();
        round.pulses -= 1;
        if self.round != round.number {
            round.hear(watchdog);
        }
    }
}

impl Watchdog {
    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// One that was missing is not any more. The last of them reports, and the next round begins.
    fn hear(&mut self, watchdog: &Watchdog) {
        self.missing -= 1;
        if self.missing == 0 && self.pulses > 0 {
            (watchdog.report)();
            self.number += 1;
            self.missing = self.pulses;
        }
    }
}

/// A quarter of it is a tick, and faster nobody beats who sleeps in calls.
const SHORTEST: Duration = Duration::from_secs(1);

const _: () = assert!(SHORTEST.as_millis() == 4 * TICK.as_millis());
