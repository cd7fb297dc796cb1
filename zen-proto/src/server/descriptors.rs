//! The limit of descriptors: raised at the start to what is needed, or the start is refused.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of the clients: standard streams, listener, log, pollers, signals, and some
/// in reserve.
const OWN: u64 = 32;

/// Makes sure that `clients` can be had at once.
pub(super) fn provide(clients: usize) -> Result<()> {
    let needed = clients as u64 + OWN;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    if limit.maximum.is_some_and(|maximum| maximum < needed) || setrlimit(Resource::Nofile, raised).is_err() {
        let maximum = limit.maximum.unwrap_or(u64::MAX);
        bail!(
            "{clients} clients at once need {needed} descriptors and the limit is {maximum}: \
             raise it (ulimit -n {needed}) or lower --max-connections"
        );
    }
    Ok(())
}
