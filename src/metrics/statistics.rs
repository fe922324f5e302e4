//! Means with their uncertainty, over few seeds.

use anyhow::{Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::seed::{Purpose, rng};

/// A mean and the ends of an interval around it, all in the unit of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// What [`welch_t`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Welch {
    /// The difference of the means (first minus second) in standard errors.
    pub t: f64,
    /// Degrees of freedom by Welch and Satterthwaite: not a whole number.
    pub df: f64,
    /// Two-sided probability of a |t| at least this large if the means are equal.
    pub p: f64,
}

/// The arithmetic mean; NaN of nothing.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The sample standard deviation, with n − 1 in the denominator; NaN of fewer than two values.
pub fn sd(x: &[f64]) -> f64 {
    if x.len() < 2 {
        return f64::NAN;
    }
    variance(x).sqrt()
}

/// Student's interval for the mean of independent draws. One value says nothing about its spread: the interval
/// is then the whole line (`low` −∞, `high` ∞).
///
/// # Errors
/// No values, or a confidence that is not strictly between 0 and 1.
///
/// ```
/// let interval = qstar::metrics::t_interval(&[1.0, 2.0, 3.0], 0.95)?;
/// assert_eq!(interval.mean, 2.0);
/// assert!((interval.high - 4.484138).abs() < 1e-6);
/// # anyhow::Ok(())
/// ```
pub fn t_interval(x: &[f64], confidence: f64) -> Result<Interval> {
    ensure!(!x.is_empty(), "an interval of no values");
    ensure!(confidence > 0.0 && confidence < 1.0, "a confidence lies strictly between 0 and 1: {confidence}");
    let mean = mean(x);
    if x.len() == 1 {
        return Ok(Interval { mean, low: f64::NEG_INFINITY, high: f64::INFINITY });
    }
    let n = x.len() as f64;
    let quantile = StudentsT::new(0.0, 1.0, n - 1.0)?.inverse_cdf(0.5 + 0.5 * confidence);
    let half = quantile * sd(x) / n.sqrt();
    Ok(Interval { mean, low: mean - half, high: mean + half })
}

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
    Ok(Interval { mean: mean(&means), low: quantile(&resampled, 0.025), high: quantile(&resampled, 0.975) })
}

/// Welch's t-test: are the means of two groups of independent draws equal? Their variances may differ.
///
/// Source: B. L. Welch, Biometrika 34, 1947, 28–35.
///
/// # Errors
/// A group of fewer than two values, a value that is not finite, or two groups without any spread, for which t is
/// not defined.
///
/// ```
/// let welch = qstar::metrics::welch_t(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0])?;
/// assert!((welch.t + 1.549193).abs() < 1e-6);
/// # anyhow::Ok(())
/// ```
pub fn welch_t(a: &[f64], b: &[f64]) -> Result<Welch> {
    ensure!(
        a.len() > 1 && b.len() > 1,
        "Welch's test needs two values in each group: there are {} and {}",
        a.len(),
        b.len()
    );
    ensure!(a.iter().chain(b).all(|x| x.is_finite()), "Welch's test of a value that is not finite");
    // Squared standard errors of the two means.
    let (u, v) = (variance(a) / a.len() as f64, variance(b) / b.len() as f64);
    ensure!(u + v > 0.0, "Welch's test of two groups without spread: t is not defined");
    let t = (mean(a) - mean(b)) / (u + v).sqrt();
    // With shares of the summed variance instead of the variances themselves, nothing under- or overflows.
    let (su, sv) = (u / (u + v), v / (u + v));
    let df = 1.0 / (su * su / (a.len() - 1) as f64 + sv * sv / (b.len() - 1) as f64);
    let p = 2.0 * StudentsT::new(0.0, 1.0, df)?.sf(t.abs());
    Ok(Welch { t, df, p })
}

