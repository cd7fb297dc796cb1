//! The open loop: when each connection is due to ask, whether or not its last answer has arrived.
//!
//! All questions of a run are numbered: 0, 1, 2… Question `k` is due at `start + k / rate`, on connection `k mod N`. So
//! each connection asks as often as any other, with the same time between two questions. What is due follows from
//! numbers alone; nothing is queued, however late a connection is.

use fastrand::Rng;
use serde::Serialize;

use super::clock::Nanos;

/// The distribution of questions over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// At equal distances
    #[default]
    Even,
    /// At random, as from many clients that know nothing of each other
    Poisson,
}

/// The questions of one thread, which has every `threads`-th connection.
pub(super) struct Schedule {
    start: Nanos,
    /// Nanoseconds between two questions of the whole run.
    period: f64,
    /// The number of connections that ask, in all threads.
    connections: u64,
    threads: u64,
    thread: u64,
    /// The number of those that this thread has.
    own: u64,
    /// The next question that is not yet due: its round and its connection among the own ones.
    round: u64,
    next: u64,
    random: Option<RandomTimes>,
}

/// The times of a Poisson process, with exponential distances. Several Poisson processes together are one again, so
/// each thread has its own.
struct RandomTimes {
    random: Rng,
    /// The mean distance in nanoseconds.
    mean: f64,
    /// When each question of this thread is due, counted from the start. `last` is the last of these times, unrounded.
    due: Vec<Nanos>,
    last: f64,
}

impl Schedule {
    /// Returns the schedule of `thread`, which has the connections `thread`, `thread + threads`, and so on.
    pub(super) fn new(start: Nanos, rate: u64, connections: usize, thread: usize, threads: usize) -> Self {
        let own = (connections - thread).div_ceil(threads) as u64;
        let (connections, threads, thread) = (connections as u64, threads as u64, thread as u64);
        let period = 1e9 / rate as f64;
        Self { start, period, connections, threads, thread, own, round: 0, next: 0, random: None }
    }

    /// Makes the arrivals random.
    pub(super) fn with_random_times(mut self, random: Rng) -> Self {
        let mean = self.period * self.connections as f64 / self.own as f64;
        let mut times = RandomTimes { random, mean, due: Vec::new(), last: 0.0 };
        times.extend_to(2 * self.own as usize);
        self.random = Some(times);
        self
    }

    /// Returns when the `round`-th question of the `own`-th of this thread's connections is due.
    pub(super) fn due(&self, own: usize, round: u64) -> Nanos {
        if let Some(times) = &self.random {
            return self.start + times.due[round as usize * self.own as usize + own];
        }
        let number = round * self.connections + self.thread + own as u64 * self.threads;
        // Exact to a nanosecond for a hundred days.
        self.start + (number as f64 * self.period) as Nanos
    }

    /// Returns when the next question is due.
    pub(super) fn next_due(&self) -> Nanos {
        self.due(self.next as usize, self.round)
    }

    /// Returns the next questions that are not yet due, one for each connection: the connection, and when.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = (usize, Nanos)> {
        let wrapped = (0..self.next).map(|own| (own as usize, self.round + 1));
        let upcoming = (self.next..self.own).map(|own| (own as usize, self.round)).chain(wrapped);
        upcoming.map(|(own, round)| (own, self.due(own, round)))
    }

    /// Returns the connection of the next question, which is due from now on.
    pub(super) fn advance(&mut self) -> usize {
        let own = self.next as usize;
        self.next += 1;
        if self.next == self.own {
            (self.next, self.round) = (0, self.round + 1);
            if let Some(times) = &mut self.random {
                // This round and the next one, which `upcoming` shows.
                times.extend_to((self.round as usize + 2) * self.own as usize);
            }
        }
        own
    }

    /// Returns how many questions of the connection have been due so far.
    pub(super) fn rounds(&self, own: usize) -> u64 {
        self.round + u64::from((own as u64) < self.next)
    }
}

impl RandomTimes {
    fn extend_to(&mut self, length: usize) {
        while self.due.len() < length {
            // The logarithm of 0 is infinite; that of 1 - x, with x below 1, is not.
            self.last -= self.mean * (1.0 - self.random.f64()).ln();
            self.due.push(self.last as Nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_share_the_questions_evenly_over_connections_and_time() {
        let mut all: Vec<(Nanos, usize)> = Vec::new();
        for thread in 0..2 {
            let mut schedule = Schedule::new(1_000, 1_000_000, 5, thread, 2);
            while schedule.next_due() < 1_000 + 20_000 {
                let due = schedule.next_due();
                let (upcoming, when) = schedule.upcoming().next().unwrap();
                assert!(schedule.upcoming().is_sorted_by_key(|(_, when)| when));
                let own = schedule.advance();
                assert_eq!((upcoming, when), (own, due));
                assert_eq!(schedule.due(own, schedule.rounds(own) - 1), due);
                all.push((due, thread + 2 * own));
            }
        }
        all.sort_unstable();
        let expected: Vec<_> = (0..20).map(|k: u64| (1_000 + k * 1_000, k as usize % 5)).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_come_independently() {
        let mut schedule = Schedule::new(0, 1_000, 5, 1, 2).with_random_times(Rng::with_seed(1));
        let mut due = Vec::new();
        for n in 0..20_000 {
            due.push(schedule.next_due());
            assert_eq!(schedule.advance(), n % 2, "the connections take turns");
            assert!(schedule.upcoming().is_sorted_by_key(|(_, when)| when));
        }
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 2.5e6 - 1.0).abs() < 0.03, "two of five connections have 400 a second, not one each {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "the distances are exponential");
        assert_eq!(schedule.due(0, 0), due[0], "times that are over are still known");
    }
}
