//! A gain over seeds and prompts: the crossed bootstrap.

use anyhow::{Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Interval;
use super::moments::{mean, quantile_of_sorted};
use crate::seed::{Purpose, rng};

/// The mean gain `after − before` over seeds and prompts, `[seed][prompt]`, with a 95 % percentile interval from
/// the crossed bootstrap: a resample draws seeds and, once for all of them, prompts with replacement, for every
/// seed is measured on the same held-out prompts (Owen 2007, arXiv:0711.1228). The interval is a
/// deterministic function of its arguments, whatever the number of threads. With one or two seeds there is little
/// or nothing to resample on the outer level, and the interval is too narrow.
///
/// # Errors
/// No seeds, a seed without prompts, `before` and `after` of different shapes, a value that is not finite, or no
/// resamples.
///
/// ```
/// let before = [vec![0.0, 0.5], vec![0.2, 0.4]];
/// let after = [vec![0.5, 1.0], vec![0.7, 0.9]];
/// let gain = qstar::metrics::bootstrap_gain(&before, &after, 1_000, 0)?;
/// // Every pair gains the same, so nothing varies between resamples.
/// assert!((gain.low - 0.5).abs() < 1e-12 && (gain.high - 0.5).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn bootstrap_gain(before: &[Vec<f64>], after: &[Vec<f64>], resamples: usize, seed: u64) -> Result<Interval> {
    ensure!(resamples > 0, "a bootstrap needs at least one resample");
    let gains = paired_gains(before, after)?;
    let means: Vec<f64> = gains.iter().map(|prompts| mean(prompts)).collect();
    let mut resampled: Vec<f64> = (0..resamples as u64)
        .into_par_iter()
        .map(|resample| resampled_mean(&gains, &mut rng(seed, Purpose::Bootstrap, resample, 0)))
        .collect();
    resampled.sort_by(f64::total_cmp);
    let level = |level| quantile_of_sorted(&resampled, level);
    Ok(Interval { mean: mean(&means), low: level(0.025), high: level(0.975) })
}

fn paired_gains(before: &[Vec<f64>], after: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
    ensure!(!before.is_empty(), "a gain needs at least one seed");
    ensure!(
        before.len() == after.len(),
        "a gain needs the same seeds before and after: there are {} and {}",
        before.len(),
        after.len()
    );
    let mut gains: Vec<Vec<f64>> = Vec::with_capacity(before.len());
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        ensure!(
            before.len() == after.len() && !before.is_empty(),
            "a gain needs the same prompts before and after, at least one: seed number {index} has {} and {}",
            before.len(),
            after.len()
        );
        ensure!(
            before.len() == gains.first().map_or(before.len(), Vec::len),
            "every seed must be measured on the same prompts: seed number {index} has {}",
            before.len()
        );
        let of_seed: Vec<f64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
        ensure!(of_seed.iter().all(|gain| gain.is_finite()), "seed number {index} has a reward that is not finite");
        gains.push(of_seed);
    }
    Ok(gains)
}

