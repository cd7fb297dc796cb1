//! Pre-fork: a parent that serves nobody and keeps so many workers alive, all on one listener.
//!
//! A worker is this program started again with `--worker`: the listener is its stdin, and its ready line goes
//! up a pipe. It dies with its parent. One listener for all, not SO_REUSEPORT: a worker that is stuck or
//! closing would take its share of the waiting clients along.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio, exit};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use socket2::Socket;

use super::logging;
use super::options::Options;
use super::run::announce;
use super::stop::{Signals, send};

/// Ties this worker to its parent: the kernel kills it when that dies.
pub(super) fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be tied to the parent")?;
    // It may have died before that: then nobody has the other end of the pipe.
    let stdout = std::io::stdout();
    let mut pipe = [PollFd::new(&stdout, PollFlags::OUT)];
    poll(&mut pipe, Some(&Timespec::default())).context("cannot look at the pipe to the parent")?;
    if pipe[0].revents().contains(PollFlags::ERR) {
        bail!("the parent has gone");
    }
    Ok(())
}

/// Runs `processes` workers on `listener` until a signal says to stop. Ends this process.
///
/// Call it on the main thread: workers die with the thread that started them.
pub(super) fn supervise(options: &Options, processes: usize, is_heir: bool, listener: Socket, ready_line: &str) -> ! {
    let says_ready = options.inetd.is_none();
    let ready_line = says_ready.then_some(ready_line);
    let status = Supervisor::start(processes, is_heir, listener, ready_line)
        .and_then(|mut supervisor| supervisor.run(options.grace));
    let status = status.unwrap_or_else(|error| {
        logging::complain(&format!("error: {error:#}"));
        1
    });
    logging::flush();
    exit(status)
}

struct Supervisor<'a> {
    /// Whether the listener outlives this process.
    is_heir: bool,
    /// `None` when draining: then only the workers have it, until they have taken all who wait.
    listener: Option<Socket>,
    signals: Signals,
    deaths: Signals,
    places: Vec<Place>,
    /// What to say once, when all workers can be connected to.
    ready_line: Option<&'a str>,
    /// Workers that died young, since the last that did not.
    failures: u32,
}

/// Where a worker is, or is to be.
enum Place {
    Working(Worker),
    /// The last one died; the next starts then.
    Vacant(Instant),
}

struct Worker {
    child: Child,
    born: Instant,
    is_ready: bool,
    /// Whether it has had no client for as long as --idle-exit.
    is_idle: bool,
}

impl<'a> Supervisor<'a> {
    fn start(processes: usize, is_heir: bool, listener: Socket, ready_line: Option<&'a str>) -> Result<Self> {
        let signals = Signals::register(&[SIGTERM, SIGINT])?;
        let deaths = Signals::register(&[SIGCHLD])?;
        let now = Instant::now();
        let places = (0..processes).map(|_| Place::Vacant(now)).collect();
        Ok(Self { is_heir, listener: Some(listener), signals, deaths, places, ready_line, failures: 0 })
    }

    /// Starts, hears and replaces workers; the status to exit with when told to stop.
    fn run(&mut self, grace: Duration) -> Result<i32> {
        loop {
            self.fill_vacancies()?;
            if self.wait(self.next_vacancy())?.is_some() {
                return self.drain(grace);
            }
            self.hear();
            self.bury()?;
            if self.places.iter_mut().all(|place| place.worker().is_some_and(|worker| worker.is_idle)) {
                log::info!("leaving: nobody has been here for as long as --idle-exit");
                return self.drain(grace);
            }
        }
    }

