//! The pause before a failed server is tried again.

use std::time::Duration;

use fastrand::Rng;

/// The longest first pause. It doubles with each further one.
const FIRST: Duration = Duration::from_millis(50);
/// Long enough not to flood a server that restarts, and short enough for a user who waits.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// Returns the pause before the `n`-th retry, `n` being at least 1. Up to half of it is random, so that clients that
/// lost their server together do not retry together.
pub(crate) fn pause(n: u32, random: &mut Rng) -> Duration {
    let doublings = n.saturating_sub(1).min(16); // far more than the longest pause needs
    let most = (FIRST * (1 << doublings)).min(LONGEST);
    most.mul_f64(1.0 - random.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_differ_by_half() {
        let mut random = Rng::with_seed(1);
        for (n, most) in [(1, 50), (2, 100), (3, 200), (4, 400), (5, 800), (6, 1000), (7, 1000), (u32::MAX, 1000)] {
            let pauses: Vec<_> = (0..100).map(|_| pause(n, &mut random).as_micros()).collect();
            assert!(pauses.iter().all(|pause| (most * 500..=most * 1000).contains(pause)), "{n}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{n}");
        }
    }
}
