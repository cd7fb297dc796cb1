//! What came out of a run, and what follows from it.

use super::failures::Failures;
use super::plan::Plan;
use super::progress;
use super::tally::Tally;

/// The counts of a run that is over.
pub(crate) struct Measured {
    pub(super) plan: Plan,
    pub(super) tally: Tally,
    /// How long was measured.
    pub(super) seconds: f64,
    pub(super) is_interrupted: bool,
}

impl Measured {
    pub(super) fn answers_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tally.answers as f64 / self.seconds } else { 0.0 }
    }

    /// How many questions were on their way, in the mean over the measured time.
    pub(super) fn in_flight(&self) -> f64 {
        if self.seconds > 0.0 { self.tally.in_flight_area as f64 / 1e9 / self.seconds } else { 0.0 }
    }

    /// How long the answered questions were on their way, all together, for each second that was measured. It is
    /// counted as they come and go, and so independent of the histograms.
    pub(super) fn waited(&self) -> f64 {
        if self.seconds > 0.0 { self.tally.waited as f64 / 1e9 / self.seconds } else { 0.0 }
    }

    /// How much of a processor the busiest thread used.
    pub(super) fn busiest_share(&self) -> f64 {
        if self.seconds > 0.0 { self.tally.busiest.as_secs_f64() / self.seconds } else { 0.0 }
    }

    /// Why the run is no success, in one line.
    pub(super) fn objection(&self) -> Option<String> {
        let Tally { failures, answers, unserved, .. } = &self.tally;
        if failures.all() > 0 {
            let advice = match failures {
                Failures { wrong: 1.., .. } => "is it a zen server? `zen-client check` tells",
                Failures { not_opened: 1.., .. } => "the verdict on ports says what this machine lacks",
                _ => "what does its log say?",
            };
            return Some(format!("{} failures ({failures}): {advice}", failures.all()));
        }
        if *answers == 0 && self.is_interrupted {
            return Some(progress::INTERRUPTED.to_owned());
        }
        (*answers == 0).then(|| {
            format!(
                "no answer came while it was measured ({unserved} connections were never served): is the server stuck, \
                 or slower than --duration?"
            )
        })
    }
}
