//! The bootstrap of any statistic of one or several samples, and three intervals out of it.

use anyhow::{Result, bail, ensure};
use rand::Rng;
use rayon::prelude::*;

use super::Interval;
use super::distribution::{normal_cdf, normal_quantile};
use super::moments::{check_confidence, check_finite, quantile_of_sorted, sd};
use crate::seed::{Purpose, rng};

/// A statistic, and its values on resamples. Source of the intervals: Efron, Tibshirani 1993, An Introduction to the
/// Bootstrap, chapters 13 and 14.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    /// Of the samples themselves.
    pub estimate: f64,
    /// In the order of the resamples.
    pub statistics: Vec<f64>,
}

impl Resampled {
    /// The standard deviation over resamples; NaN of one.
    pub fn standard_error(&self) -> f64 {
        sd(&self.statistics)
    }

    /// The quantiles of the resampled statistic.
    ///
    /// # Errors
    /// A confidence that is not strictly between 0 and 1.
    pub fn percentile(&self, confidence: f64) -> Result<Interval> {
        check_confidence(confidence)?;
        Ok(self.between(0.5 * (1.0 - confidence), 0.5 * (1.0 + confidence)))
    }

    /// The same, mirrored at the estimate: the error of a resample stands for that of the estimate.
    ///
    /// # Errors
    /// As [`Resampled::percentile`].
    pub fn basic(&self, confidence: f64) -> Result<Interval> {
        let Interval { mean, low, high } = self.percentile(confidence)?;
        Ok(Interval { mean, low: 2.0 * mean - high, high: 2.0 * mean - low })
    }

    /// Bias-corrected and accelerated: quantiles at levels that allow for the statistic's bias and for a spread that changes
    /// with it. `jackknife` is what [`jackknife`] or [`jackknife_paired`] makes of the same samples. Where all resamples
    /// agree, the interval has no width.
    ///
    /// # Errors
    /// As [`Resampled::percentile`]; an estimate below or above all resamples, or a jackknife without any spread though the
    /// resamples have some (both happen with a statistic that few values decide): then there is no correction.
    pub fn bca(&self, jackknife: &[Vec<f64>], confidence: f64) -> Result<Interval> {
        check_confidence(confidence)?;
        if self.statistics.iter().all(|x| *x == self.estimate) {
            return Ok(Interval { mean: self.estimate, low: self.estimate, high: self.estimate });
        }
        let (bias, acceleration) = (self.bias_correction(), acceleration(jackknife));
        ensure!(
            bias.is_finite() && acceleration.is_finite(),
            "BCa has no correction here (bias {bias}, acceleration {acceleration}): the estimate {} lies outside of all \
             resamples, or leaving out a value never changes it; take the percentile interval",
            self.estimate
        );
        let level = |p: f64| {
            let z = bias + normal_quantile(p);
            normal_cdf(bias + z / (1.0 - acceleration * z))
        };
        Ok(self.between(level(0.5 * (1.0 - confidence)), level(0.5 * (1.0 + confidence))))
    }

    /// z₀: the normal quantile of the share of resamples below the estimate, those equal to it counted half.
    pub(super) fn bias_correction(&self) -> f64 {
        let below = self.statistics.iter().filter(|x| **x < self.estimate).count() as f64;
        let equal = self.statistics.iter().filter(|x| **x == self.estimate).count() as f64;
        normal_quantile((below + 0.5 * equal) / self.statistics.len() as f64)
    }

    fn between(&self, low: f64, high: f64) -> Interval {
        let mut sorted = self.statistics.clone();
        sorted.sort_by(f64::total_cmp);
        Interval { mean: self.estimate, low: quantile_of_sorted(&sorted, low), high: quantile_of_sorted(&sorted, high) }
    }
}

