//! The result as a JSON object, which the table shows too. `README.md` documents every field.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::failures::{Failures, Retries};
use super::find_max::Search;
use super::measured::Measured;
use super::objective::Objectives;
use super::plan::Plan;
use super::tally::Row;
use super::verdicts::{Verdict, verdicts};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    pub(super) servers: Vec<String>,
    pub(super) settings: Settings,
    pub(super) interrupted: bool,
    pub(super) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) failures: Failures,
    pub(crate) retries: Retries,
    pub(crate) missed: u64,
    pub(super) unserved: u64,
    pub(super) reopened: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) in_flight: f64,
    pub(crate) service_time_us: Times,
    pub(crate) response_time_us: Times,
    /// Why the two kinds of times differ, or do not.
    pub(super) times: &'static str,
    pub(super) per_second: Vec<Second>,
    pub(crate) verdicts: Vec<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) find_max: Option<Search>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Histograms>,
}

/// The settings of the run, with which it can be repeated.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    #[serde(flatten)]
    pub(super) plan: Plan,
    good: usize,
    pub(super) drip: usize,
    pub(super) silent: usize,
}

/// Percentiles in microseconds; null where nothing was answered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Times {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) mean: Option<f64>,
}

/// The answers of one second of the measured time.
#[derive(Debug, Serialize)]
pub(super) struct Second {
    pub(super) second: usize,
    pub(super) answers: u64,
    pub(super) mean_us: Option<f64>,
    pub(super) max_us: Option<f64>,
}

/// `[microseconds, count]` of every bucket that is not empty.
#[derive(Debug, Serialize)]
struct Histograms {
    service_time_us: Vec<(f64, u64)>,
    response_time_us: Vec<(f64, u64)>,
}

impl Report {
    pub(crate) fn new(
        measured: &Measured,
        fail_if: Option<&Objectives>,
        find_max: Option<Search>,
        with_histogram: bool,
    ) -> Self {
        let Measured { plan, addresses, tally, seconds, is_interrupted } = measured;
        let [good, drip, silent] = plan.shares();
        let response = measured.response();
        Self {
            schema: SCHEMA,
            servers: addresses.iter().map(ToString::to_string).collect(),
            settings: Settings { plan: plan.clone(), good, drip, silent },
            interrupted: *is_interrupted,
            seconds: *seconds,
            answers: tally.answers,
            answers_per_second: measured.answers_per_second(),
            failures: tally.failures,
            retries: tally.retries,
            missed: tally.missed,
            unserved: tally.unserved,
            reopened: tally.reopened,
            cpu_seconds: tally.processor_time.as_secs_f64(),
            in_flight: measured.in_flight(),
            service_time_us: Times::of(&tally.service),
            response_time_us: Times::of(response),
            times: match plan.rate {
                _ if plan.retries > 0 => RETRIES,
                Some(_) => OPEN_LOOP,
                None => CLOSED_LOOP,
            },
            per_second: tally.rows.iter().enumerate().map(|(second, row)| Second::of(second, row)).collect(),
            verdicts: verdicts(measured, fail_if),
            find_max,
            histogram: with_histogram
                .then(|| Histograms { service_time_us: buckets(&tally.service), response_time_us: buckets(response) }),
        }
    }
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        let some = |nanos: u64| (!histogram.is_empty()).then(|| micros(nanos));
        let at = |quantile| some(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: some(histogram.max()),
            mean: some(histogram.mean() as u64),
        }
    }
}

impl Second {
    fn of(second: usize, row: &Row) -> Self {
        let some = |nanos| (row.answers > 0).then(|| micros(nanos));
        Self { second, answers: row.answers, mean_us: some(row.sum / row.answers.max(1)), max_us: some(row.max) }
    }
}

fn buckets(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    histogram.iter_recorded().map(|bucket| (micros(bucket.value_iterated_to()), bucket.count_at_value())).collect()
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Changes when the meaning of a field changes or a field is removed; a new field does not change it.
const SCHEMA: &str = "zen-client load 2";

const OPEN_LOOP: &str = "Response time counts from when a question was due, service time from when it was sent. The \
    difference is how long it waited to be sent, because its connection was busy or this machine woke up late.";
const CLOSED_LOOP: &str = "Response time equals service time, because a closed loop asks only when it has an answer. \
    Use --rate to measure clients that ask whether or not the server keeps up.";
const RETRIES: &str = "Response time counts from when a question was due, in a closed loop from its first try; service \
    time from the try that was answered. They differ by the failed tries and the pauses, and in an open loop by how \
    long it waited to be sent.";
