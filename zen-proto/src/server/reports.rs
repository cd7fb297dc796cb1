//! The parent's record of the processes that it has started: those that run, and the counters of all.

use std::collections::BTreeMap;

use super::counters::Counters;
use super::metrics::Snapshot;

/// The counters that processes have reported to their parent.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The last reported counters of each running process, by process id.
    pub(super) alive: BTreeMap<u32, Counters>,
    /// The sum of the counters of processes that have ended.
    ended: Counters,
    /// The number of processes that ended unexpectedly.
    pub(super) died: u64,
}

impl Reports {
    /// Adds the counters of a process that has ended to the sum of all ended processes. Otherwise a total would
    /// decrease.
    pub(super) fn retire(&mut self, pid: u32, counters: Counters) {
        self.alive.remove(&pid);
        self.ended += counters;
    }

    /// Adds up the counters of all processes, the ended ones and the parent's `own` included.
    pub(super) fn sum(&self, own: Counters) -> Counters {
        let mut counters = own;
        counters += self.ended;
        self.alive.values().for_each(|reported| counters += *reported);
        counters
    }

    pub(super) fn snapshot(&self, own: Counters) -> Snapshot {
        let processes = std::iter::once(std::process::id()).chain(self.alive.keys().copied()).collect();
        Snapshot { counters: self.sum(own), workers: Some((self.alive.len() as u64, self.died)), processes }
    }
}
