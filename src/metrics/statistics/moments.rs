//! Mean, spread, quantiles; and an interval for a mean.

use anyhow::{Result, ensure};

use super::distribution::Student;

/// An estimate and the ends of an interval around it, all in the unit of the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate: a mean, or the statistic that was bootstrapped.
    pub mean: f64,
    pub low: f64,
    pub high: f64,
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

/// The value at a share `level` of the way through the sorted values, linear between neighbours (numpy's default); NaN of
/// nothing, and where a value is NaN. The median is `quantile(x, 0.5)`.
pub fn quantile(x: &[f64], level: f64) -> f64 {
    if x.is_empty() || x.iter().any(|x| x.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, level)
}

/// The interquartile mean: that of what is left without the lowest and the highest quarter of the values, their number
/// rounded down (scipy's `trim_mean(x, 0.25)`). NaN of nothing.
pub fn iqm(x: &[f64]) -> f64 {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = x.len() / 4;
    mean(&sorted[cut..x.len() - cut])
}

/// Student's interval for the mean of independent draws. One value says nothing about its spread: the interval
/// is then the whole line (`low` −∞, `high` ∞).
///
/// # Errors
/// No values, a value that is not finite, or a confidence that is not strictly between 0 and 1.
///
/// ```
/// let interval = qstar::metrics::t_interval(&[1.0, 2.0, 3.0], 0.95)?;
/// assert_eq!(interval.mean, 2.0);
/// assert!((interval.high - 4.484138).abs() < 1e-6);
/// # anyhow::Ok(())
/// ```
pub fn t_interval(x: &[f64], confidence: f64) -> Result<Interval> {
    ensure!(!x.is_empty(), "an interval of no values");
    check_confidence(confidence)?;
    check_finite(x, "an interval")?;
    let mean = mean(x);
    if x.len() == 1 {
        return Ok(Interval { mean, low: f64::NEG_INFINITY, high: f64::INFINITY });
    }
    let n = x.len() as f64;
    let half = Student { df: n - 1.0 }.upper(0.5 * (1.0 - confidence)) * sd(x) / n.sqrt();
    Ok(Interval { mean, low: mean - half, high: mean + half })
}

/// With n − 1 in the denominator; of two values or more.
pub(super) fn variance(x: &[f64]) -> f64 {
    let centre = mean(x);
    x.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / (x.len() - 1) as f64
}

pub(in crate::metrics) fn quantile_of_sorted(sorted: &[f64], level: f64) -> f64 {
    let position = level * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

pub(in crate::metrics) fn check_confidence(confidence: f64) -> Result<()> {
    ensure!(confidence > 0.0 && confidence < 1.0, "a confidence lies strictly between 0 and 1: {confidence}");
    Ok(())
}

/// The first value that is not finite, named.
pub(super) fn check_finite(x: &[f64], what: &str) -> Result<()> {
    match x.iter().position(|x| !x.is_finite()) {
        Some(at) => anyhow::bail!("{what} of values that are not all finite: value {at} is {}", x[at]),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_of_little() {
        assert!(mean(&[]).is_nan() && sd(&[]).is_nan() && sd(&[1.0]).is_nan() && iqm(&[]).is_nan());
        assert_eq!((sd(&[2.0, 2.0]), iqm(&[7.0])), (0.0, 7.0));
        assert!(quantile(&[], 0.5).is_nan() && quantile(&[1.0, f64::NAN], 0.5).is_nan());
        assert_eq!(quantile(&[3.0, 1.0, 2.0, 10.0], 0.5), 2.5);
        // Eleven values: two are cut on each side.
        assert_eq!(iqm(&[1e9, 0.0, -5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1e9]), 4.0);
    }

    #[test]
    fn one_value_has_no_width_known() {
        let interval = t_interval(&[0.7], 0.95).unwrap();
        assert_eq!(interval.mean, 0.7);
        assert_eq!((interval.low, interval.high), (f64::NEG_INFINITY, f64::INFINITY));
        let equal = t_interval(&[0.7; 4], 0.95).unwrap();
        assert_eq!((equal.low, equal.high), (equal.mean, equal.mean));
    }

    #[test]
    fn t_intervals_refuse_nonsense() {
        assert!(t_interval(&[], 0.95).is_err());
        for confidence in [0.0, 1.0, -0.5, 95.0, f64::NAN] {
            assert!(t_interval(&[1.0, 2.0], confidence).is_err());
        }
        let told = t_interval(&[1.0, f64::NAN], 0.95).unwrap_err().to_string();
        assert!(told.contains("value 1 is NaN"), "{told}");
    }

    fn values(least: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-100.0..100.0f64, least..20)
    }

    proptest! {
        #[test]
        fn shifting_and_scaling_move_an_interval_alike(x in values(2), a in -50.0..50.0f64, b in 0.1..10.0f64) {
            let plain = t_interval(&x, 0.95).unwrap();
            let moved: Vec<f64> = x.iter().map(|x| a + b * x).collect();
            let iqms = (iqm(&moved), a + b * iqm(&x));
            let moved = t_interval(&moved, 0.95).unwrap();
            prop_assert!((moved.mean - (a + b * plain.mean)).abs() < 1e-9 && (iqms.0 - iqms.1).abs() < 1e-9);
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
        fn a_quarter_of_anything_does_not_move_the_iqm_out_of_the_rest(x in values(8), wild in -1e9..1e9f64) {
            let mut spoiled = x.clone();
            let count = x.len() / 4;
            spoiled[..count].fill(wild);
            let (low, high) = x[count..].iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
            let found = iqm(&spoiled);
            prop_assert!(low - 1e-9 <= found && found <= high + 1e-9);
        }
    }
}
