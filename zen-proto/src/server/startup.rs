//! The three steps of a `main`: parse, listen, serve.

use std::any::type_name_of_val;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{SockRef, Socket};

use super::constants::TICK;
use super::counters::{Counter, count};
use super::descriptors::{self, Others, Wanted};
use super::listener::{self, Waiting};
use super::metrics;
use super::options::{Arguments, Inetd, Options, parse};
use super::permits::Permits;
use super::shared::{Arrivals, Server};
use super::simulated_work::Work;
use super::stdout::announce;
use super::stop::{Stop, defect};
use super::{catch, inherited_fds, logging, service_manager, signal_thread, supervisor, watchdog, worker};
use crate::Timeouts;

static SERVER: OnceLock<Server> = OnceLock::new();

/// Parses the command line, runs `serve`, and returns the exit status: 0 after a drain, 1 after an error, which is
/// printed as one line to stderr. A wrong command line ends the process with status 2.
pub fn main<A: Arguments>(serve: impl FnOnce(A) -> Result<()>) -> ExitCode {
    logging::outlive_file_size_limit();
    let arguments = parse::<A>();
    // The name of the closure's type begins with the server's crate.
    let program = type_name_of_val(&serve).split("::").next().unwrap_or_default();
    let serve = || {
        logging::start(arguments.common().log(program))?;
        panic::set_hook(Box::new(on_panic));
        serve(arguments)
    };
    let result = catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| Err(defect()));
    SERVER.get().inspect(|server| server.report_counters());
    let failure = SERVER.get().and_then(|server| server.stop.failure());
    match result.as_ref().err().or(failure) {
        Some(error) => {
            logging::print_error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        None => {
            if let Some(server) = SERVER.get() {
                server.log_totals();
            }
            logging::flush();
            ExitCode::SUCCESS
        }
    }
}

/// Logs a panic. Unless [`catch::catch`] catches it, the server drains.
fn on_panic(panic: &PanicHookInfo<'_>) {
    // std panics with this text when a scoped thread has panicked, which is already logged.
    if panic.payload().downcast_ref() == Some(&"a scoped thread panicked") {
        return;
    }
    if !catch::is_catching() {
        count(Counter::Panics);
        SERVER.get().inspect(|server| server.stop.fail_in_panic(defect()));
    }
    log::error!("{}", panic.to_string().replace('\n', " "));
}

impl Server {
    /// Opens the listener, or takes an inherited one. Prints the ready line to stdout, except with --inetd.
    ///
    /// `capacity` is the number of clients that are accepted at the same time; `None` is --max-connections. Further
    /// clients are rejected. A server that calls [`accept`](Self::accept) only when it has a free thread rejects none:
    /// they wait in the backlog. With --processes this call does not return in the parent, which supervises its workers
    /// until the end.
    ///
    /// # Errors
    ///
    /// The reason why this process cannot listen, as one line that says what to do.
    pub fn listen(options: &Options, waiting: Waiting, capacity: Option<usize>) -> Result<&'static Self> {
        if options.worker {
            worker::die_with_parent()?;
            worker::set_name();
        }
        let is_inherited = options.inherited || options.inetd == Some(Inetd::Wait) || inherited_fds::has_listen_fds();
        let (listener, only_client) = match options.inetd {
            Some(Inetd::Nowait) => (None, inherited_fds::stdin_as_client()?),
            _ => (Some(listener::open(options)?), None),
        };
        if let Some(listener) = &listener {
            listener::configure(listener.into(), waiting)?;
        }
        if let Some(client) = &only_client {
            listener::configure(SockRef::from(client), waiting)?;
        }
        let wanted = match (capacity, options.max_connections) {
            _ if only_client.is_some() => Wanted::Capacity(1),
            (Some(capacity), _) => Wanted::Capacity(capacity),
            (None, Some(most)) => Wanted::Connections(most.get()),
            (None, None) => Wanted::ByDefault(MAX_CONNECTIONS),
        };
        let permits = descriptors::provide(wanted, &others(options, waiting), options.worker)?;
        let address = listener.as_ref().map(ready_line).transpose()?;
        let listener = match (listener, options.processes) {
            (Some(listener), Some(processes)) if !options.worker => supervisor::supervise(
                options,
                processes.into(),
                is_inherited,
                listener,
                address.as_deref().unwrap_or_default(),
            ),
            (listener, _) => listener,
        };