/// A statistic of independent samples, each resampled with replacement for itself. The result is a deterministic function
/// of its arguments, whatever the number of threads.
///
/// # Errors
/// No samples, a sample of fewer than two values, a value or a statistic that is not finite, or no resamples.
///
/// ```
/// use qstar::metrics::{bootstrap, jackknife, mean};
///
/// let rewards: &[f64] = &[0.1, 0.4, 0.35, 0.9, 0.2, 0.15];
/// let of_mean = |samples: &[Vec<f64>]| mean(&samples[0]);
/// let resampled = bootstrap(&[rewards], of_mean, 2_000, 0)?;
/// let interval = resampled.bca(&jackknife(&[rewards], of_mean)?, 0.95)?;
/// assert!(interval.low < 0.35 && 0.35 < interval.high);
/// # anyhow::Ok(())
/// ```
pub fn bootstrap(
    samples: &[&[f64]],
    statistic: impl Fn(&[Vec<f64>]) -> f64 + Sync,
    resamples: usize,
    seed: u64,
) -> Result<Resampled> {
    check(samples)?;
    resampled(samples, statistic, resamples, |resample| {
        let mut rng = rng(seed, Purpose::Bootstrap, resample, 0);
        samples.iter().map(|x| (0..x.len()).map(|_| rng.random_range(0..x.len())).collect()).collect()
    })
}

/// The same where value i of every sample belongs together: a resample draws numbers i, the same for all samples.
///
/// # Errors
/// As [`bootstrap`]; samples of different lengths.
pub fn bootstrap_paired(
    samples: &[&[f64]],
    statistic: impl Fn(&[Vec<f64>]) -> f64 + Sync,
    resamples: usize,
    seed: u64,
) -> Result<Resampled> {
    let n = pairs(samples)?;
    resampled(samples, statistic, resamples, |resample| {
        let mut rng = rng(seed, Purpose::Bootstrap, resample, 0);
        let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
        vec![drawn; samples.len()]
    })
}

/// The statistic without value i of a sample, `[sample][i]`: from it [`Resampled::bca`] has its acceleration.
///
/// # Errors
/// As [`bootstrap`].
pub fn jackknife(samples: &[&[f64]], statistic: impl Fn(&[Vec<f64>]) -> f64) -> Result<Vec<Vec<f64>>> {
    check(samples)?;
    let own: Vec<Vec<f64>> = samples.iter().map(|x| x.to_vec()).collect();
    let of_sample = |at: usize| -> Result<Vec<f64>> {
        let mut kept = own.clone();
        let mut left_out = |i: usize| {
            kept[at] = without(samples[at], i);
            finite(statistic(&kept))
        };
        (0..samples[at].len()).map(&mut left_out).collect()
    };
    (0..samples.len()).map(of_sample).collect()
}

/// The statistic without value i of all samples, as one sample's: `[0][i]`.
///
/// # Errors
/// As [`bootstrap_paired`].
pub fn jackknife_paired(samples: &[&[f64]], statistic: impl Fn(&[Vec<f64>]) -> f64) -> Result<Vec<Vec<f64>>> {
    let n = pairs(samples)?;
    let left_out = |i: usize| finite(statistic(&samples.iter().map(|sample| without(sample, i)).collect::<Vec<_>>()));
    Ok(vec![(0..n).map(left_out).collect::<Result<_>>()?])
}

/// With the numbers of the drawn values, `[sample][draw]`, for every resample.
pub(super) fn resampled(
    samples: &[&[f64]],
    statistic: impl Fn(&[Vec<f64>]) -> f64 + Sync,
    resamples: usize,
    draw: impl Fn(u64) -> Vec<Vec<usize>> + Sync,
) -> Result<Resampled> {
    ensure!(resamples > 0, "a bootstrap needs at least one resample");
    let own: Vec<Vec<f64>> = samples.iter().map(|x| x.to_vec()).collect();
    let estimate = finite(statistic(&own))?;
    let one = |resample: u64| {
        let drawn = draw(resample);
        let values = |(x, drawn): (&&[f64], Vec<usize>)| drawn.into_iter().map(|i| x[i]).collect::<Vec<f64>>();
        finite(statistic(&samples.iter().zip(drawn).map(values).collect::<Vec<_>>()))
    };
    let statistics = (0..resamples as u64).into_par_iter().map(one).collect::<Result<_>>()?;
    Ok(Resampled { estimate, statistics })
}

