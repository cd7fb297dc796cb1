//! Pre-fork: a parent that serves no client and keeps N workers alive, all on one listener.
//!
//! One listener for all, not SO_REUSEPORT: a worker that is stuck or closing would take its share of the waiting
//! clients along.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, exit};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP};
use socket2::Socket;

use super::counters::Counters;
use super::metrics::{self, Snapshot};
use super::options::Options;
use super::signals::{Signals, handled, is_first_of_two};
use super::stdout::announce;
use super::worker::Worker;
use super::{logging, sd_notify, watchdog};

/// Runs `processes` workers on `listener` until a signal says to stop. Ends this process.
///
/// Call it on the main thread: workers die with the thread that started them.
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
            metrics::serve(address, move || look_at(&stats).snapshot())?;
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
    /// `None` when draining: then only the workers have it, until they have taken all who wait.
    listener: Option<Socket>,
    signals: Signals,
    deaths: Signals,
    slots: Vec<Slot>,
    /// What to say when all workers can be connected to; nothing under --inetd.
    ready_line: Option<&'a str>,
    is_ready: bool,
    /// Workers that died young, since the last that did not.
    failures: u32,
    /// When the workers were heard last.
    listened: Instant,
    stats: Arc<Mutex<WorkerStats>>,
}

/// A slot for one worker, occupied or vacant.
enum Slot {
    Working(Box<Worker>),
    /// The last one died; the next starts then.
    Vacant(Instant),
}

/// What the metrics tell of the workers.
#[derive(Default)]
struct WorkerStats {
    /// What those had counted that are dead.
    gone: Counters,
    died: u64,
    alive: Vec<(u32, Counters)>,
}

impl<'a> Supervisor<'a> {
    fn start(processes: usize, is_inherited: bool, listener: Socket, ready_line: Option<&'a str>) -> Result<Self> {
        let signals = Signals::register(handled())?;
        let deaths = Signals::register(&[SIGCHLD])?;
        watchdog::start(sd_notify::is_alive);
        let now = Instant::now();
        Ok(Self {
            is_inherited,
            listener: Some(listener),
            signals,
            deaths,
            slots: (0..processes).map(|_| Slot::Vacant(now)).collect(),
            ready_line,
            is_ready: false,
            failures: 0,
            listened: now,
            stats: Arc::default(),
        })
    }