        let is_child = options.worker && options.inetd == Some(Inetd::Nowait);
        let server = SERVER.get_or_init(|| Self {
            stop: Stop::default(),
            timeouts: Timeouts::new(options.idle_timeout, options.question_timeout),
            work: Work::new(options),
            permits: Permits::new(permits, limiting_flag(capacity, options.max_connections)),
            listener: Mutex::new(listener.map(OwnedFd::from).map(Arc::new)),
            only_client: Mutex::new(only_client),
            arrivals: Mutex::new(Arrivals {
                while_draining: 0,
                latest: Instant::now(),
                last_logged: None,
                failures: 0,
            }),
            excess: Mutex::default(),
            backlog: options.backlog as usize,
            is_inherited,
            is_worker: options.worker,
            reports_to_parent: is_child || options.worker && options.metrics.is_some(),
            is_child,
            children: OnceLock::new(),
        });
        signal_thread::start(server, options.grace, !options.worker)?;
        server.start_reporting(options)?;
        if options.inetd == Some(Inetd::Wait) {
            let idle_exit = options.idle_exit.unwrap_or(IDLE_EXIT);
            if !idle_exit.is_zero() {
                server.leave_when_idle(idle_exit, options.worker)?;
            }
        }
        if !is_child {
            log::info!(
                "at most {permits} clients at once, {}, idle timeout {:?}, question timeout {:?}, grace {:?}",
                listener::backlog(options, is_inherited),
                options.idle_timeout,
                options.question_timeout,
                options.grace
            );
        }
        if let Some(address) = address.filter(|_| options.inetd.is_none() || options.worker) {
            let printed = announce(&address);
            if options.worker {
                // Without a reader the worker would never count as ready.
                printed.context("the parent has gone")?;
            }
        }
        service_manager::notify_ready();
        Ok(server)
    }

    /// Starts the heartbeats, to the service manager or the parent, and the metrics. A worker reports its metrics to
    /// the parent.
    fn start_reporting(&'static self, options: &Options) -> Result<()> {
        watchdog::start(if options.worker { worker::send_heartbeat } else { service_manager::notify_alive });
        match options.metrics {
            None => Ok(()),
            Some(_) if self.is_worker => {
                self.report_counters();
                Ok(())
            }
            Some(address) => metrics::serve(address, || self.snapshot()),
        }
    }

    /// Drains the server after this time without a client. A worker reports it to its parent instead, because other
    /// workers may have clients.
    fn leave_when_idle(&'static self, idle_exit: Duration, is_worker: bool) -> Result<()> {
        let run = move || {
            let mut was_idle = false;
            loop {
                std::thread::sleep(TICK.min(idle_exit));
                let is_idle = self.permits.idle_for() >= idle_exit;
                match (is_worker, is_idle) {
                    (true, _) if is_idle == was_idle => {}
                    (true, _) => worker::report_idle(is_idle),
                    (false, true) => break,
                    (false, false) => {}
                }
                was_idle = is_idle;
            }
            log::info!("leaving: no client for {idle_exit:?} (--idle-exit)");
            self.stop.request();
        };
        std::thread::Builder::new().name("idle-exit".into()).spawn(run).context("cannot start a thread")?;
        Ok(())
    }
}

/// Returns the descriptors that only some servers need: pollers, channels to workers, connections of the metrics.
fn others(options: &Options, waiting: Waiting) -> Others {
    let pollers = match waiting {
        Waiting::InCalls => 0,
        Waiting::ForReadiness { pollers } => pollers,
    };
    Others {
        loops: OF_A_POLLER.saturating_mul(pollers),
        processes: options.processes.unwrap_or(0).into(),
        metrics: options.metrics.map_or(0, |_| metrics::MAX_CONNECTIONS),
    }
}

/// Returns the flag that determines the connection limit. Of the servers with a capacity, only a pool rejects clients.
fn limiting_flag(capacity: Option<usize>, most: Option<NonZeroUsize>) -> &'static str {
    match (capacity, most) {
        (Some(capacity), most) if most.is_none_or(|most| most.get() > capacity) => "--workers, --queue",
        _ => "--max-connections",
    }
}

fn ready_line(listener: &Socket) -> Result<String> {
    let address = listener.local_addr()?.as_socket().context("the listener is not one of TCP")?;
    Ok(format!("{}{address}\n", worker::READY))
}

/// The default of --max-connections.
const MAX_CONNECTIONS: usize = 1024;

/// The descriptors of a poller: epoll, a timer, and an eventfd to wake it.
const OF_A_POLLER: usize = 3;

/// The default of --idle-exit.
const IDLE_EXIT: Duration = Duration::from_secs(60);
