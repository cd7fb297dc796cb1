//! The limit of descriptors: raised at the start to what is needed, or the start is refused.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Waiting;

/// Descriptors beside those of the clients: standard streams, listener, log, signals, and some in reserve.
const OWN: u64 = 32;

/// What a poller is made of: epoll, a timer, and a descriptor to be woken by.
const OF_A_POLLER: u64 = 3;

/// Makes sure that `clients` can be had at once; they are as many as the workers (`are_workers`), or --max-connections. One
/// worker is the least there can be.
pub(super) fn provide(clients: usize, waiting: Waiting, are_workers: bool) -> Result<()> {
    let pollers = match waiting {
        Waiting::InCalls => 0,
        Waiting::ForReadiness { pollers } => OF_A_POLLER.saturating_mul(pollers as u64),
    };
    let needed = (clients as u64).saturating_add(OWN).saturating_add(pollers);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    if limit.maximum.is_some_and(|maximum| maximum < needed) || setrlimit(Resource::Nofile, raised).is_err() {
        let maximum = limit.maximum.unwrap_or(u64::MAX);
        let otherwise = match (clients, are_workers) {
            (1, _) => "",
            (_, true) => " or lower --workers",
            (_, false) => " or lower --max-connections",
        };
        bail!(
            "{clients} clients at once need {needed} descriptors and the limit is {maximum}: \
             raise it (ulimit -n {needed}){otherwise}"
        );
    }
    Ok(())
}
