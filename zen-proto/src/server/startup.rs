//! The three moves of a `main`: parse, listen, serve.

use std::any::type_name_of_val;
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
use super::metrics::{self, Snapshot};
use super::options::{Arguments, Inetd, Options, parse};
use super::permits::Permits;
use super::shared::{Arrivals, Server};
use super::simulated_work::Work;
use super::stdout::announce;
use super::stop::{Stop, defect};
use super::{catch, inherited_fds, logging, sd_notify, signal_thread, supervisor, watchdog, worker};
use crate::Timeouts;

static SERVER: OnceLock<Server> = OnceLock::new();

/// Parses the command line, runs `serve`, and makes an exit status of what came of it: 0 after draining, 1
/// and one line on stderr for an error. A wrong command line ends the process with 2.
pub fn main<A: Arguments>(serve: impl FnOnce(A) -> Result<()>) -> ExitCode {
    logging::outlive_file_size_limit();
    let arguments = parse::<A>();
    // The closure's name begins with the crate that has written it.
    let program = type_name_of_val(&serve).split("::").next().unwrap_or_default();
    let serve = || {
        logging::start(arguments.common().log(program))?;
        panic::set_hook(Box::new(on_panic));
        serve(arguments)
    };
    let result = catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| Err(defect()));
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

/// Logs a panic. One that no conversation catches drains the server, whichever thread it ends.
fn on_panic(panic: &PanicHookInfo<'_>) {
    // What std says on behalf of a scope when one of its threads has panicked, which is logged already.
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
    /// Opens the listener, or takes over the one this process was given, and says so on stdout.
    ///
    /// `at_once` is how many clients the architecture serves at the same time; `None`: as many as
    /// --max-connections, and the next is turned away. With --processes this call does not return in the
    /// parent: that supervises its workers until the end.
    ///
    /// # Errors
    ///
    /// What keeps this process from listening, in one line that says what to do.
    pub fn listen(options: &Options, waiting: Waiting, at_once: Option<usize>) -> Result<&'static Self> {
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
        let wanted = match (at_once, options.max_connections) {
            _ if only_client.is_some() => Wanted::AtOnce(1),
            (Some(at_once), _) => Wanted::AtOnce(at_once),
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

        let server = SERVER.get_or_init(|| Self {
            stop: Stop::default(),
            timeouts: Timeouts::new(options.idle_timeout, options.question_timeout),
            work: Work::new(options),
            permits: Permits::new(permits),
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
            reports_to_parent: options.worker && options.metrics.is_some(),
        });
        signal_thread::start(server, options.grace, !options.worker)?;
        server.report(options)?;
        if options.inetd == Some(Inetd::Wait) {
            let idle_exit = options.idle_exit.unwrap_or(IDLE_EXIT);
            if !idle_exit.is_zero() {
                server.leave_when_idle(idle_exit, options.worker)?;
            }
        }
        log::info!(
            "at most {permits} clients at once, {}, idle timeout {:?}, question timeout {:?}, grace {:?}",
            listener::backlog(options, is_inherited),
            options.idle_timeout,
            options.question_timeout,
            options.grace
        );
        if let Some(address) = address.filter(|_| options.inetd.is_none() || options.worker) {
            let printed = announce(&address);
            if options.worker {
                // No process reads it: the parent has ended before this process could be tied to it.
                printed.context("the parent has gone")?;
            }
        }
        sd_notify::is_ready();
        Ok(server)
    }

    /// Starts the heartbeat and the reports to the service manager or the parent.
    fn report(&'static self, options: &Options) -> Result<()> {
        watchdog::start(if options.worker { worker::tell_alive } else { sd_notify::is_alive });
        match options.metrics {
            None => Ok(()),
            Some(_) if self.reports_to_parent => worker::begin_to_tell(|| self.counters()),
            Some(address) => metrics::serve(address, || Snapshot {
                counters: self.counters(),
                workers: None,
                processes: vec![std::process::id()],
            }),
        }
    }

    /// Drains after this time without a client. A worker tells its parent instead: others may be busy.
    fn leave_when_idle(&'static self, idle_exit: Duration, is_worker: bool) -> Result<()> {
        let run = move || {
            let mut was_idle = false;
            loop {
                std::thread::sleep(TICK.min(idle_exit));
                let is_idle = self.permits.idle_for() >= idle_exit;
                match (is_worker, is_idle) {
                    (true, _) if is_idle == was_idle => {}
                    (true, _) => worker::tell_idle(is_idle),
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

/// Descriptors that only some servers need: pollers, a channel to each worker, and the connections of the metrics.
fn others(options: &Options, waiting: Waiting) -> Others {
    let pollers = match waiting {
        Waiting::InCalls => 0,
        Waiting::ForReadiness { pollers } => pollers,
    };
    Others {
        loops: OF_A_POLLER.saturating_mul(pollers),
        processes: options.processes.unwrap_or(0).into(),
        metrics: options.metrics.map_or(0, |_| metrics::MOST_CONNECTIONS),
    }
}

fn ready_line(listener: &Socket) -> Result<String> {
    let address = listener.local_addr()?.as_socket().context("the listener is not one of TCP")?;
    Ok(format!("{}{address}\n", worker::READY))
}

/// How many clients may be connected at once unless told otherwise.
const MAX_CONNECTIONS: usize = 1024;

/// What a poller is made of: epoll, a timer, and a descriptor to be woken by.
const OF_A_POLLER: usize = 3;

/// How long `--inetd wait` waits for a client unless told otherwise.
const IDLE_EXIT: Duration = Duration::from_secs(60);
