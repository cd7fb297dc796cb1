//! Counters and gauges of a server's clients. They are relaxed atomics, so that no thread waits for another.

use std::ops::AddAssign;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Ending;

/// One of the counters that [`SERIES`] describes, in the same order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counter {
    Active,
    Limit,
    Draining,
    Accepted,
    Rejected,
    AcceptErrors,
    Questions,
    Panics,
    Finished,
    CutShort,
    TooLong,
    Idle,
    TooSlow,
    NotReading,
    Failed,
    Drained,
    Lost,
}

/// A time series of the Prometheus report.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The labels in braces, or an empty string.
    pub(super) labels: &'static str,
    /// Whether this is a gauge; otherwise it is a counter.
    pub(super) is_gauge: bool,
    pub(super) help: &'static str,
}

pub(super) const SERIES: [Series; Counter::Lost as usize + 1] = [
    gauge("zen_connections_active", "Clients that are connected now, lingering ones included."),
    gauge("zen_connections_max", "Clients that may be connected at the same time."),
    gauge("zen_draining", "Processes that are stopping."),
    counter("zen_connections_accepted_total", "", "Clients that were accepted for service."),
    counter(
        "zen_connections_rejected_total",
        "",
        "Clients that were rejected: over the limit, or no thread or process could be started.",
    ),
    counter("zen_accept_errors_total", "", "Failures of accept(): a client's own, or a lack of descriptors or memory."),
    counter("zen_questions_total", "", "Questions that were answered."),
    counter("zen_panics_total", "", "Panics, each of which is a defect."),
    ending(r#"{reason="finished"}"#),
    ending(r#"{reason="cut_short"}"#),
    ending(r#"{reason="too_long"}"#),
    ending(r#"{reason="idle"}"#),
    ending(r#"{reason="too_slow"}"#),
    ending(r#"{reason="not_reading"}"#),
    ending(r#"{reason="failed"}"#),
    ending(r#"{reason="drained"}"#),
    ending(r#"{reason="lost"}"#),
];

const fn gauge(name: &'static str, help: &'static str) -> Series {
    Series { name, labels: "", is_gauge: true, help }
}

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Series {
    Series { name, labels, is_gauge: false, help }
}

const fn ending(labels: &'static str) -> Series {
    counter("zen_connections_closed_total", labels, "Connections that are closed, by how the conversation ended.")
}

/// The counters of this process.
static OWN: [AtomicU64; SERIES.len()] = [const { AtomicU64::new(0) }; SERIES.len()];

/// Increments a counter of rare events.
pub(super) fn count(counter: Counter) {
    OWN[counter as usize].fetch_add(1, Ordering::Relaxed);
}

/// Decrements a counter, for a connection that was counted as accepted and is then rejected.
pub(super) fn uncount(counter: Counter) {
    OWN[counter as usize].fetch_sub(1, Ordering::Relaxed);
}

/// Counts a question, by a load and a store in a cache line that only this thread writes. The cache line of a shared
/// counter would move from processor to processor with every answer.
pub(super) fn count_question() {
    thread_local! {
        static OWN_TALLY: Tally = Tally::take();
    }
    OWN_TALLY.with(|Tally(questions)| questions.0.store(questions.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
}

/// The counter of one thread, in a cache line of its own.
#[repr(align(64))]
struct Questions(AtomicU64);

/// A thread's handle of its counter. When the thread ends, the next new thread continues with that counter.
struct Tally(&'static Questions);

static TALLIES: Mutex<Tallies> = Mutex::new(Tallies { all: Vec::new(), free: Vec::new() });

struct Tallies {
    /// The counters of all threads; as many as there were threads at the same time.
    all: Vec<&'static Questions>,
    free: Vec<&'static Questions>,
}

impl Tally {
    fn take() -> Self {
        let mut tallies = tallies();
        Self(tallies.free.pop().unwrap_or_else(|| {
            let questions: &'static Questions = Box::leak(Box::new(Questions(AtomicU64::new(0))));
            tallies.all.push(questions);
            questions
        }))
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        tallies().free.push(self.0);
    }
}

fn tallies() -> MutexGuard<'static, Tallies> {
    TALLIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The counters of a process, or the sum of several processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters(pub(super) [u64; SERIES.len()]);

impl Counters {
    /// Returns the current counters of this process, with these gauges.
    pub(super) fn own(active: usize, limit: usize, is_draining: bool) -> Self {
        let mut counters = Self(std::array::from_fn(|at| OWN[at].load(Ordering::Relaxed)));
        counters.0[Counter::Questions as usize] =
            tallies().all.iter().map(|questions| questions.0.load(Ordering::Relaxed)).sum();
        let gauges = [(Counter::Active, active), (Counter::Limit, limit), (Counter::Draining, is_draining.into())];
        gauges.iter().for_each(|(gauge, value)| counters.0[*gauge as usize] = *value as u64);
        counters
    }

    /// Returns the counters without the gauges.
    pub(super) fn counts(self) -> Self {
        Self(std::array::from_fn(|at| if SERIES[at].is_gauge { 0 } else { self.0[at] }))
    }

    /// Returns the counters after the process has ended: clients that it still had count as lost.
    pub(super) fn after_its_end(self) -> Self {
        let mut counters = self.counts();
        counters.0[Counter::Lost as usize] += self.0[Counter::Active as usize];
        counters
    }

    /// Returns the counters after a process for a single client has ended. If it has not reported how the conversation
    /// ended, the client counts as lost.
    pub(super) fn after_the_only_client(self) -> Self {
        let mut counters = self.counts();
        if self.0[Counter::Finished as usize..].iter().all(|ending| *ending == 0) {
            counters.0[Counter::Lost as usize] = 1;
        }
        counters
    }

    /// Returns the value of one counter.
    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Returns the counters as a line, in which a worker reports them to its parent.
    pub(super) fn to_line(self) -> String {
        self.0.map(|counter| counter.to_string()).join(" ")
    }
}

impl FromStr for Counters {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let counters: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        Ok(Self(counters.map_err(|_| ())?.try_into().map_err(|_| ())?))
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, counter)| *sum += counter);
    }
}

impl From<&Ending> for Counter {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Finished => Self::Finished,
            Ending::CutShort(_) => Self::CutShort,
            Ending::TooLong => Self::TooLong,
            Ending::Idle => Self::Idle,
            Ending::TooSlow(_) => Self::TooSlow,
            Ending::NotReading => Self::NotReading,
            Ending::Failed => Self::Failed,
            Ending::Drained => Self::Drained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_series() {
        let name = |counter: Counter| (SERIES[counter as usize].name, SERIES[counter as usize].labels);
        assert_eq!(name(Counter::Draining), ("zen_draining", ""));
        assert_eq!(name(Counter::Questions), ("zen_questions_total", ""));
        assert_eq!(name(Counter::from(&Ending::Drained)), ("zen_connections_closed_total", r#"{reason="drained"}"#));
        assert_eq!(name(Counter::Lost), ("zen_connections_closed_total", r#"{reason="lost"}"#));
    }

    #[test]
    fn a_worker_is_understood_and_leaves_its_counts() {
        let counters = Counters(std::array::from_fn(|at| at as u64 + 1));
        let line = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17";
        assert_eq!(counters.to_line(), line);
        assert_eq!(line.parse(), Ok(counters));
        assert_eq!(counters.after_its_end().to_line(), "0 0 0 4 5 6 7 8 9 10 11 12 13 14 15 16 18");
        assert!(["", "1 2", "a", &format!("{line} 17")].iter().all(|line| line.parse::<Counters>().is_err()));
    }

    #[test]
    fn the_only_client_of_a_process_has_one_ending() {
        let silent = Counters::default().after_the_only_client();
        assert_eq!(silent.get(Counter::Lost), 1);
        let mut told = Counters::default();
        told.0[Counter::Drained as usize] = 1;
        told.0[Counter::Active as usize] = 1;
        assert_eq!(told.after_the_only_client().to_line(), "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0");
    }

    #[test]
    fn no_question_is_lost_when_threads_come_and_go() {
        let ask = || (0..1000).for_each(|_| count_question());
        for _ in 0..3 {
            std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(ask)));
        }
        assert_eq!(Counters::own(0, 0, false).0[Counter::Questions as usize], 12_000);
        assert!(tallies().all.len() <= 4);
    }
}