/// a: the skewness of the estimate, from what each value adds to it, over all samples.
pub(super) fn acceleration(jackknife: &[Vec<f64>]) -> f64 {
    let (mut cubes, mut squares) = (0.0, 0.0);
    for left_out in jackknife {
        let n = left_out.len() as f64;
        let centre = left_out.iter().sum::<f64>() / n;
        let influence = left_out.iter().map(|x| (n - 1.0) * (centre - x));
        let (cube, square) = influence.fold((0.0, 0.0), |(c, s), u| (c + u * u * u, s + u * u));
        cubes += cube / n.powi(3);
        squares += square / n.powi(2);
    }
    cubes / (6.0 * squares.powf(1.5))
}

fn check(samples: &[&[f64]]) -> Result<()> {
    ensure!(!samples.is_empty(), "a bootstrap of no samples");
    for (number, sample) in samples.iter().enumerate() {
        ensure!(sample.len() > 1, "a bootstrap needs two values in each sample: sample {number} has {}", sample.len());
        check_finite(sample, "a bootstrap")?;
    }
    Ok(())
}

fn pairs(samples: &[&[f64]]) -> Result<usize> {
    check(samples)?;
    let n = samples[0].len();
    match samples.iter().position(|x| x.len() != n) {
        Some(at) => {
            bail!("a paired bootstrap needs pairs: sample 0 has {n} values, sample {at} has {}", samples[at].len())
        }
        None => Ok(n),
    }
}

fn without(x: &[f64], i: usize) -> Vec<f64> {
    [&x[..i], &x[i + 1..]].concat()
}

pub(super) fn finite(statistic: f64) -> Result<f64> {
    ensure!(
        statistic.is_finite(),
        "the statistic of a resample is {statistic}: it needs more values, or values that vary"
    );
    Ok(statistic)
}

#[cfg(test)]
mod tests {
    use super::super::moments::mean;
    use super::*;
    use proptest::prelude::*;
    use rand_distr::{Distribution, Exp1};

    fn first_mean(samples: &[Vec<f64>]) -> f64 {
        mean(&samples[0])
    }

    #[test]
    fn nonsense_is_refused() {
        let error = |samples: &[&[f64]]| bootstrap(samples, first_mean, 10, 0).unwrap_err().to_string();
        assert!(error(&[]).contains("no samples"));
        assert!(error(&[&[1.0, 2.0], &[1.0]]).contains("sample 1 has 1"));
        assert!(error(&[&[1.0, f64::NAN]]).contains("value 1 is NaN"));
        assert!(bootstrap(&[&[1.0, 2.0]], first_mean, 0, 0).is_err());
        let uneven = bootstrap_paired(&[&[1.0, 2.0], &[1.0, 2.0, 3.0]], first_mean, 10, 0).unwrap_err().to_string();
        assert!(uneven.contains("sample 1 has 3"), "{uneven}");
        // With two values a resample often has no spread: its t is not a number.
        let t = |x: &[Vec<f64>]| mean(&x[0]) / sd(&x[0]);
        assert!(bootstrap(&[&[1.0, 2.0]], t, 100, 0).unwrap_err().to_string().contains("is inf"));
        let resampled = Resampled { estimate: 9.0, statistics: vec![1.0, 2.0] };
        assert!(resampled.percentile(1.0).is_err());
        let outside = resampled.bca(&[vec![1.0, 2.0]], 0.9).unwrap_err().to_string();
        assert!(outside.contains("take the percentile interval"), "{outside}");
    }

    #[test]
    fn equal_values_have_an_interval_without_width() {
        let sample: &[f64] = &[0.5; 4];
        let resampled = bootstrap(&[sample], first_mean, 50, 0).unwrap();
        let jackknife = jackknife(&[sample], first_mean).unwrap();
        for interval in [resampled.percentile(0.9), resampled.basic(0.9), resampled.bca(&jackknife, 0.9)] {
            assert_eq!(interval.unwrap(), Interval { mean: 0.5, low: 0.5, high: 0.5 });
        }
        assert_eq!(resampled.standard_error(), 0.0);
    }

