//! Decides whether two servers differ in a figure. Different medians are not enough. Two conditions must be met:
//!
//! - The ranges of their rounds do not overlap.
//! - The median of their ratios, round by round, is farther from 1 than the A/A pair was in any round.

/// The values of one figure, each with the number of its round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series(Vec<(usize, f64)>);

/// The lowest, the median and the highest figure of the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// The noise: the factor, 1 or more, by which the two servers of the A/A pair differ in the round in which they differ
/// most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Noise(f64);

/// The comparison of one figure with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    /// No difference: the ranges overlap, or the A/A pair differs as much.
    NoDifference,
    /// A multiple of the other: the median of the rounds' ratios.
    Times(f64),
}

impl Series {
    /// Collects the figures of the rounds. Figures that are not finite, because nothing was answered, are left out.
    pub(crate) fn new(figures: impl IntoIterator<Item = (usize, f64)>) -> Series {
        Series(figures.into_iter().filter(|(_, figure)| figure.is_finite()).collect())
    }

    pub(crate) fn range(&self) -> Option<Range> {
        let mut sorted: Vec<f64> = self.0.iter().map(|&(_, figure)| figure).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Range { low: *sorted.first()?, median: median(&sorted)?, high: *sorted.last()? })
    }

    /// Returns the ratios to `base`, round by round: what disturbs a round affects both servers, and cancels out.
    fn ratios(&self, base: &Series) -> Series {
        let of_round = |round| base.0.iter().find(|(other, _)| *other == round).map(|&(_, figure)| figure);
        Series::new(self.0.iter().filter_map(|&(round, figure)| Some((round, figure / of_round(round)?))))
    }

    /// Compares with `base` by the rule of this file. Without common rounds, the medians are compared.
    pub(crate) fn against(&self, base: &Series, noise: Noise) -> Option<Comparison> {
        let (own, other) = (self.range()?, base.range()?);
        let ratio = self.ratios(base).range().map_or(own.median / other.median, |ratios| ratios.median);
        Some(own.compare(&other, ratio, noise))
    }

    /// Compares with the series of another run, whose rounds are unrelated.
    pub(crate) fn against_other_run(&self, base: &Series, noise: Noise) -> Option<Comparison> {
        let (own, other) = (self.range()?, base.range()?);
        Some(own.compare(&other, own.median / other.median, noise))
    }
}

impl Range {
    pub(crate) fn overlaps(&self, other: &Range) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    fn compare(&self, other: &Range, ratio: f64, noise: Noise) -> Comparison {
        let is_beyond_noise = ratio.is_finite() && ratio > 0.0 && ratio.ln().abs() > noise.0.ln();
        if self.overlaps(other) || !is_beyond_noise { Comparison::NoDifference } else { Comparison::Times(ratio) }
    }
}

impl Noise {
    /// The noise if there is no A/A pair, so that the ranges alone decide.
    pub(crate) const UNKNOWN: Noise = Noise(1.0);

    /// Returns the noise of an A/A pair; `None` if it was not measured.
    pub(crate) fn of(one: &Series, other: &Series) -> Option<Noise> {
        let ratios = one.ratios(other);
        let farthest = ratios.0.iter().map(|&(_, ratio)| ratio.ln().abs()).filter(|apart| apart.is_finite());
        farthest.reduce(f64::max).map(|apart| Noise(apart.exp()))
    }

    pub(crate) fn larger(self, other: Noise) -> Noise {
        Noise(self.0.max(other.0))
    }

    /// Returns the noise as a share: 0.02 for 2 %.
    pub(crate) fn share(self) -> f64 {
        self.0 - 1.0
    }

    /// Returns the noise as a factor.
    pub(crate) fn factor(self) -> f64 {
        self.0
    }
}

/// Returns the first and the last rank that each series may have; rank 1 has the smallest figure.
///
/// The cheapest of three series that do not differ has the ranks 1 to 3. A series without figures has none.
pub(crate) fn ranks(all: &[Series], noise: Noise) -> Vec<Option<(usize, usize)>> {
    let is_less = |one: &Series, other: &Series| {
        let compared = one.against(other, noise);
        matches!(compared, Some(Comparison::Times(ratio)) if ratio < 1.0)
    };
    let taking_part = all.iter().filter(|series| series.range().is_some()).count();
    let rank = |series: &Series| {
        let below = all.iter().filter(|other| is_less(other, series)).count();
        let above = all.iter().filter(|other| is_less(series, other)).count();
        series.range().map(|_| (below + 1, taking_part - above))
    };
    all.iter().map(rank).collect()
}

