//! Pre-fork: a parent that serves no client itself, and keeps N worker processes running on one listener.
//!
//! The workers share one listener. With SO_REUSEPORT each would have a backlog of its own, and the clients in the
//! backlog of a worker that is stuck or exiting would be lost.

use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP};
use socket2::Socket;

use super::counters::Counters;
use super::metrics;
use super::options::Options;
use super::reports::Reports;
use super::signals::{Signals, ends_when_repeated, handled};
use super::stdout::announce;
use super::wait_ready::wait_ready;
use super::worker::{Worker, exit_cause};
use super::{logging, service_manager, watchdog};

/// Runs `processes` workers on `listener` until a signal requests a drain. Ends this process.
///
/// Call it on the main thread: the kernel kills a worker when the thread that started it ends.
pub(super) fn supervise(
    options: &Options,
    processes: usize,
    is_inherited: bool,
    listener: Socket,
    ready_line: &str,
) -> ! {
    let ready_line = options.inetd.is_none().then_some(ready_line);
    let status = Supervisor::start(processes, is_inherited, listener, ready_line).and_then(|mut supervisor| {
        if let Some(address) = options.metrics {
            let stats = Arc::clone(&supervisor.stats);
            metrics::serve(address, move || lock(&stats).snapshot(Counters::default()))?;
        }
        supervisor.run(options.grace)
    });
    let status = status.unwrap_or_else(|error| {
        logging::print_error(&format!("error: {error:#}"));
        1
    });
    logging::flush();
    exit(status)
}

struct Supervisor<'a> {
    /// Whether the listener outlives this process.
    is_inherited: bool,
    /// The listener; `None` while draining, so that the kernel closes it when the last worker has closed its copy.
    listener: Option<Socket>,
    signals: Signals,
    child_exits: Signals,
    slots: Vec<Slot>,
    /// The line to print when all workers accept clients; `None` with --inetd.
    ready_line: Option<&'a str>,
    is_ready: bool,
    /// The number of workers in a row that died shortly after their start.
    failures: u32,
    /// When heartbeats were last checked.
    checked_at: Instant,
    stats: Arc<Mutex<Reports>>,
}

/// A slot for one worker, occupied or vacant.
enum Slot {
    Working(Box<Worker>),
    /// No worker runs. The next one starts at this time.
    Vacant(Instant),
}

impl<'a> Supervisor<'a> {
    fn start(processes: usize, is_inherited: bool, listener: Socket, ready_line: Option<&'a str>) -> Result<Self> {
        let signals = Signals::register(handled())?;
        let child_exits = Signals::register(&[SIGCHLD])?;
        watchdog::start(service_manager::notify_alive);
        let now = Instant::now();
        Ok(Self {
            is_inherited,
            listener: Some(listener),
            signals,
            child_exits,
            slots: (0..processes).map(|_| Slot::Vacant(now)).collect(),
            ready_line,
            is_ready: false,
            failures: 0,
            checked_at: now,
            stats: Arc::default(),
        })
    }

    /// Starts workers, reads their reports and replaces those that end. Returns the exit status after a drain.
    fn run(&mut self, grace: Duration) -> Result<i32> {
        loop {
            self.fill_vacancies()?;
            if let Some(signal) = self.wait(self.wait_limit()) {
                return self.drain(grace, ends_when_repeated(signal));
            }
            self.read_reports();
            self.kill_stuck_workers();
            self.reap()?;
            if self.slots.iter_mut().all(|slot| slot.worker().is_some_and(|worker| worker.is_idle())) {
                log::info!("leaving: no client for the time of --idle-exit");
                return self.drain(grace, false);
            }
            if self.is_ready {
                watchdog::heartbeat(Instant::now());
            }
        }
    }