    fn fill_vacancies(&mut self) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        for place in &mut self.places {
            if matches!(place, Place::Vacant(since) if *since <= Instant::now()) {
                *place = match Worker::start(listener, self.is_heir) {
                    Ok(worker) => Place::Working(worker),
                    Err(error) if self.ready_line.is_some() => return Err(error),
                    Err(error) => {
                        log::error!("{error:#}; trying again in {LAST_PAUSE:?}");
                        Place::Vacant(Instant::now() + LAST_PAUSE)
                    }
                };
            }
        }
        Ok(())
    }

    /// How long until a vacancy is to be filled, if there is one.
    fn next_vacancy(&self) -> Option<Duration> {
        let vacancies = self.places.iter().filter_map(|place| match place {
            Place::Vacant(until) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        });
        vacancies.min()
    }

    /// Sleeps for `time` (`None`: forever), or until a worker says something or dies, or until SIGTERM or
    /// SIGINT comes, which is returned.
    fn wait(&mut self, time: Option<Duration>) -> Result<Option<i32>> {
        let pipes = self.workers().filter_map(|worker| worker.child.stdout.as_ref());
        let mut descriptors =
            vec![PollFd::new(self.signals.stream(), PollFlags::IN), PollFd::new(self.deaths.stream(), PollFlags::IN)];
        descriptors.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut descriptors, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the workers"),
        }
        let [has_signal, has_death] = [0, 1].map(|at| !descriptors[at].revents().is_empty());
        drop(descriptors);
        if has_death {
            self.deaths.wait(Some(Duration::ZERO)); // `bury` and `drain` look which
        }
        Ok(if has_signal { self.signals.wait(Some(Duration::ZERO)) } else { None })
    }

    /// Hears what the workers say; when the last is ready, everyone is told.
    fn hear(&mut self) {
        self.places.iter_mut().filter_map(Place::worker).for_each(Worker::hear);
        let all_are_ready = self.places.iter_mut().all(|place| place.worker().is_none_or(|worker| worker.is_ready));
        if all_are_ready
            && self.workers().count() == self.places.len()
            && let Some(ready_line) = self.ready_line.take()
        {
            let _ = announce(ready_line); // a closed stdout is no reason not to serve
        }
    }

    /// Takes note of the workers that died, and when to replace each.
    fn bury(&mut self) -> Result<()> {
        for place in &mut self.places {
            let Place::Working(worker) = place else { continue };
            let Some(status) = worker.child.try_wait().context("cannot wait for a worker")? else { continue };
            let is_young = worker.born.elapsed() < YOUNG;
            self.failures = if is_young { self.failures + 1 } else { 0 };
            if self.failures >= MOST_FAILURES {
                bail!("{MOST_FAILURES} workers in a row died at once, the last by {}: see the log", cause(status));
            }
            let pause = if is_young { FIRST_PAUSE * 2u32.pow(self.failures.min(6) - 1) } else { Duration::ZERO };
            log::error!("worker {} died by {}; the next starts in {pause:?}", worker.child.id(), cause(status));
            *place = Place::Vacant(Instant::now() + pause);
        }
        Ok(())
    }

    /// Passes the stop on and waits for the workers, for as long as their grace and a little more.
    fn drain(&mut self, grace: Duration) -> Result<i32> {
        log::info!("draining: {} workers", self.workers().count());
        self.signal_all(Signal::TERM);
        self.listener = None;
        self.ready_line = None;
        let end = Instant::now().checked_add(grace).and_then(|end| end.checked_add(MARGIN));
        loop {
            let mut alive = 0;
            for worker in self.places.iter_mut().filter_map(Place::worker) {
                alive += usize::from(matches!(worker.child.try_wait(), Ok(None)));
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if alive == 0 {
                log::info!("stopped");
                return Ok(0);
            }
            if left == Some(Duration::ZERO) {
                log::warn!("--grace is over: {alive} workers are killed");
                self.signal_all(Signal::KILL);
                return Ok(0);
            }
            self.hear(); // the end of file of those who have gone, or `wait` would not sleep
            if let Some(signal) = self.wait(left)? {
                return Ok(128 + signal); // the workers die with this process
            }
        }
    }

    fn signal_all(&self, signal: Signal) {
        self.workers().for_each(|worker| send(signal, worker.child.id()));
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.places.iter().filter_map(|place| match place {
            Place::Working(worker) => Some(worker),
            _ => None,
        })
    }
}

impl Place {
    fn worker(&mut self) -> Option<&mut Worker> {
        match self {
            Self::Working(worker) => Some(worker),
            _ => None,
        }
    }
}

impl Worker {
    fn start(listener: &Socket, is_heir: bool) -> Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        // The program that runs now, even if another has taken its place on the disk.
        let child = Command::new("/proc/self/exe")
            .arg0(name)
            .arg("--worker")
            .args(is_heir.then_some("--heir"))
            .args(arguments)
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(listener.as_fd().try_clone_to_owned()?))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker: raise the limit of processes, or lower --processes")?;
        Ok(Self { child, born: Instant::now(), is_ready: false, is_idle: false })
    }

    /// Its ready line, or how busy it is, or the end of file when it has died.
    fn hear(&mut self) {
        let Some(stdout) = &mut self.child.stdout else { return };
        if poll(&mut [PollFd::new(&*stdout, PollFlags::IN)], Some(&Timespec::default())) != Ok(1) {
            return;
        }
        let mut said = [0; 128];
        match stdout.read(&mut said) {
            Ok(n) if n > 0 => {
                self.is_ready = true;
                self.is_idle = said[..n].ends_with(IDLE.as_bytes());
            }
            _ => self.child.stdout = None,
        }
    }
}

fn cause(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("status {code}"),
        _ => status.to_string(),
    }
}

/// What a worker of `--inetd wait` says when nobody has been there for so long, and when somebody is.
pub(super) const IDLE: &str = "idle\n";
pub(super) const BUSY: &str = "busy\n";

/// Before the next try when no worker can be started.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A worker that dies before this age is one that cannot start.
const YOUNG: Duration = Duration::from_secs(1);

/// Before the worker after a young one; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// So many young deaths in a row, and starting more is of no use.
const MOST_FAILURES: u32 = 10;

/// What the workers get beyond their grace, to be gone by themselves.
const MARGIN: Duration = Duration::from_secs(1);