    #[test]
    fn the_seed_decides_and_pairs_stay_together() {
        let (x, y): (&[f64], &[f64]) = (&[1.0, 5.0, 2.0, 8.0], &[11.0, 15.0, 12.0, 18.0]);
        let difference = |s: &[Vec<f64>]| mean(&s[1]) - mean(&s[0]);
        let paired = bootstrap_paired(&[x, y], difference, 200, 1).unwrap();
        assert!(paired.statistics.iter().all(|d| (d - 10.0).abs() < 1e-12));
        let free = |seed| bootstrap(&[x, y], difference, 200, seed).unwrap();
        assert!(free(1).standard_error() > 1.0);
        assert_eq!(free(1), free(1));
        assert_ne!(free(1), free(2));
    }

    /// Of 300 samples of 25 exponential draws the mean lies in the 90 % interval about 270 times, less the little that is
    /// known to be missing: percentile, basic, BCa (Efron 1987 has BCa above the others).
    #[test]
    fn intervals_cover_what_they_claim() {
        let mut covered = [0; 3];
        for trial in 0..300 {
            let mut rng = rng(trial, Purpose::Exact, 0, 0);
            let x: Vec<f64> = (0..25).map(|_| Exp1.sample(&mut rng)).collect();
            let resampled = bootstrap(&[&x], first_mean, 500, trial).unwrap();
            let left_out = jackknife(&[&x], first_mean).unwrap();
            let intervals = [resampled.percentile(0.9), resampled.basic(0.9), resampled.bca(&left_out, 0.9)];
            for (covered, interval) in covered.iter_mut().zip(intervals) {
                let interval = interval.unwrap();
                *covered += i32::from(interval.low <= 1.0 && 1.0 <= interval.high);
            }
        }
        // Three standard errors of a count of 300 at 0.9 are 15.6; the missing coverage of 25 skewed draws about as much.
        assert!(covered.iter().all(|c| (238..=286).contains(c)), "{covered:?}");
        assert!(covered[2] >= covered[1], "{covered:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shifts_and_scales_move_all_intervals(
            // Whole numbers: what ties must still tie, and BCa counts ties.
            x in prop::collection::vec(-40..40i32, 4..15),
            shift in -5..5i32,
            scale in 1..4i32,
        ) {
            prop_assume!(x.iter().any(|v| *v != x[0]));
            let (x, shift, scale) = (x.into_iter().map(f64::from).collect::<Vec<_>>(), f64::from(shift), f64::from(scale));
            let moved: Vec<f64> = x.iter().map(|x| shift + scale * x).collect();
            let intervals = |x: &[f64]| {
                let resampled = bootstrap(&[x], first_mean, 99, 7).unwrap();
                let left_out = jackknife(&[x], first_mean).unwrap();
                [resampled.percentile(0.8).unwrap(), resampled.basic(0.8).unwrap(), resampled.bca(&left_out, 0.8).unwrap()]
            };
            for (plain, moved) in intervals(&x).into_iter().zip(intervals(&moved)) {
                prop_assert!(plain.low <= plain.high);
                prop_assert!((shift + scale * plain.low - moved.low).abs() < 1e-9);
                prop_assert!((shift + scale * plain.high - moved.high).abs() < 1e-9);
            }
        }

        /// Of mirrored values the interval is the mirrored one, BCa's too.
        #[test]
        fn a_mirror_swaps_the_ends(x in prop::collection::vec(-10.0..10.0f64, 4..15)) {
            let mirrored: Vec<f64> = x.iter().map(|x| -x).collect();
            let bca = |x: &[f64]| {
                bootstrap(&[x], first_mean, 99, 3).unwrap().bca(&jackknife(&[x], first_mean).unwrap(), 0.8).unwrap()
            };
            let (plain, mirrored) = (bca(&x), bca(&mirrored));
            prop_assert!((plain.low + mirrored.high).abs() < 1e-9 && (plain.high + mirrored.low).abs() < 1e-9);
        }
    }
}
