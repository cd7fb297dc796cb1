//! Objectives such as `p99<5ms,errors<1%`, and whether a run meets them.
//!
//! The form is `METRIC OP VALUE`, several separated by commas. Times are response times, and their values durations.
//! Shares are percentages: `unserved` of the connections that ask, `errors` of the questions.
//!
//! A question that failed counts as slower than any answer, unless an objective limits `errors` itself. Otherwise a
//! server that rejects most of its clients would be the fastest.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::measured::Measured;

/// Conditions on the result of a run: all must hold for `--find-max`, and none may for `--fail-if`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objectives(Vec<Objective>);

/// One objective.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Objective {
    metric: Metric,
    is_upper_bound: bool,
    /// Seconds, or a share of 1.
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// The response time that this share of the questions does not exceed.
    Percentile(f64),
    Max,
    Unserved,
    Errors,
}

/// The measured value of an objective, and whether the objective is true of the run.
pub(super) struct Outcome {
    pub(super) is_true: bool,
    pub(super) text: String,
    /// Seconds, or a share of 1; infinite if too few questions were answered for the metric.
    pub(super) value: f64,
}

impl Objectives {
    /// Judges a run by each of them.
    pub(super) fn judge(&self, measured: &Measured) -> Vec<Outcome> {
        let are_errors_limited = self.0.iter().any(|objective| objective.metric == Metric::Errors);
        let judge = |objective: &Objective| {
            let value = objective.metric.value(measured, !are_errors_limited);
            let is_true = if objective.is_upper_bound { value < objective.limit } else { value > objective.limit };
            let text = format!("{objective}: {} was {}", objective.metric, objective.metric.show(value));
            Outcome { is_true, text, value }
        };
        self.0.iter().map(judge).collect()
    }

    /// Returns the fastest response time if it exceeds a limit already, so that no percentile can meet it.
    pub(super) fn out_of_reach(&self, measured: &Measured) -> Option<String> {
        let times = measured.response();
        let fastest = Duration::from_nanos(times.min()).as_secs_f64();
        let exceeds = |objective: &Objective| {
            objective.is_upper_bound && !objective.metric.is_share() && !times.is_empty() && fastest >= objective.limit
        };
        self.0.iter().any(exceeds).then(|| Metric::Max.show(fastest))
    }

    /// Returns how many questions are needed to have 100 beyond the highest percentile.
    pub(super) fn samples(&self) -> f64 {
        let beyond = |objective: &Objective| match objective.metric {
            Metric::Percentile(share) => 1.0 - share,
            Metric::Max | Metric::Unserved | Metric::Errors => 0.1,
        };
        SAMPLES_BEYOND / self.0.iter().map(beyond).fold(1.0, f64::min)
    }
}

impl Metric {
    fn is_share(self) -> bool {
        matches!(self, Self::Unserved | Self::Errors)
    }

    /// Returns seconds or a share of 1; infinite if too few questions were answered for the metric.
    fn value(self, measured: &Measured, failures_are_slow: bool) -> f64 {
        let (times, failed) = (measured.response(), measured.tally.failures.all());
        let slow = if failures_are_slow { failed as f64 } else { 0.0 };
        let timed = times.len() as f64;
        let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
        match self {
            Self::Percentile(share) if share * (timed + slow) <= timed && timed > 0.0 => {
                seconds(times.value_at_quantile(share * (timed + slow) / timed))
            }
            Self::Max if slow == 0.0 && timed > 0.0 => seconds(times.max()),
            Self::Percentile(_) | Self::Max => f64::INFINITY,
            Self::Unserved => measured.tally.unserved as f64 / measured.plan.good() as f64,
            Self::Errors => match failed + measured.tally.answers {
                0 => 1.0,
                all => failed as f64 / all as f64,
            },
        }
    }

    fn show(self, value: f64) -> String {
        if value.is_infinite() {
            return "without bound, because questions failed".to_owned();
        }
        if self.is_share() { format!("{} %", rounded(value * 100.0)) } else { format!("{} ms", rounded(value * 1e3)) }
    }
}

/// Rounds to three decimal places.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl FromStr for Objectives {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or_else(|| format!("'{text}' is not METRIC<VALUE or METRIC>VALUE"))?;
        let (name, value) = (text[..at].trim(), text[at + 1..].trim());
        let metric = METRICS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric);
        let metric =
            metric.ok_or_else(|| format!("'{name}' is none of {}", METRICS.map(|(name, _)| name).join(", ")))?;
        let limit = if metric.is_share() {
            let percent = value.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
            percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0)
        } else {
            humantime::parse_duration(value).ok().map(|duration| duration.as_secs_f64())
        };
        let wanted = if metric.is_share() { "a percentage, such as 1%" } else { "a duration, such as 5ms" };
        let limit = limit.ok_or_else(|| format!("'{value}' is no value for {name}: write {wanted}"))?;
        Ok(Self { metric, is_upper_bound: &text[at..=at] == "<", limit })
    }
}

