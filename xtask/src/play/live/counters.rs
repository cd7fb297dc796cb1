//! What the page counts: answers a second, and what the server uses.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::clients::Client;
use super::traced::Traced;

/// The figures of the last second.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Counters {
    answers_per_second: f64,
    /// Processors in use: 0.5 is one that is busy for half of the time.
    processors: f64,
    threads: usize,
    processes: usize,
    /// Bytes of anonymous memory.
    memory: u64,
}

/// The last figures, and the sums from which the next ones are computed.
pub(super) struct Counter {
    counters: Counters,
    at: Instant,
    answers: u64,
    cpu: Duration,
}

impl Counter {
    pub(super) fn new() -> Counter {
        Counter { counters: Counters::default(), at: Instant::now(), answers: 0, cpu: Duration::ZERO }
    }

    /// Returns the figures of the last whole second.
    pub(super) fn count(&mut self, traced: Option<&Traced>, clients: &[Client]) -> Counters {
        let time = self.at.elapsed();
        if time >= SECOND {
            let usage = traced.map(Traced::usage).unwrap_or_default();
            let answers: u64 = clients.iter().map(|client| client.answers()).sum();
            // Both sums are smaller after another server has been started, or a client been removed.
            self.counters.answers_per_second = answers.saturating_sub(self.answers) as f64 / time.as_secs_f64();
            self.counters.processors = usage.cpu.saturating_sub(self.cpu).as_secs_f64() / time.as_secs_f64();
            (self.at, self.answers, self.cpu) = (Instant::now(), answers, usage.cpu);
            (self.counters.threads, self.counters.processes) = (usage.threads, usage.processes);
            self.counters.memory = usage.memory;
        }
        self.counters
    }
}

const SECOND: Duration = Duration::from_secs(1);
