//! The open loop: when each connection is due to ask, whether or not its last answer has come.
//!
//! All questions of a run are numbered: 0, 1, 2… The one with number `k` is due at `start + k / rate`, on connection
//! `k mod N`. So each connection asks as often as any other, and between two questions there is always the same
//! time. What a connection owes follows from numbers alone; nothing is queued, however late it is.

use super::clock::Nanos;

/// The questions of one thread, which has every `threads`-th connection.
pub(super) struct Schedule {
    start: Nanos,
    /// Nanoseconds between two questions of the whole run.
    period: f64,
    /// How many connections ask, in all threads.
    connections: u64,
    threads: u64,
    thread: u64,
    /// How many of them this thread has.
    own: u64,
    /// The next question that is not yet due: the round and the own connection.
    round: u64,
    next: u64,
}

impl Schedule {
    /// For the thread with number `thread`, which has the connections `thread`, `thread + threads`, and so on.
    pub(super) fn new(start: Nanos, rate: u64, connections: usize, thread: usize, threads: usize) -> Self {
        let own = (connections - thread).div_ceil(threads) as u64;
        let (connections, threads, thread) = (connections as u64, threads as u64, thread as u64);
        Self { start, period: 1e9 / rate as f64, connections, threads, thread, own, round: 0, next: 0 }
    }

    /// When the `round`-th question of the `own`-th of this thread's connections is due.
    pub(super) fn due(&self, own: usize, round: u64) -> Nanos {
        let number = round * self.connections + self.thread + own as u64 * self.threads;
        // Exact to a nanosecond for a hundred days.
        self.start + (number as f64 * self.period) as Nanos
    }

    /// When the next question is due.
    pub(super) fn next_due(&self) -> Nanos {
        self.due(self.next as usize, self.round)
    }

    /// The next questions that are not yet due, one for each connection: the connection, and when.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = (usize, Nanos)> {
        let wrapped = (0..self.next).map(|own| (own as usize, self.round + 1));
        let coming = (self.next..self.own).map(|own| (own as usize, self.round)).chain(wrapped);
        coming.map(|(own, round)| (own, self.due(own, round)))
    }

    /// The connection whose question is the next; from now on it owes it.
    pub(super) fn advance(&mut self) -> usize {
        let own = self.next as usize;
        self.next += 1;
        if self.next == self.own {
            (self.next, self.round) = (0, self.round + 1);
        }
        own
    }

    /// How many questions of the connection have been due so far.
    pub(super) fn rounds(&self, own: usize) -> u64 {
        self.round + u64::from((own as u64) < self.next)
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
}
