//! Objectives, such as `p99<5ms,unserved<1%`, in the grammar of `zen-client load --fail-if`.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::bench::format::number;
use crate::bench::results::Measurement;

/// `METRIC OP VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objective {
    text: String,
    metric: String,
    is_upper: bool,
    /// Microseconds, or a share of 1.
    limit: f64,
}

/// Reads objectives that are separated by commas.
pub(crate) fn objectives(text: &str) -> Result<Arc<Vec<Objective>>> {
    text.split(',').map(|part| Objective::read(part.trim())).collect::<Result<_>>().map(Arc::new)
}

impl Objective {
    fn read(text: &str) -> Result<Objective> {
        let at = text.find(['<', '>']).with_context(|| format!("'{text}' is not METRIC<VALUE or METRIC>VALUE"))?;
        let (metric, value) = (text[..at].trim(), text[at + 1..].trim());
        let limit = match metric {
            "p50" | "p90" | "p99" | "p999" | "max" => {
                let time = humantime::parse_duration(value);
                time.with_context(|| format!("'{value}' is not a duration, such as 5ms"))?.as_secs_f64() * 1e6
            }
            "unserved" | "errors" => {
                let percent = value.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
                percent.with_context(|| format!("'{value}' is not a percentage, such as 1%"))? / 100.0
            }
            _ => bail!("'{metric}' is none of p50, p90, p99, p999, max, unserved, errors"),
        };
        let is_upper = text[at..].starts_with('<');
        Ok(Objective { text: text.to_owned(), metric: metric.to_owned(), is_upper, limit })
    }

    /// Returns microseconds or a share; infinite where as many questions failed as the percentile leaves out.
    pub(crate) fn value(&self, round: &Measurement, asking: f64) -> f64 {
        let failed = round.failed as f64;
        let all = failed + round.answers as f64;
        let time = |time: Option<f64>, left_out: f64| {
            let slow = failed + round.unserved as f64;
            time.filter(|_| slow <= left_out * (all + round.unserved as f64)).unwrap_or(f64::INFINITY)
        };
        match self.metric.as_str() {
            "p50" => time(round.p50_us, 0.5),
            "p90" => time(round.p90_us, 0.1),
            "p99" => time(round.p99_us, 0.01),
            "p999" => time(round.p999_us, 0.001),
            "max" => time(round.max_us, 0.0),
            "unserved" => round.unserved as f64 / asking,
            _ => failed / all.max(1.0),
        }
    }

    pub(crate) fn is_met(&self, round: &Measurement, asking: f64) -> bool {
        let value = self.value(round, asking);
        if self.is_upper { value < self.limit } else { value > self.limit }
    }

    /// `p99 4.2 ms`
    pub(crate) fn show(&self, value: f64) -> String {
        match self.metric.as_str() {
            metric @ ("unserved" | "errors") => format!("{metric} {} %", number(value * 100.0)),
            metric if value.is_infinite() => format!("{metric} without bound"),
            metric => format!("{metric} {} ms", number(value / 1e3)),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn objectives_are_read_and_judged() {
        let mut round = fixture::results().servers[0].levels[0].rounds[0].clone();
        (round.answers, round.failed, round.unserved, round.p99_us) = (990, 0, 1, Some(4000.0));
        let is_met =
            |text: &str, round: &Measurement| objectives(text).expect(text).iter().all(|it| it.is_met(round, 10.0));
        assert!(is_met("p99<5ms, unserved<20%, errors<1%", &round) && !is_met("p99<4ms", &round));
        assert!(!is_met("unserved<10%", &round) && is_met("p99>3ms", &round));
        // Failures count as slower than any answer.
        round.failed = 20;
        assert!(!is_met("p99<1h", &round) && is_met("p90<1h,errors<2%", &round));
        for wrong in ["", "p99", "p98<1ms", "p99<1", "errors<1"] {
            assert!(objectives(wrong).is_err(), "{wrong}");
        }
    }
}