fn variance(x: &[f64]) -> f64 {
    let centre = mean(x);
    x.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / (x.len() - 1) as f64
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

/// Of sorted values, linear between neighbours.
pub(super) fn quantile(sorted: &[f64], level: f64) -> f64 {
    let position = level * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Two groups of 15 from the worked examples of Welch's test.
    const A: [f64; 15] = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4];
    const B: [f64; 15] = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 24.0];
    const FIVE: [f64; 5] = [0.42, 0.47, 0.39, 0.44, 0.51];

    fn near(found: f64, expected: f64, relative: f64) {
        let error = (found - expected).abs() / expected.abs();
        assert!(error <= relative, "{found} instead of {expected}");
    }

    #[test]
    fn mean_and_sd_are_those_of_python() {
        near(mean(&A), 20.82, 1e-14);
        near(sd(&A), 2.804893682731767, 1e-13);
        assert!(mean(&[]).is_nan() && sd(&[]).is_nan() && sd(&[1.0]).is_nan());
        assert_eq!(sd(&[2.0, 2.0]), 0.0);
    }

    /// The literals are scipy 1.17.1 `stats.t.interval(c, n - 1, loc=mean, scale=sem)`.
    #[test]
    fn t_intervals_are_those_of_scipy() {
        let cases: [(&[f64], f64, f64, f64); 5] = [
            (&[1.0, 2.0, 3.0], 0.95, -0.48413771175033027, 4.48413771175033),
            (&[0.31, 0.35], 0.95, 0.07587590527650623, 0.5841240947234937),
            (&FIVE, 0.95, 0.38869481871726325, 0.5033051812827365),
            (&FIVE, 0.99, 0.3509725525811057, 0.5410274474188941),
            (&A, 0.9, 19.54442320775684, 22.095576792243154),
        ];
        for (x, confidence, low, high) in cases {
            let interval = t_interval(x, confidence).unwrap();
            near(interval.low, low, 1e-10);
            near(interval.high, high, 1e-10);
        }
    }

    #[test]
    fn one_value_has_no_width_known() {
        let interval = t_interval(&[0.7], 0.95).unwrap();
        assert_eq!(interval.mean, 0.7);
        assert_eq!((interval.low, interval.high), (f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn t_intervals_refuse_nonsense() {
        assert!(t_interval(&[], 0.95).is_err());
        for confidence in [0.0, 1.0, -0.5, 95.0, f64::NAN] {
            assert!(t_interval(&[1.0, 2.0], confidence).is_err());
        }
    }

    /// Two groups, then t, df and p.
    type WelchCase<'a> = (&'a [f64], &'a [f64], f64, f64, f64);

    /// The literals are scipy 1.17.1 `stats.ttest_ind(a, b, equal_var=False)`.
    #[test]
    fn welch_is_that_of_scipy() {
        let cases: [WelchCase; 4] = [
            (&A, &B, -2.8291649048617393, 27.879017486855457, 0.008551778311418774),
            (&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0], -1.5491933384829668, 2.9411764705882346, 0.22088084049409593),
            (
                &[0.1, 0.11, 0.12, 0.09, 0.1],
                &[5.0, 5.5, 4.8],
                -23.992810928380653,
                2.002400359567935,
                0.001722161313574138,
            ),
            (
                &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
                &[101.0, 102.5, 103.0, 104.0, 105.0, 99.0],
                -79.32673050869823,
                11.603938625957817,
                3.1049259569988517e-17,
            ),
        ];
        for (a, b, t, df, p) in cases {
            let welch = welch_t(a, b).unwrap();
            near(welch.t, t, 1e-11);
            near(welch.df, df, 1e-11);
            near(welch.p, p, 1e-8);
        }
    }

    #[test]
    fn welch_refuses_what_has_no_t() {
        assert!(welch_t(&[1.0], &[1.0, 2.0]).is_err());
        assert!(welch_t(&[1.0, 1.0], &[2.0, 2.0]).is_err());
        assert!(welch_t(&[1.0, f64::NAN], &[2.0, 3.0]).is_err());
        // Spread in one group is enough.
        let welch = welch_t(&[1.0, 1.0], &[2.0, 4.0]).unwrap();
        near(welch.t, -2.0, 1e-15);
        near(welch.df, 1.0, 1e-15);
        // A t of one degree of freedom is a Cauchy: P(|T| > 2) = 1 − 2/π·atan 2.
        near(welch.p, 1.0 - 2.0 / std::f64::consts::PI * 2f64.atan(), 1e-10);
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

    fn values(least: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-100.0..100.0f64, least..20)
    }

    proptest! {
        #[test]
        fn shifting_and_scaling_move_an_interval_alike(x in values(2), a in -50.0..50.0f64, b in 0.1..10.0f64) {
            let plain = t_interval(&x, 0.95).unwrap();
            let moved: Vec<f64> = x.iter().map(|x| a + b * x).collect();
            let moved = t_interval(&moved, 0.95).unwrap();
            prop_assert!((moved.mean - (a + b * plain.mean)).abs() < 1e-9);
            prop_assert!((moved.low - (a + b * plain.low)).abs() < 1e-6);
            prop_assert!((moved.high - (a + b * plain.high)).abs() < 1e-6);
        }

        #[test]
        fn more_confidence_is_a_wider_interval(x in values(1), c in 0.5..0.9f64) {
            let (narrow, wide) = (t_interval(&x, c).unwrap(), t_interval(&x, c + 0.09).unwrap());
            prop_assert!(wide.low <= narrow.low && narrow.low <= narrow.mean);
            prop_assert!(narrow.mean <= narrow.high && narrow.high <= wide.high);
        }

        #[test]
        fn welch_changes_its_sign_with_the_order(a in values(2), b in values(2)) {
            let (ab, ba) = (welch_t(&a, &b).unwrap(), welch_t(&b, &a).unwrap());
            prop_assert!((ab.t + ba.t).abs() < 1e-12 * (1.0 + ab.t.abs()));
            prop_assert!((ab.p - ba.p).abs() < 1e-12 && (0.0..=1.0).contains(&ab.p));
            let fewest = (a.len().min(b.len()) - 1) as f64;
            prop_assert!(ab.df >= fewest - 1e-9 && ab.df <= (a.len() + b.len() - 2) as f64 + 1e-9);
        }

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