impl fmt::Display for Objectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metric, op) = (self.metric, if self.is_upper_bound { '<' } else { '>' });
        if metric.is_share() {
            write!(f, "{metric}{op}{}%", rounded(self.limit * 100.0))
        } else {
            write!(f, "{metric}{op}{}", humantime::format_duration(Duration::from_secs_f64(self.limit)))
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        METRICS.iter().filter(|(_, metric)| metric == self).try_for_each(|(name, _)| f.write_str(name))
    }
}

const METRICS: [(&str, Metric); 7] = [
    ("p50", Metric::Percentile(0.5)),
    ("p90", Metric::Percentile(0.9)),
    ("p99", Metric::Percentile(0.99)),
    ("p999", Metric::Percentile(0.999)),
    ("max", Metric::Max),
    ("unserved", Metric::Unserved),
    ("errors", Metric::Errors),
];

/// With fewer samples a percentile is a matter of chance.
const SAMPLES_BEYOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::failures::Failure;
    use crate::load::plan::Plan;
    use crate::load::tally::{Tally, Window};

    fn objectives(text: &str) -> Objectives {
        text.parse().unwrap()
    }

    /// Returns a run with 100 answers, after 1 to 100 ms, this many failures, and one of four connections unserved.
    fn measured(failures: u64) -> Measured {
        let plan = Plan { connections: 4, ..Plan::default() };
        let mut tally = Tally::new(false);
        tally.begin(Window { start: 0, end: 1_000_000_000 });
        for ms in 1..=100 {
            let asked = tally.asked(0, 0, 0);
            tally.answered(asked, ms * 1_000_000);
        }
        tally.failures.note(Failure::Reset, failures);
        tally.unserved = 1;
        Measured { plan, addresses: Vec::new(), tally, seconds: 1.0, is_interrupted: false }
    }

    fn are_true(text: &str, measured: &Measured) -> bool {
        objectives(text).judge(measured).iter().all(|outcome| outcome.is_true)
    }

    #[test]
    fn an_objective_is_written_as_it_is_read() {
        for text in ["p50<1s", "p90>500us", "p99<5ms", "p999<5ms", "max<1m", "unserved<1%", "errors>0%", "errors<0.5%"]
        {
            assert_eq!(objectives(text).to_string(), text);
        }
        assert_eq!(objectives(" p99 < 5ms , errors < 1 % ").to_string(), "p99<5ms,errors<1%");
    }

    #[test]
    fn what_is_no_objective_says_why() {
        for (text, why) in [
            ("", "'' is not METRIC<VALUE"),
            ("p99=5ms", "'p99=5ms' is not METRIC<VALUE"),
            ("p98<5ms", "'p98' is none of p50, p90, p99, p999, max, unserved, errors"),
            ("p99<5", "'5' is no value for p99: write a duration"),
            ("p99<1%", "'1%' is no value for p99: write a duration"),
            ("p99<-1ms", "'-1ms' is no value for p99"),
            ("errors<5ms", "'5ms' is no value for errors: write a percentage"),
            ("errors<101%", "'101%' is no value for errors"),
            ("p99<=5ms", "'=5ms' is no value for p99"),
            ("p99<5ms,", "'' is not METRIC<VALUE"),
        ] {
            let refusal = text.parse::<Objectives>().unwrap_err();
            assert!(refusal.starts_with(why), "{text}: {refusal}");
        }
    }

    #[test]
    fn each_metric_is_compared_with_its_limit() {
        let measured = measured(0);
        for text in ["p50<51ms", "p50>49ms", "p99<100ms,p99>98ms", "max<102ms", "max>99ms", "unserved<26%", "errors<1%"]
        {
            assert!(are_true(text, &measured), "{text}");
        }
        for text in ["p50<49ms", "p99>100ms", "max<99ms", "unserved<25%", "errors<0%", "p50<51ms,p99<90ms"] {
            assert!(!are_true(text, &measured), "{text}");
        }
        assert_eq!(objectives("unserved<1%").judge(&measured)[0].text, "unserved<1%: unserved was 25 %");
    }

    #[test]
    fn failures_are_slow_unless_they_have_a_limit_of_their_own() {
        let measured = measured(25);
        assert!(are_true("p50<65ms,p50>60ms", &measured), "half of 125 questions were answered within 63 ms");
        assert!(!are_true("p90<1h", &measured) && are_true("p90>1h", &measured));
        assert!(are_true("p90<91ms,errors<21%", &measured), "of the answers alone");
        assert!(are_true("max>1h", &measured));
    }

    #[test]
    fn without_an_answer_no_time_is_short() {
        let nothing = Measured { tally: Tally::new(false), ..measured(0) };
        assert!(!are_true("p50<1h", &nothing) && are_true("errors>99%", &nothing));
    }

    #[test]
    fn a_hundred_samples_lie_beyond_the_highest_percentile() {
        for (text, samples) in [("p50<1s", 200), ("p90<1s", 1_000), ("p50<1s,p99<1s", 10_000), ("errors<1%", 1_000)] {
            assert_eq!(objectives(text).samples().round(), f64::from(samples), "{text}");
        }
    }
}
