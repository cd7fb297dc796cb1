//! What a run is to do.

use std::net::SocketAddr;
use std::time::Duration;

use super::mix::Mix;
use super::tally::Sabotage;

/// Everything that decides about a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The connections are spread over them; one at least.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) connections: usize,
    pub(crate) mix: Mix,
    pub(crate) idle: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) rate: Option<u64>,
    pub(crate) churn: bool,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) seed: u64,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Plan {
    /// What the command does if nothing else is said.
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            connections: 16,
            mix: Mix::GOOD,
            idle: 0,
            pipeline: 1,
            threads: 1,
            rate: None,
            churn: false,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            retries: 0,
            seed: u64::from(fastrand::u32(..)), // every reader of JSON keeps 32 bits exactly
            sabotage: None,
        }
    }

    /// How many connections ask.
    pub(super) fn good(&self) -> usize {
        self.mix.shares(self.connections)[0]
    }
}
