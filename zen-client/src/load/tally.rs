//! What one thread counts: answers, failures, times, and how many questions are on their way.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::io::Errno;

use super::clock::{Nanos, nanos};
use super::failures::{Failures, Retries};

/// The time that counts: questions due in it are measured, also if their answers come later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
}

/// A question that is on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When it should have been sent; in a closed loop that is when it was.
    pub(crate) due: Nanos,
    pub(crate) sent: Nanos,
    /// How often it was asked again.
    retries: u32,
    /// Which of the three it is.
    pub(crate) aphorism: u8,
    /// It was due in the window.
    counts: bool,
}

impl Asked {
    /// Of a connection whose times are not measured.
    pub(crate) fn beside(sent: Nanos, aphorism: u8) -> Self {
        Self { due: sent, sent, retries: 0, aphorism, counts: false }
    }
}

/// What came in one second of the window. What came behind its end is in the last row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Row {
    pub(crate) answers: u64,
    pub(crate) sum: Nanos,
    pub(crate) max: Nanos,
}

/// The counts of one thread, or of all.
#[derive(Clone)]
pub(crate) struct Tally {
    window: Window,
    pub(crate) answers: u64,
    pub(crate) failures: Failures,
    pub(crate) retries: Retries,
    /// Questions that were due and could not be sent.
    pub(crate) missed: u64,
    /// Connections that asked and had no answer at all.
    pub(crate) unserved: u64,
    /// Connections that ended with nothing owed, and were opened again.
    pub(crate) reopened: u64,
    /// Of the thread, in the window.
    pub(crate) processor_time: Duration,
    /// Of the thread that had most to do.
    pub(crate) busiest: Duration,
    /// Why the last connection that was not opened was not.
    pub(crate) obstacle: Option<Errno>,
    /// From the actual send.
    pub(crate) service: Histogram<u64>,
    /// From the intended send, the first one; it differs in an open loop, and with retries.
    pub(crate) response: Option<Histogram<u64>>,
    pub(crate) rows: Vec<Row>,
    row_end: Nanos,
    /// How many questions are on their way, whenever they were due, and in the window how many for how long (ns).
    in_flight: u64,
    pub(crate) in_flight_area: u128,
    /// How many of them count, and until their answers came how many for how long: what they all have waited.
    waiting: u64,
    pub(crate) waited: u128,
    /// Since when it is as many.
    since: Nanos,
    /// Questions that were asked again and have found neither an answer nor an end.
    unresolved: u64,
}

impl Tally {
    /// A tally whose window has not come yet.
    pub(crate) fn new(has_response_time: bool) -> Self {
        Self {
            window: Window { start: Nanos::MAX, end: Nanos::MAX },
            answers: 0,
            failures: Failures::default(),
            retries: Retries::default(),
            missed: 0,
            unserved: 0,
            reopened: 0,
            processor_time: Duration::ZERO,
            busiest: Duration::ZERO,
            obstacle: None,
            service: histogram(),
            response: has_response_time.then(histogram),
            rows: vec![Row::default()],
            row_end: Nanos::MAX,
            in_flight: 0,
            in_flight_area: 0,
            waiting: 0,
            waited: 0,
            since: 0,
            unresolved: 0,
        }
    }

    /// From now on it is known what counts.
    pub(crate) fn begin(&mut self, window: Window) {
        self.window = window;
        self.row_end = window.start + SECOND;
    }

    /// A question goes out.
    pub(crate) fn asked(&mut self, due: Nanos, sent: Nanos, aphorism: u8) -> Asked {
        let counts = (self.window.start..self.window.end).contains(&due);
        self.pass(sent);
        self.in_flight += 1;
        self.waiting += u64::from(counts);
        Asked { due, sent, retries: 0, aphorism, counts }
    }

    /// Its answer has come.
    pub(crate) fn answered(&mut self, asked: Asked, now: Nanos) {
        self.pass(now);
        self.in_flight -= 1;
        if asked.retries > 0 {
            self.retries.answered += 1;
            self.unresolved -= 1;
        }
        if !asked.counts {
            return;
        }
        self.waiting -= 1;
        self.answers += 1;
        let service = now - asked.sent;
        let response = now - asked.due;
        self.service.saturating_record(service);
        if let Some(histogram) = &mut self.response {
            histogram.saturating_record(response);
        }
        self.row(now).note(response);
    }

    /// Its answer will not come, or is not waited for.
    pub(crate) fn abandoned(&mut self, asked: Asked, now: Nanos) {
        self.take_back(asked, now);
        self.unresolved -= u64::from(asked.retries > 0);
    }

    /// Its answer will not come over this connection; true: it is to be asked again, which may be `most` times.
    pub(crate) fn failed(&mut self, asked: &mut Asked, now: Nanos, most: u32) -> bool {
        if asked.retries == most {
            self.abandoned(*asked, now);
            self.retries.given_up += 1;
            return false;
        }
        self.take_back(*asked, now);
        if asked.retries == 0 {
            self.retries.questions += 1;
            self.unresolved += 1;
        }
        asked.retries += 1;
        true
    }

