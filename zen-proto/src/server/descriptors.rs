//! The descriptor limit. It is raised at the start as far as needed; if that fails, fewer clients are served, or the
//! server does not start.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of clients that a server needs descriptors for.
pub(super) enum Wanted {
    /// The number that the architecture serves at the same time. It cannot be reduced.
    Capacity(usize),
    /// The number given by --max-connections. It cannot be reduced.
    Connections(usize),
    /// The default of --max-connections, which may be reduced.
    ByDefault(usize),
}

/// Descriptors needed for other purposes than clients, by the flag that determines their number.
pub(super) struct Others {
    pub(super) loops: usize,
    pub(super) processes: usize,
    pub(super) metrics: usize,
}

/// Raises the limit to what the clients and `others` need; returns how many clients there can be.
///
/// # Errors
///
/// The limit cannot be raised enough.
pub(super) fn provide(wanted: Wanted, others: &Others, is_worker: bool) -> Result<usize> {
    let (clients, least, flag) = match wanted {
        Wanted::Capacity(1) => (1, 1, ""),
        Wanted::Capacity(workers) => (workers, workers, ", or lower --workers (with a pool, or --queue)"),
        Wanted::Connections(clients) => (clients, clients, ", or lower --max-connections"),
        Wanted::ByDefault(clients) => (clients, 1, ""),
    };
    // The error names the flag that needs the most descriptors.
    let flag = match *others {
        Others { loops, processes, .. } if processes > loops.max(least) => ", or lower --processes",
        Others { loops, .. } if loops > least.max(OWN) => ", or lower --loops",
        _ => flag,
    };
    let others = others.loops.saturating_add(others.processes + others.metrics + OWN);
    let need = |clients: usize| clients.saturating_add(others);
    let limit = raise(need(clients));
    let possible = clients.min(limit.saturating_sub(others));
    ensure!(
        possible >= least,
        "serving {least} clients at once takes {} descriptors, but the limit is {limit}: \
         raise it (ulimit -n {0}){flag}",
        need(least)
    );
    // The parent of a worker has already logged this.
    if possible < clients && !is_worker {
        log::warn!(
            "--max-connections is {possible}: {clients} would take {} descriptors, but the limit is {limit}: \
             raise it (ulimit -n {0})",
            need(clients)
        );
    }
    Ok(possible)
}

/// Raises the limit to `needed` if it is lower, as far as permitted, and returns the limit.
fn raise(needed: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let current = number(limit.current);
    let possible = number(limit.maximum).min(needed);
    if current >= possible {
        return current;
    }
    let raised = Rlimit { current: Some(possible as u64), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() { possible } else { current }
}

/// Descriptors that every server needs: standard streams, listener, log, signals, and a reserve.
const OWN: usize = 32;
