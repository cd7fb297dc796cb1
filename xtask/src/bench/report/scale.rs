//! Maps figures to positions on an axis.

use crate::bench::format;

/// A logarithmic axis between two positions of the picture.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Returns an axis that holds all figures above zero, with some room.
    pub(crate) fn around(figures: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Scale {
        let positive = figures.into_iter().filter(|figure| figure.is_finite() && *figure > 0.0);
        let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(low, high), it| (low.min(it), high.max(it)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low * 0.9, high * 1.1) };
        // A small range must not fill the axis, or small differences would look large.
        let (low, high) = if high / low < NARROWEST { (low / 1.4, high * 1.4) } else { (low, high) };
        Scale { low, high, from, to }
    }

    /// Returns an axis from exactly `low` to exactly `high`.
    pub(crate) fn between(low: f64, high: f64, from: f64, to: f64) -> Scale {
        Scale { low, high: high.max(low * 1.01), from, to }
    }

    pub(crate) fn at(&self, figure: f64) -> f64 {
        let figure = figure.clamp(self.low, self.high);
        self.from + (self.to - self.from) * (figure / self.low).ln() / (self.high / self.low).ln()
    }

    /// Returns round figures for the axis: 1, 2, 5, 10…, or fewer.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = if decades > 3.5 {
            &[1.0]
        } else if decades > 1.8 {
            &[1.0, 3.0]
        } else if decades > 0.8 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]
        };
        let first = self.low.log10().floor() as i32;
        let decades = (first..=first + 12).map(|exponent| 10_f64.powi(exponent));
        let all = decades.flat_map(|decade| steps.iter().map(move |step| decade * step));
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }

    /// Returns round numbers of bytes for the axis: powers of four.
    pub(crate) fn ticks_of_bytes(&self) -> Vec<f64> {
        let all = (0..16).map(|exponent| 4_f64.powi(exponent));
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

/// Formats the label of a tick: `0.5`, `20`, `1,000`.
pub(crate) fn tick(value: f64) -> String {
    if value >= 1.0 { format::count(value) } else { format!("{value}") }
}

/// Formats a number of connections briefly: `1k`.
pub(crate) fn short(n: usize) -> String {
    if n >= 1000 && n.is_multiple_of(1000) { format!("{}k", n / 1000) } else { n.to_string() }
}

/// Returns a percentile as a number of nines: 0 at 0 %, 1 at 90 %, 2 at 99 %.
pub(crate) fn nines(percentile: f64) -> f64 {
    (1.0 / (1.0 - percentile / 100.0)).log10()
}

/// An axis is widened if the ratio of its ends is smaller than this.
const NARROWEST: f64 = 1.6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_positions() {
        let scale = Scale::between(1.0, 100.0, 0.0, 200.0);
        assert!((scale.at(10.0) - 100.0).abs() < 1e-9);
        assert_eq!((scale.at(0.0), scale.at(1e9)), (0.0, 200.0));
        assert_eq!(scale.ticks(), [1.0, 3.0, 10.0, 30.0, 100.0]);
        assert_eq!(Scale::between(2.0, 30.0, 0.0, 1.0).ticks(), [2.0, 5.0, 10.0, 20.0]);
        assert!(Scale::around([], 0.0, 1.0).at(5.0).is_finite());
    }

    #[test]
    fn percentiles_and_connections_have_short_forms() {
        assert!((nines(90.0) - 1.0).abs() < 1e-9 && (nines(99.9) - 3.0).abs() < 1e-9);
        assert_eq!([1, 16, 1000, 10_000].map(short), ["1", "16", "1k", "10k"]);
    }
}