    fn fill_vacancies(&mut self) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        for slot in &mut self.slots {
            if matches!(slot, Slot::Vacant(until) if *until <= Instant::now()) {
                *slot = match Worker::start(listener, self.is_inherited) {
                    Ok(worker) => Slot::Working(Box::new(worker)),
                    Err(error) if !self.is_ready => return Err(error),
                    Err(error) => {
                        log::error!("{error:#}; trying again in {RETRY_PAUSE:?}");
                        Slot::Vacant(Instant::now() + RETRY_PAUSE)
                    }
                };
            }
        }
        Ok(())
    }

    /// Returns the time until a vacant slot is filled or a heartbeat is due, whichever is sooner.
    fn wait_limit(&self) -> Option<Duration> {
        let vacancies = self.slots.iter().filter_map(|slot| match slot {
            Slot::Vacant(until) => Some(*until),
            Slot::Working(_) => None,
        });
        let heartbeat = self.is_ready.then(watchdog::next_heartbeat).flatten();
        let next = vacancies.chain(heartbeat).min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Sleeps until a worker reports or ends, a signal arrives, or `timeout` is over (`None`: no limit). Returns the
    /// signal, unless it is handled here.
    fn wait(&mut self, timeout: Option<Duration>) -> Option<i32> {
        let channels = self.workers().filter_map(Worker::channel);
        let streams = self.signals.streams().chain(self.child_exits.streams());
        wait_ready(streams.chain(channels).map(|stream| PollFd::new(stream, PollFlags::IN)).collect(), timeout);
        self.child_exits.pending(); // `reap` and `drain` find the worker that ended
        match self.signals.pending() {
            Some(SIGHUP) if logging::has_file() => {
                logging::reopen();
                self.slots.iter_mut().filter_map(Slot::worker).for_each(Worker::reopen_log);
                None
            }
            signal => signal,
        }
    }

    /// Reads the reports of all workers. When all are ready, prints the ready line and notifies the service manager.
    fn read_reports(&mut self) {
        self.slots.iter_mut().filter_map(Slot::worker).for_each(|worker| _ = worker.read_reports());
        lock(&self.stats).alive = self.workers().map(|worker| (worker.pid(), worker.counters())).collect();
        let is_ready = |slot: &mut Slot| slot.worker().is_some_and(|worker| worker.is_ready());
        if !self.is_ready && self.listener.is_some() && self.slots.iter_mut().all(is_ready) {
            self.is_ready = true;
            self.ready_line.map(announce); // serves even if stdout is closed
            service_manager::notify_ready();
        }
    }

    /// Kills workers whose heartbeat is overdue, if the service manager has set a watchdog interval.
    fn kill_stuck_workers(&mut self) {
        let Some(interval) = watchdog::interval() else { return };
        // If this process was stopped (SIGSTOP), the workers probably were, too.
        let was_stopped = self.checked_at.elapsed() > interval / 2;
        self.checked_at = Instant::now();
        for worker in self.slots.iter_mut().filter_map(Slot::worker) {
            if was_stopped {
                worker.reset_heartbeat();
            } else if worker.since_heartbeat() > interval {
                log::error!("worker {} sent no heartbeat for {interval:?}: it is killed and replaced", worker.pid());
                worker.signal(Signal::KILL);
                worker.reset_heartbeat();
            }
        }
    }

    /// Reaps workers that have ended, and schedules their replacements.
    fn reap(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            let Slot::Working(worker) = slot else { continue };
            let Some(status) = worker.ended()? else { continue };
            let is_failed_start = worker.age() < MIN_AGE;
            self.failures = if is_failed_start { self.failures + 1 } else { 0 };
            if self.failures >= MAX_FAILURES {
                bail!("{MAX_FAILURES} workers in a row died early, the last by {}: see the log", exit_cause(status));
            }
            let pause = if is_failed_start { FIRST_PAUSE * 2u32.pow(self.failures.min(6) - 1) } else { Duration::ZERO };
            log::error!("worker {} died by {}; the next starts in {pause:?}", worker.pid(), exit_cause(status));
            worker.read_last_reports();
            let mut stats = lock(&self.stats);
            stats.retire(worker.pid(), worker.counters().after_its_end());
            stats.died += 1;
            drop(stats);
            *slot = Slot::Vacant(Instant::now() + pause);
        }
        Ok(())
    }

    /// Drains all workers, and waits for them until [`MARGIN`] after their grace.
    fn drain(&mut self, grace: Duration, mut is_signalled: bool) -> Result<i32> {
        service_manager::notify_stopping();
        log::info!("draining: {} workers", self.workers().count());
        self.workers().for_each(Worker::drain);
        self.listener = None;
        let end = Instant::now().checked_add(grace).and_then(|end| end.checked_add(MARGIN));
        loop {
            self.read_reports(); // also takes note of closed channels: `wait` would not sleep while it has one
            self.remove_drained();
            let alive = self.workers().count();
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if alive == 0 {
                log::info!("stopped");
                return Ok(0);
            }
            if left == Some(Duration::ZERO) {
                log::warn!("--grace is over: {alive} workers are killed");
                self.workers().for_each(|worker| worker.signal(Signal::KILL));
                return Ok(0);
            }
            let signal = self.wait(left).filter(|signal| ends_when_repeated(*signal));
            if let Some(signal) = signal.filter(|_| is_signalled) {
                return Ok(128 + signal); // the workers die with this process
            }
            is_signalled |= signal.is_some();
        }
    }

    /// Removes the workers that have drained.
    fn remove_drained(&mut self) {
        for slot in &mut self.slots {
            let Slot::Working(worker) = slot else { continue };
            if !matches!(worker.ended(), Ok(None)) {
                worker.read_last_reports();
                lock(&self.stats).retire(worker.pid(), worker.counters().after_its_end());
                *slot = Slot::Vacant(Instant::now());
            }
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Working(worker) => Some(&**worker),
            Slot::Vacant(_) => None,
        })
    }
}

impl Slot {
    fn worker(&mut self) -> Option<&mut Worker> {
        match self {
            Self::Working(worker) => Some(worker),
            Self::Vacant(_) => None,
        }
    }
}

fn lock(stats: &Mutex<Reports>) -> MutexGuard<'_, Reports> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pause before the next attempt when a worker process could not be created.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A worker that ends before this age counts as a failed start.
const MIN_AGE: Duration = Duration::from_secs(1);

/// The pause after the first failed start. It doubles for each further one in a row, up to 3.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The number of failed starts in a row after which the server gives up.
const MAX_FAILURES: u32 = 10;

/// The time beyond their grace in which workers may still exit by themselves.
const MARGIN: Duration = Duration::from_secs(1);
