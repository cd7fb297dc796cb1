//! The state that all threads of a server share.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::process::Signal;

use super::counters::{Counter, Counters};
use super::excess::Excess;
use super::metrics::Snapshot;
use super::permits::Permits;
use super::reports::Reports;
use super::simulated_work::Work;
use super::stop::Stop;
use super::{signals, worker};
use crate::Timeouts;

/// The state that all threads of a server share. A process has one, which is never dropped.
#[derive(Debug)]
pub struct Server {
    /// The stop flag.
    pub stop: Stop,
    pub(super) timeouts: Timeouts,
    pub(super) work: Option<Work>,
    pub(super) permits: Permits,
    pub(super) listener: Mutex<Option<Arc<OwnedFd>>>,
    pub(super) only_client: Mutex<Option<TcpStream>>,
    pub(super) arrivals: Mutex<Arrivals>,
    pub(super) excess: Mutex<Excess>,
    /// The value of --backlog. The kernel's queue holds at most one client more.
    pub(super) backlog: usize,
    /// Whether the listener, and the clients in its backlog, outlive this process.
    pub(super) is_inherited: bool,
    /// Whether another process of this server started this one: as a worker of --processes, or for a single client.
    pub(super) is_worker: bool,
    /// Whether this process reports its counters to a parent.
    pub(super) reports_to_parent: bool,
    /// Whether this process serves a single client, which its parent has accepted, counted and logged.
    pub(super) is_child: bool,
    /// The processes for single clients, if this server starts them.
    pub(super) children: OnceLock<Mutex<Reports>>,
}

/// Results of accept() so far, for the drain and for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrivals {
    pub(super) while_draining: usize,
    pub(super) latest: Instant,
    /// When a failure of accept() was last logged.
    pub(super) last_logged: Option<Instant>,
    /// The number of failures of accept() since the last success.
    pub(super) failures: u32,
}

impl Server {
    /// Returns the listener, for a poller; `None` when no more clients are accepted.
    pub fn listener(&self) -> Option<Arc<OwnedFd>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the last line, with the numbers of clients and panics.
    pub(super) fn log_totals(&self) {
        if self.is_child {
            return;
        }
        let counters = self.snapshot().counters;
        let clients = counters.get(Counter::Accepted) + counters.get(Counter::Rejected);
        log::info!("stopped after {clients} clients and {} panics", counters.get(Counter::Panics));
    }

    /// Reports the counters of this process to the parent, if there is one.
    pub(super) fn report_counters(&self) {
        if self.reports_to_parent {
            worker::report_counters(self.counters());
        }
    }

    /// Returns the values of the metrics, processes for single clients included.
    pub(super) fn snapshot(&self) -> Snapshot {
        let own = self.counters();
        match self.children() {
            Some(children) => children.snapshot(own),
            None => Snapshot { counters: own, workers: None, processes: vec![std::process::id()] },
        }
    }

    /// Locks the list of processes for single clients. Returns `None` if this server starts none.
    pub(super) fn children(&self) -> Option<MutexGuard<'_, Reports>> {
        self.children.get().map(|children| children.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a signal to the processes for single clients.
    pub(super) fn signal_children(&self, signal: Signal) {
        let children = self.children();
        children.iter().flat_map(|children| children.alive.keys()).for_each(|pid| signals::send(signal, *pid));
    }

    pub(super) fn excess(&self) -> MutexGuard<'_, Excess> {
        self.excess.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a drain leaves the backlog to another process: to the next server if the listener is inherited,
    /// or to the other workers if only this one drains.
    pub(super) fn leaves_backlog(&self) -> bool {
        self.is_inherited || self.is_worker && !worker::all_drain()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters::own(self.permits.taken(), self.permits.limit(), self.stop.is_requested())
    }
}
