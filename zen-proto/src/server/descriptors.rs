//! The limit of descriptors, raised at the start to what is needed. Where it cannot be, fewer clients are served, or
//! none.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many clients a server wants to serve at once.
pub(super) enum Wanted {
    /// As many as its architecture serves: no fewer will do.
    AtOnce(usize),
    /// As many as --max-connections says: no fewer will do.
    Connections(usize),
    /// As many as --max-connections is by default, or fewer.
    ByDefault(usize),
}

/// How many descriptors it needs for other things than clients, each by the flag that decides it.
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
        Wanted::AtOnce(1) => (1, 1, ""),
        Wanted::AtOnce(workers) => (workers, workers, ", or lower --workers"),
        Wanted::Connections(clients) => (clients, clients, ", or lower --max-connections"),
        Wanted::ByDefault(clients) => (clients, 1, ""),
    };
    // The flag that takes most is the one to lower.
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
        "serving {least} at once takes {} descriptors, but the limit is {limit}: raise it (ulimit -n {0}){flag}",
        need(least)
    );
    // Of a worker's limit the parent has said it.
    if possible < clients && !is_worker {
        log::warn!(
            "--max-connections is {possible}: {clients} would take {} descriptors, but the limit is {limit}: \
             raise it (ulimit -n {0})",
            need(clients)
        );
    }
    Ok(possible)
}

/// Raises the limit to `needed` if it is lower, as far as that is allowed; returns the limit.
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

/// Descriptors for what is always there: standard streams, listener, log, signals, and some in reserve.
const OWN: usize = 32;
