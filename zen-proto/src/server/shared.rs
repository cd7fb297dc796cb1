//! What all threads of a server share.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::counters::{Counter, Counters, counted};
use super::excess::Excess;
use super::permits::Permits;
use super::simulated_work::Work;
use super::stop::Stop;
use super::worker;
use crate::Timeouts;

/// What all threads of a server share. There is one in a process, for as long as that lives.
#[derive(Debug)]
pub struct Server {
    /// Whether to stop.
    pub stop: Stop,
    pub(super) timeouts: Timeouts,
    pub(super) work: Option<Work>,
    pub(super) permits: Permits,
    pub(super) listener: Mutex<Option<Arc<OwnedFd>>>,
    pub(super) only_client: Mutex<Option<TcpStream>>,
    pub(super) arrivals: Mutex<Arrivals>,
    pub(super) excess: Mutex<Excess>,
    /// How many clients can have waited in the kernel.
    pub(super) backlog: usize,
    /// Whether the listener outlives this process, and with it those who wait.
    pub(super) is_inherited: bool,
    /// Whether it is one of another process's --processes.
    pub(super) is_worker: bool,
    /// Whether a parent adds its counters to those of others.
    pub(super) reports_to_parent: bool,
}

/// Who came, for the drain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrivals {
    pub(super) while_draining: usize,
    pub(super) latest: Instant,
    /// When the log last said that no client can be accepted.
    pub(super) last_logged: Option<Instant>,
    /// Failures of accept() since the last success.
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

    /// The closing line of the log.
    pub(super) fn log_totals(&self) {
        let [accepted, rejected, panics] = [Counter::Accepted, Counter::Rejected, Counter::Panics].map(counted);
        let clients = accepted + rejected;
        if self.reports_to_parent {
            worker::report_counters(self.counters());
        }
        log::info!("stopped after {clients} clients and {panics} panics");
    }

    pub(super) fn excess(&self) -> MutexGuard<'_, Excess> {
        self.excess.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether clients in the backlog are left to another process while this one drains: to the next server, or to the
    /// other workers when this one has failed or is told to stop alone.
    pub(super) fn leaves_backlog(&self) -> bool {
        self.is_inherited || self.is_worker && !worker::all_drain()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters::own(self.permits.taken(), self.permits.limit(), self.stop.is_requested())
    }
}
