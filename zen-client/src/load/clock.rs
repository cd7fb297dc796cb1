//! The time of a generator in nanoseconds since the run began, and an alarm that ends a wait.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Result;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

/// Nanoseconds since the start of the run's clock.
pub(crate) type Nanos = u64;

/// Converts a duration. No duration of a command line is anywhere near 584 years.
pub(super) fn nanos(duration: Duration) -> Nanos {
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}

/// One clock for all threads of a run. Reading it is no system call (vDSO).
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Nanos {
        nanos(self.0.elapsed())
    }
}

/// Returns the processor time of the calling thread.
pub(super) fn own_processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A descriptor that becomes readable at a given time. The timeout of `epoll_wait` only counts milliseconds.
pub(super) struct Alarm {
    timer: OwnedFd,
    at: Option<Nanos>,
}

impl Alarm {
    /// Makes an alarm whose events carry `key`.
    pub(super) fn new(poller: &OwnedFd, key: u64) -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Edge-triggered, the alarm need not be read when it has fired: setting it again clears it.
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(poller, &timer, epoll::EventData::new_u64(key), edges)?;
        Ok(Self { timer, at: None })
    }

    /// Sets when it fires; a call that changes nothing costs nothing.
    pub(super) fn set(&mut self, at: Nanos, clock: Clock) -> Result<()> {
        if self.at == Some(at) {
            return Ok(());
        }
        self.at = Some(at);
        // Zero would disarm it.
        let left = Duration::from_nanos(at.saturating_sub(clock.now()).max(1));
        let it_value = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Records that it has fired: the next `set` sets it in any case.
    pub(super) fn fired(&mut self) {
        self.at = None;
    }
}