/// Returns the median of sorted numbers.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Returns `[percentile, value]` of a histogram, for the percentiles that its count allows.
pub(crate) fn percentiles(histogram: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let mut sorted = histogram.to_vec();
    sorted.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let all: u64 = sorted.iter().map(|&(_, count)| count).sum();
    let at = |percentile: f64| {
        let wanted = (percentile / 100.0 * all as f64).ceil().max(1.0);
        let mut so_far = 0;
        let value = sorted.iter().find(|&&(_, count)| {
            so_far += count;
            so_far as f64 >= wanted
        });
        value.map(|&(value, _)| (percentile, value))
    };
    // At least ten answers must be above a percentile.
    let is_allowed = |percentile: &&f64| all as f64 * (1.0 - **percentile / 100.0) >= 10.0;
    PERCENTILES.iter().filter(is_allowed).filter_map(|&percentile| at(percentile)).collect()
}

/// The percentiles of a distribution, spaced for an axis on which 90 %, 99 % and 99.9 % are equally far apart.
const PERCENTILES: &[f64] = &[
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 96.5, 98.0, 99.0, 99.25,
    99.5, 99.65, 99.8, 99.9, 99.925, 99.95, 99.965, 99.98, 99.99, 99.995, 99.999,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[f64]) -> Series {
        Series::new(figures.iter().copied().enumerate())
    }

    #[test]
    fn a_range_has_a_median() {
        let range = series(&[3.0, 1.0, 2.0]).range().expect("it has figures");
        assert_eq!((range.low, range.median, range.high), (1.0, 2.0, 3.0));
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).range().map(|range| range.median), Some(2.5));
        assert_eq!(series(&[]).range(), None);
        assert_eq!(series(&[f64::NAN, f64::INFINITY]).range(), None);
    }

    #[test]
    fn each_round_is_compared_with_its_counterpart() {
        // Each round costs twice as much as the one before; the second server always costs 10 % more than the first.
        let (one, other) = (series(&[1.0, 2.0, 4.0]), series(&[1.1, 2.2, 4.4]));
        let ratios = other.ratios(&one).range().expect("they have rounds in common");
        assert!((ratios.low - 1.1).abs() < 1e-9 && (ratios.high - 1.1).abs() < 1e-9);
        // But their ranges overlap, so there is no difference.
        assert_eq!(other.against(&one, Noise::UNKNOWN), Some(Comparison::NoDifference));
        // A round that one of them lacks is left out.
        let lacking = Series::new([(1, 2.2), (2, 4.4), (9, 100.0)]);
        assert_eq!(lacking.ratios(&one).0.len(), 2);
    }

    #[test]
    fn a_difference_smaller_than_that_of_the_pair_does_not_count() {
        let (one, other) = (series(&[1.00, 1.01, 1.02]), series(&[1.04, 1.05, 1.06]));
        let noise = |factor: f64| Noise::of(&series(&[factor]), &series(&[1.0])).expect("it was measured");
        assert!(
            matches!(other.against(&one, noise(1.02)), Some(Comparison::Times(ratio)) if (ratio - 1.04).abs() < 0.001)
        );
        assert_eq!(other.against(&one, noise(1.05)), Some(Comparison::NoDifference));
        // The pair may differ the other way round.
        assert_eq!(other.against(&one, noise(0.9)), Some(Comparison::NoDifference));
        assert_eq!(series(&[]).against(&one, noise(1.0)), None);
        assert!(Noise::of(&series(&[]), &one).is_none());
    }

    #[test]
    fn the_farthest_round_of_the_pair_counts() {
        let noise = Noise::of(&series(&[1.0, 1.1, 1.0]), &series(&[1.0, 1.0, 1.25])).expect("it was measured");
        assert!((noise.share() - 0.25).abs() < 1e-9);
        assert_eq!(noise.larger(Noise::UNKNOWN), noise);
    }

    #[test]
    fn servers_share_ranks_where_ranges_overlap() {
        let all = [series(&[1.0, 1.2]), series(&[1.1, 1.3]), series(&[3.0, 3.1]), series(&[]), series(&[2.0, 2.1])];
        assert_eq!(ranks(&all, Noise::UNKNOWN), [Some((1, 2)), Some((1, 2)), Some((4, 4)), None, Some((3, 3))]);
    }

    #[test]
    fn results_of_two_runs_are_compared_by_their_medians() {
        let (one, other) = (series(&[1.0, 1.1, 1.2]), series(&[2.4, 2.2, 2.0]));
        let compared = other.against_other_run(&one, Noise::UNKNOWN);
        assert!(matches!(compared, Some(Comparison::Times(ratio)) if (ratio - 2.0).abs() < 1e-9));
    }

    #[test]
    fn percentiles_need_enough_answers() {
        let histogram: Vec<(f64, u64)> = (1..=1000).map(|n| (f64::from(n), 1)).rev().collect();
        let percentiles = percentiles(&histogram);
        assert!(percentiles.contains(&(50.0, 500.0)) && percentiles.contains(&(99.0, 990.0)));
        assert!(percentiles.iter().all(|&(percentile, _)| percentile <= 99.0));
        assert!(super::percentiles(&[]).is_empty());
    }
}
