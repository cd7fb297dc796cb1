//! The counts of one thread: answers, failures, times, and questions in flight.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::io::Errno;

use super::clock::{Nanos, nanos};
use super::failures::{Failures, Retries};

/// The measured time: questions due in it count, even if their answers arrive later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
}

/// A question in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When it should have been sent; in a closed loop that is when it was.
    pub(crate) due: Nanos,
    pub(crate) sent: Nanos,
    /// The number of times that it was asked again.
    retries: u32,
    /// Which of the three it is.
    pub(crate) aphorism: u8,
    /// Whether it was due in the window.
    counts: bool,
}

impl Asked {
    /// Returns a question of a connection whose times are not measured.
    pub(crate) fn uncounted(sent: Nanos, aphorism: u8) -> Self {
        Self { due: sent, sent, retries: 0, aphorism, counts: false }
    }
}

/// The answers of one second of the window. Answers after its end are in the last row.
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
    /// Connections that asked and got no answer at all.
    pub(crate) unserved: u64,
    /// Connections that ended with nothing pending, and were opened again.
    pub(crate) reopened: u64,
    /// Processor time of the thread in the window.
    pub(crate) processor_time: Duration,
    /// Processor time of the busiest thread.
    pub(crate) busiest: Duration,
    /// Why the last connection could not be opened.
    pub(crate) open_error: Option<Errno>,
    /// Times from the actual send.
    pub(crate) service: Histogram<u64>,
    /// Times from the intended first send; they differ in an open loop, and with retries.
    pub(crate) response: Option<Histogram<u64>>,
    pub(crate) rows: Vec<Row>,
    row_end: Nanos,
    /// The number of questions in flight. The area is the integral of this number over the window, in ns.
    in_flight: u64,
    pub(crate) in_flight_area: u128,
    /// The number of those that count. `waited` is the sum of their times until an answer arrived, in ns.
    waiting: u64,
    pub(crate) waited: u128,
    /// When these numbers last changed.
    since: Nanos,
    /// Questions that were asked again and are neither answered nor given up.
    unresolved: u64,
}

impl Tally {
    /// Returns a tally whose window has not begun.
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
            open_error: None,
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

    /// Sets the window.
    pub(crate) fn begin(&mut self, window: Window) {
        self.window = window;
        self.row_end = window.start + SECOND;
    }

    /// Counts a question that is sent.
    pub(crate) fn asked(&mut self, due: Nanos, sent: Nanos, aphorism: u8) -> Asked {
        let counts = (self.window.start..self.window.end).contains(&due);
        self.pass(sent);
        self.in_flight += 1;
        self.waiting += u64::from(counts);
        Asked { due, sent, retries: 0, aphorism, counts }
    }

    /// Counts its answer.
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

    /// Takes back a question whose answer will not arrive, or is not waited for.
    pub(crate) fn abandoned(&mut self, asked: Asked, now: Nanos) {
        self.take_back(asked, now);
        self.unresolved -= u64::from(asked.retries > 0);
    }

    /// Takes back a question whose connection has failed. Returns whether to ask it again, which may be `most` times.
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

    /// Counts a question that is sent again; it is still due since the first time.
    pub(crate) fn asked_again(&mut self, asked: &mut Asked, now: Nanos) {
        self.pass(now);
        self.in_flight += 1;
        self.waiting += u64::from(asked.counts);
        asked.sent = now;
    }

    /// Counts a question that was due and never sent. Its wait was at least until the end.
    pub(crate) fn missed(&mut self, due: Nanos) {
        if !(self.window.start..self.window.end).contains(&due) {
            return;
        }
        self.missed += 1;
        if let Some(histogram) = &mut self.response {
            histogram.saturating_record(self.window.end - due);
        }
    }

    /// Ends the window, which then has a row for each of its seconds.
    pub(crate) fn end(&mut self, now: Nanos) {
        self.pass(now);
        self.row(self.window.end);
    }

    /// Ends the window earlier than planned.
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

    /// Adds the counts of another thread in the same window.
    pub(crate) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.failures.add(&other.failures);
        self.retries.add(&other.retries);
        self.missed += other.missed;
        self.unserved += other.unserved;
        self.reopened += other.reopened;
        self.processor_time += other.processor_time;
        self.busiest = self.busiest.max(other.busiest);
        self.open_error = self.open_error.or(other.open_error);
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

    /// Removes a question from those in flight, and its time from the sums.
    fn take_back(&mut self, asked: Asked, now: Nanos) {
        self.pass(now);
        self.in_flight -= 1;
        if asked.counts {
            self.waiting -= 1;
            self.waited -= u128::from(now - asked.sent);
        }
    }

    /// Adds the time since the last change to the sums.
    fn pass(&mut self, now: Nanos) {
        self.waited += u128::from(self.waiting) * u128::from(now.saturating_sub(self.since));
        let in_window = now.min(self.window.end).saturating_sub(self.since.max(self.window.start));
        self.in_flight_area += u128::from(self.in_flight) * u128::from(in_window);
        self.since = now;
    }

    /// Returns the row of this moment.
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

/// Returns a histogram up to two hours, longer than any timeout, with three significant digits.
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
    fn waiting_is_summed_up_without_abandoned_questions() {
        let mut tally = Tally::new(false);
        tally.begin(Window { start: 100, end: 200 });
        let before = tally.asked(50, 50, 0);
        let within = tally.asked(110, 110, 0);
        let abandoned = tally.asked(120, 120, 0);
        tally.answered(before, 150);
        tally.abandoned(abandoned, 160);
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