    /// Starts, receives and replaces workers; the status to exit with when told to stop.
    fn run(&mut self, grace: Duration) -> Result<i32> {
        loop {
            self.fill_vacancies()?;
            if let Some(signal) = self.wait(self.wait_limit())? {
                return self.drain(grace, is_first_of_two(signal));
            }
            self.read_reports();
            self.end_the_stuck();
            self.reap()?;
            if self.slots.iter_mut().all(|place| place.worker().is_some_and(|worker| worker.is_idle())) {
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
        for place in &mut self.slots {
            if matches!(place, Slot::Vacant(since) if *since <= Instant::now()) {
                *place = match Worker::start(listener, self.is_inherited) {
                    Ok(worker) => Slot::Working(Box::new(worker)),
                    Err(error) if !self.is_ready => return Err(error),
                    Err(error) => {
                        log::error!("{error:#}; trying again in {LAST_PAUSE:?}");
                        Slot::Vacant(Instant::now() + LAST_PAUSE)
                    }
                };
            }
        }
        Ok(())
    }

    /// Returns the time until a vacant slot is filled or a heartbeat is due, whichever is sooner.
    fn wait_limit(&self) -> Option<Duration> {
        let vacancies = self.slots.iter().filter_map(|place| match place {
            Slot::Vacant(until) => Some(*until),
            Slot::Working(_) => None,
        });
        let heartbeat = self.is_ready.then(watchdog::next_heartbeat).flatten();
        let next = vacancies.chain(heartbeat).min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Sleeps for `time` (`None`: forever), or until a worker says something or dies, or until a signal to stop comes,
    /// which is returned.
    fn wait(&mut self, time: Option<Duration>) -> Result<Option<i32>> {
        let channels = self.workers().filter_map(Worker::channel);
        let streams = self.signals.streams().chain(self.deaths.streams());
        let mut descriptors: Vec<_> = streams.map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        descriptors.extend(channels.map(|channel| PollFd::new(channel, PollFlags::IN)));
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut descriptors, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the workers"),
        }
        drop(descriptors);
        self.deaths.wait(Some(Duration::ZERO)); // `reap` and `drain` look which
        match self.signals.wait(Some(Duration::ZERO)) {
            Some(SIGHUP) if logging::has_file() => {
                logging::reopen();
                self.slots.iter_mut().filter_map(Slot::worker).for_each(Worker::reopen_log);
                Ok(None)
            }
            signal => Ok(signal),
        }
    }

    /// Hears what the workers say; when the last is ready, everyone is told.
    fn read_reports(&mut self) {
        self.slots.iter_mut().filter_map(Slot::worker).for_each(Worker::read_reports);
        look_at(&self.stats).alive = self.workers().map(|worker| (worker.pid(), worker.counters())).collect();
        let is_ready = |place: &mut Slot| place.worker().is_some_and(|worker| worker.is_ready());
        if !self.is_ready && self.listener.is_some() && self.slots.iter_mut().all(is_ready) {
            self.is_ready = true;
            self.ready_line.map(announce); // a closed stdout is no reason not to serve
            sd_notify::is_ready();
        }
    }

    /// Where a watchdog is wanted: a worker that is silent for as long as that waits is ended, and replaced.
    fn end_the_stuck(&mut self) {
        let Some(interval) = watchdog::interval() else { return };
        // If this process was stopped itself, so may the workers have been.
        let was_away = self.listened.elapsed() > interval / 2;
        self.listened = Instant::now();
        for worker in self.slots.iter_mut().filter_map(Slot::worker) {
            if was_away {
                worker.reset_heartbeat();
            } else if worker.silence() > interval {
                log::error!("worker {} has been silent for {interval:?}: it is stuck, and ended", worker.pid());
                worker.signal(Signal::KILL);
                worker.reset_heartbeat();
            }
        }
    }

    /// Takes note of the workers that died, and when to replace each.
    fn reap(&mut self) -> Result<()> {
        for place in &mut self.slots {
            let Slot::Working(worker) = place else { continue };
            let Some(status) = worker.ended()? else { continue };
            let is_young = worker.age() < YOUNG;
            self.failures = if is_young { self.failures + 1 } else { 0 };
            if self.failures >= MOST_FAILURES {
                bail!("{MOST_FAILURES} workers in a row died at once, the last by {}: see the log", cause(status));
            }
            let pause = if is_young { FIRST_PAUSE * 2u32.pow(self.failures.min(6) - 1) } else { Duration::ZERO };
            log::error!("worker {} died by {}; the next starts in {pause:?}", worker.pid(), cause(status));
            worker.read_reports(); // its last words
            let mut stats = look_at(&self.stats);
            stats.detach(worker);
            stats.died += 1;
            drop(stats);
            *place = Slot::Vacant(Instant::now() + pause);
        }
        Ok(())
    }

    /// Passes the stop on and waits for the workers, for as long as their grace and a little more.
    fn drain(&mut self, grace: Duration, mut is_signalled: bool) -> Result<i32> {
        sd_notify::is_stopping();
        log::info!("draining: {} workers", self.workers().count());
        self.workers().for_each(Worker::drain);
        self.listener = None;
        let end = Instant::now().checked_add(grace).and_then(|end| end.checked_add(MARGIN));
        loop {
            self.read_reports(); // the end of file of those who have gone, or `wait` would not sleep
            self.bid_farewell();
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
            let signal = self.wait(left)?.filter(|signal| is_first_of_two(*signal));
            if let Some(signal) = signal.filter(|_| is_signalled) {
                return Ok(128 + signal); // the workers die with this process
            }
            is_signalled |= signal.is_some();
        }
    }

    /// Takes note of the workers that have drained.
    fn bid_farewell(&mut self) {
        for place in &mut self.slots {
            let Slot::Working(worker) = place else { continue };
            if !matches!(worker.ended(), Ok(None)) {
                worker.read_reports(); // its last words
                look_at(&self.stats).detach(worker);
                *place = Slot::Vacant(Instant::now());
            }
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().filter_map(|place| match place {
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

impl WorkerStats {
    /// Its counts stay, or a counter would go down.
    fn detach(&mut self, worker: &Worker) {
        self.alive.retain(|(pid, _)| *pid != worker.pid());
        self.gone += worker.counters().after_its_end();
    }

    fn snapshot(&self) -> Snapshot {
        let mut counters = self.gone;
        self.alive.iter().for_each(|(_, own)| counters += *own);
        let pids = self.alive.iter().map(|(pid, _)| *pid);
        let processes = std::iter::once(std::process::id()).chain(pids).collect();
        Snapshot { counters, workers: Some((self.alive.len() as u64, self.died)), processes }
    }
}

fn look_at(stats: &Mutex<WorkerStats>) -> MutexGuard<'_, WorkerStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cause(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("status {code}"),
        _ => status.to_string(),
    }
}

/// Before the next try when no worker can be started.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A worker that dies before this age is one that cannot start.
const YOUNG: Duration = Duration::from_secs(1);

/// Before the worker after a young one; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Number of workers that die young in a row before the server gives up.
const MOST_FAILURES: u32 = 10;

/// What the workers get beyond their grace, to be gone by themselves.
const MARGIN: Duration = Duration::from_secs(1);