    /// It goes out once more. It is due since the first time.
    pub(crate) fn asked_again(&mut self, asked: &mut Asked, now: Nanos) {
        self.pass(now);
        self.in_flight += 1;
        self.waiting += u64::from(asked.counts);
        asked.sent = now;
    }

    /// It was due and was never sent. It had to wait at least until the end.
    pub(crate) fn missed(&mut self, due: Nanos) {
        if !(self.window.start..self.window.end).contains(&due) {
            return;
        }
        self.missed += 1;
        if let Some(histogram) = &mut self.response {
            histogram.saturating_record(self.window.end - due);
        }
    }

    /// The window is over, and has a row for each of its seconds.
    pub(crate) fn end(&mut self, now: Nanos) {
        self.pass(now);
        self.row(self.window.end);
    }

    /// The window ends earlier than was planned.
    pub(crate) fn cut(&mut self, end: Nanos) {
        self.window.end = end;
        self.window.start = self.window.start.min(end);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting > 0 || self.unresolved > 0
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Adds what another thread has counted in the same window.
    pub(crate) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.failures.add(&other.failures);
        self.retries.add(&other.retries);
        self.missed += other.missed;
        self.unserved += other.unserved;
        self.reopened += other.reopened;
        self.processor_time += other.processor_time;
        self.busiest = self.busiest.max(other.busiest);
        self.obstacle = self.obstacle.or(other.obstacle);
        self.in_flight_area += other.in_flight_area;
        self.waited += other.waited;
        // Histograms with equal bounds can always be added.
        let _ = self.service.add(&other.service);
        if let (Some(own), Some(others)) = (&mut self.response, &other.response) {
            let _ = own.add(others);
        }
        if self.rows.len() < other.rows.len() {
            self.rows.resize(other.rows.len(), Row::default());
        }
        for (row, other) in self.rows.iter_mut().zip(&other.rows) {
            row.answers += other.answers;
            row.sum += other.sum;
            row.max = row.max.max(other.max);
        }
    }

    /// It is no longer on its way, and never was as far as the times are concerned.
    fn take_back(&mut self, asked: Asked, now: Nanos) {
        self.pass(now);
        self.in_flight -= 1;
        if asked.counts {
            self.waiting -= 1;
            self.waited -= u128::from(now - asked.sent);
        }
    }

    /// As many were on their way until `now`.
    fn pass(&mut self, now: Nanos) {
        self.waited += u128::from(self.waiting) * u128::from(now.saturating_sub(self.since));
        let in_window = now.min(self.window.end).saturating_sub(self.since.max(self.window.start));
        self.in_flight_area += u128::from(self.in_flight) * u128::from(in_window);
        self.since = now;
    }

    /// The row of this moment.
    fn row(&mut self, now: Nanos) -> &mut Row {
        while now >= self.row_end && self.row_end < self.window.end {
            self.rows.push(Row::default());
            self.row_end += SECOND;
        }
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }
}

impl Row {
    fn note(&mut self, time: Nanos) {
        self.answers += 1;
        self.sum += time;
        self.max = self.max.max(time);
    }
}

/// Nanoseconds up to two hours, longer than any time-out, with three significant digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanos(Duration::from_secs(7200)), 3).expect("the bounds are in order")
}

/// The width of a row, in nanoseconds.
const SECOND: Nanos = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_due_in_the_window_count_whenever_their_answers_come() {
        let mut tally = Tally::new(true);
        tally.begin(Window { start: 1_000, end: 1_000 + 2 * SECOND });
        let [early, first, last, late] =
            [999, 1_000, 999 + 2 * SECOND, 1_000 + 2 * SECOND].map(|due| tally.asked(due, due.max(1_000), 0));
        for asked in [early, first, last, late] {
            tally.answered(asked, 3 * SECOND);
        }
        assert_eq!((tally.answers, tally.is_waiting()), (2, false));
    }

    #[test]
    fn waiting_is_summed_up_and_what_is_abandoned_is_taken_back() {
        let mut tally = Tally::new(false);
        tally.begin(Window { start: 100, end: 200 });
        let before = tally.asked(50, 50, 0);
        let within = tally.asked(110, 110, 0);
        let vain = tally.asked(120, 120, 0);
        tally.answered(before, 150);
        tally.abandoned(vain, 160);
        tally.answered(within, 300);
        assert_eq!(tally.waited, 190, "of the one that was due in the window and answered");
        assert_eq!(tally.in_flight_area, 50 + 90 + 40, "of all, in the window only");
        assert_eq!((tally.service.max(), tally.rows[0].answers), (190, 1));
    }

    #[test]
    fn a_missed_question_has_waited_until_the_end() {
        let mut tally = Tally::new(true);
        tally.begin(Window { start: 0, end: 3 * SECOND });
        tally.missed(SECOND);
        tally.end(3 * SECOND);
        let longest = tally.response.as_ref().unwrap().max();
        assert!(longest.abs_diff(2 * SECOND) < SECOND / 100, "{longest}");
        assert_eq!((tally.missed, tally.answers, tally.rows.len()), (1, 0, 3));
    }
}