fn resampled_mean(gains: &[Vec<f64>], rng: &mut ChaCha8Rng) -> f64 {
    let count = gains[0].len();
    let prompts: Vec<usize> = (0..count).map(|_| rng.random_range(0..count)).collect();
    let mut total = 0.0;
    for _ in 0..gains.len() {
        let of_seed = &gains[rng.random_range(0..gains.len())];
        total += prompts.iter().map(|&prompt| of_seed[prompt]).sum::<f64>() / count as f64;
    }
    total / gains.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::moments::variance;
    use super::*;
    use proptest::prelude::*;

    fn near(found: f64, expected: f64, relative: f64) {
        let error = (found - expected).abs() / expected.abs();
        assert!(error <= relative, "{found} instead of {expected}");
    }

    /// With one prompt a seed the bootstrap is the ordinary one. The sum of five draws from 0..=4 is at most 3 with
    /// probability 56/3125 = 0.018 and at most 4 with 126/3125 = 0.040: its 2.5 % quantile is 4, by symmetry the
    /// other is 16.
    #[test]
    fn bootstrap_over_seeds_has_the_exact_quantiles() {
        let before = vec![vec![1.0]; 5];
        let after: Vec<Vec<f64>> = (0..5).map(|i| vec![1.0 + f64::from(i)]).collect();
        let gain = bootstrap_gain(&before, &after, 20_000, 3).unwrap();
        near(gain.mean, 2.0, 1e-14);
        near(gain.low, 0.8, 1e-12);
        near(gain.high, 3.2, 1e-12);
    }

    /// The same over prompts, with one seed.
    #[test]
    fn bootstrap_over_prompts_has_the_exact_quantiles() {
        let after = [(0..5).map(f64::from).collect()];
        let gain = bootstrap_gain(&[vec![0.0; 5]], &after, 20_000, 4).unwrap();
        near(gain.low, 0.8, 1e-12);
        near(gain.high, 3.2, 1e-12);
    }

    /// Where seed and prompt add up, the variance of a resampled mean is Var of the seeds' means / seeds + Var of the
    /// prompts / prompts, all with n in the denominator; over many of both it is normal.
    #[test]
    fn bootstrap_has_the_width_of_both_levels() {
        let (seeds, prompts) = (30, 20);
        let after: Vec<Vec<f64>> = (0..seeds)
            .map(|s| {
                let centre = f64::from(s) / 30.0;
                (0..prompts).map(|p| centre + f64::from(p * p % 7)).collect()
            })
            .collect();
        let before = vec![vec![0.0; prompts as usize]; seeds as usize];
        let spread = |x: &[f64]| variance(x) * (x.len() - 1) as f64 / x.len() as f64;
        let means: Vec<f64> = after.iter().map(|x| mean(x)).collect();
        let within = mean(&after.iter().map(|x| spread(x)).collect::<Vec<_>>());
        let sd = (spread(&means) / f64::from(seeds) + within / f64::from(prompts)).sqrt();
        let gain = bootstrap_gain(&before, &after, 20_000, 5).unwrap();
        near(gain.high - gain.low, 2.0 * 1.959964 * sd, 0.03);
    }

    #[test]
    fn bootstrap_is_paired_and_deterministic() {
        let before = [vec![0.0, 100.0, -50.0], vec![7.0, 3.0, 1.0]];
        let after = [vec![0.5, 100.5, -49.5], vec![7.5, 3.5, 1.5]];
        let gain = bootstrap_gain(&before, &after, 500, 0).unwrap();
        assert_eq!((gain.mean, gain.low, gain.high), (0.5, 0.5, 0.5));
        let after = [vec![0.9, 100.5, -49.0], vec![7.1, 3.3, 1.7]];
        // So few resamples that the seed must show in their quantiles.
        let gain = |seed| bootstrap_gain(&before, &after, 3, seed).unwrap();
        assert_eq!(gain(1), gain(1));
        assert_ne!(gain(1), gain(2));
    }

    #[test]
    fn bootstrap_refuses_what_has_no_pairs() {
        let one = [vec![1.0]];
        assert!(bootstrap_gain(&[], &[], 10, 0).is_err());
        assert!(bootstrap_gain(&[vec![]], &[vec![]], 10, 0).is_err());
        assert!(bootstrap_gain(&one, &[vec![1.0], vec![2.0]], 10, 0).is_err());
        assert!(bootstrap_gain(&one, &[vec![1.0, 2.0]], 10, 0).is_err());
        let uneven = [vec![1.0], vec![2.0, 3.0]];
        assert!(bootstrap_gain(&uneven, &uneven, 10, 0).is_err());
        assert!(bootstrap_gain(&one, &[vec![f64::NAN]], 10, 0).is_err());
        assert!(bootstrap_gain(&one, &one, 0, 0).is_err());
    }

    proptest! {
        #[test]
        fn a_bootstrap_stays_within_the_gains(
            x in (1usize..20).prop_flat_map(|prompts| {
                prop::collection::vec(prop::collection::vec(-100.0..100.0f64, prompts), 1..5)
            }),
            seed in 0..99u64,
        ) {
            let zero: Vec<Vec<f64>> = x.iter().map(|x| vec![0.0; x.len()]).collect();
            let gain = bootstrap_gain(&zero, &x, 50, seed).unwrap();
            let least = x.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            let most = x.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least - 1e-9 <= gain.low && gain.low <= gain.high && gain.high <= most + 1e-9);
        }
    }
}
