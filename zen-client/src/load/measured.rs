//! The counts of a run, and what follows from them.

use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::failures::Failures;
use super::plan::Plan;
use super::progress;
use super::tally::Tally;

/// The counts of a run that is over.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) plan: Plan,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) tally: Tally,
    /// Seconds that were measured.
    pub(crate) seconds: f64,
    pub(crate) is_interrupted: bool,
}

impl Measured {
    pub(super) fn answers_per_second(&self) -> f64 {
        self.per_second(self.tally.answers as f64)
    }

    /// Returns the mean number of questions in flight over the measured time.
    pub(super) fn in_flight(&self) -> f64 {
        self.per_second(self.tally.in_flight_area as f64 / 1e9)
    }

    /// Returns how long the answered questions were in flight together, per measured second. It is counted as questions
    /// come and go, and so does not depend on the histograms.
    pub(super) fn waited(&self) -> f64 {
        self.per_second(self.tally.waited as f64 / 1e9)
    }

    /// Returns the share of a processor that the busiest thread used.
    pub(super) fn busiest_share(&self) -> f64 {
        self.per_second(self.tally.busiest.as_secs_f64())
    }

    fn per_second(&self, sum: f64) -> f64 {
        if self.seconds > 0.0 { sum / self.seconds } else { 0.0 }
    }

    /// Returns the response times, which are the service times where the two cannot differ.
    pub(super) fn response(&self) -> &Histogram<u64> {
        self.tally.response.as_ref().unwrap_or(&self.tally.service)
    }

    /// Returns why the run is no success, in one line.
    pub(super) fn failure_reason(&self) -> Option<String> {
        let failures = &self.tally.failures;
        let advice = match failures {
            Failures { wrong: 1.., .. } => "is it a zen server? `zen-client check` tests that",
            Failures { not_opened: 1.., .. } => "the verdict on ports says what this machine lacks",
            _ => "what does its log say?",
        };
        match failures.all() {
            0 => self.no_result(),
            all => Some(format!("{all} failures ({failures}): {advice}")),
        }
    }

    /// Returns why the run does not show how fast the server is, in one line.
    pub(super) fn no_result(&self) -> Option<String> {
        let Tally { failures: Failures { wrong, .. }, answers, unserved, .. } = &self.tally;
        if *wrong > 0 {
            return Some(format!("{wrong} wrong answers: is it a zen server? `zen-client check` tests that"));
        }
        if *answers > 0 {
            return None;
        }
        Some(if self.is_interrupted {
            progress::INTERRUPTED.to_owned()
        } else {
            format!(
                "no answer arrived in the measured time ({unserved} connections were never served): is the server \
                 stuck, or slower than --duration?"
            )
        })
    }
}
