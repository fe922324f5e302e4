//! Are two means equal? Welch's test of two groups, and the test of pairs.

use anyhow::{Result, ensure};

use super::Interval;
use super::distribution::{Student, hedges_factor};
use super::moments::{check_confidence, check_finite, mean, variance};

/// What [`welch_t`] and [`paired_t`] find.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TTest {
    /// The first mean less the second, and its standard error, in the unit of the data.
    pub difference: f64,
    pub standard_error: f64,
    /// The difference in standard errors.
    pub t: f64,
    /// Degrees of freedom; by Welch and Satterthwaite not a whole number.
    pub df: f64,
    /// Two-sided probability of a |t| at least this large if the means are equal.
    pub p: f64,
    /// Cohen's d: the difference in standard deviations. Of two groups the pooled one; of pairs that of their differences
    /// (d_z), which grows as pairs resemble each other and is not comparable with the former.
    pub d: f64,
    /// Hedges' g: d without its bias in few values. NaN for two pairs, where no factor removes it.
    pub g: f64,
}

impl TTest {
    /// Student's interval for the difference, of the given confidence.
    ///
    /// # Errors
    /// A confidence that is not strictly between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<Interval> {
        check_confidence(confidence)?;
        let half = Student { df: self.df }.upper(0.5 * (1.0 - confidence)) * self.standard_error;
        Ok(Interval { mean: self.difference, low: self.difference - half, high: self.difference + half })
    }
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
/// let difference = welch.interval(0.95)?;
/// assert!(difference.low < -2.0 && difference.high > 0.0);
/// # anyhow::Ok(())
/// ```
pub fn welch_t(a: &[f64], b: &[f64]) -> Result<TTest> {
    ensure!(
        a.len() > 1 && b.len() > 1,
        "Welch's test needs two values in each group: there are {} and {}",
        a.len(),
        b.len()
    );
    check_finite(a, "Welch's test (first group)")?;
    check_finite(b, "Welch's test (second group)")?;
    let (s, r) = (variance(a), variance(b));
    // Squared standard errors of the two means.
    let (u, v) = (s / a.len() as f64, r / b.len() as f64);
    ensure!(u + v > 0.0, "Welch's test of two groups without spread: t is not defined");
    ensure!((u + v).is_finite(), "Welch's test of values whose variance overflows: scale them");
    // With shares of the summed variance instead of the variances themselves, nothing under- or overflows.
    let (su, sv) = (u / (u + v), v / (u + v));
    let (da, db) = ((a.len() - 1) as f64, (b.len() - 1) as f64);
    let df = 1.0 / (su * su / da + sv * sv / db);
    let pooled = ((da * s + db * r) / (da + db)).sqrt();
    let difference = mean(a) - mean(b);
    Ok(test(difference, (u + v).sqrt(), df, difference / pooled, da + db))
}

/// The paired t-test: is the mean of `a[i] − b[i]` zero? For values of the same prompt or the same seed.
///
/// # Errors
/// Groups of different lengths or of fewer than two pairs, a value that is not finite, or pairs that all differ by the
/// same, for which t is not defined.
///
/// ```
/// let paired = qstar::metrics::paired_t(&[1.0, 2.0, 4.0], &[0.5, 1.8, 3.1])?;
/// assert_eq!(paired.df, 2.0);
/// # anyhow::Ok(())
/// ```
pub fn paired_t(a: &[f64], b: &[f64]) -> Result<TTest> {
    ensure!(a.len() == b.len(), "a paired test needs pairs: there are {} and {} values", a.len(), b.len());
    ensure!(a.len() > 1, "a paired test needs two pairs: there are {}", a.len());
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    check_finite(&differences, "a paired test, whose differences are")?;
    let square = variance(&differences);
    ensure!(square > 0.0, "a paired test of pairs that all differ by {}: t is not defined", differences[0]);
    ensure!(square.is_finite(), "a paired test of values whose variance overflows: scale them");
    let (n, difference) = (a.len() as f64, mean(&differences));
    Ok(test(difference, (square / n).sqrt(), n - 1.0, difference / square.sqrt(), n - 1.0))
}

fn test(difference: f64, standard_error: f64, df: f64, d: f64, df_of_spread: f64) -> TTest {
    let t = difference / standard_error;
    let p = Student { df }.beyond(t.abs());
    TTest { difference, standard_error, t, df, p, d, g: d * hedges_factor(df_of_spread) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_no_t_is_refused() {
        let error = |a: &[f64], b: &[f64]| welch_t(a, b).unwrap_err().to_string();
        assert!(error(&[1.0], &[1.0, 2.0]).contains("there are 1 and 2"));
        assert!(error(&[1.0, 1.0], &[2.0, 2.0]).contains("without spread"));
        assert!(error(&[1.0, f64::NAN], &[2.0, 3.0]).contains("first group"));
        assert!(error(&[1e200, -1e200], &[2.0, 3.0]).contains("overflows"));
        let error = |a: &[f64], b: &[f64]| paired_t(a, b).unwrap_err().to_string();
        assert!(error(&[1.0], &[1.0, 2.0]).contains("1 and 2 values"));
        assert!(error(&[1.0], &[1.0]).contains("two pairs"));
        assert!(error(&[1.0, 2.0], &[3.0, 4.0]).contains("all differ by -2"));
        assert!(error(&[1.0, f64::INFINITY], &[2.0, 3.0]).contains("value 1 is inf"));
    }

    #[test]
    fn spread_in_one_group_is_enough() {
        let welch = welch_t(&[1.0, 1.0], &[2.0, 4.0]).unwrap();
        assert!((welch.t + 2.0).abs() < 1e-15 && (welch.df - 1.0).abs() < 1e-15);
        // A t of one degree of freedom is a Cauchy: P(|T| > 2) = 1 − 2/π·atan 2.
        assert!((welch.p - (1.0 - 2.0 / std::f64::consts::PI * 2f64.atan())).abs() < 1e-14);
        assert!(paired_t(&[1.0, 2.0], &[0.0, 0.5]).unwrap().g.is_nan());
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-100.0..100.0f64, 2..20)
    }

    proptest! {
        #[test]
        fn welch_changes_its_sign_with_the_order(a in values(), b in values()) {
            let (ab, ba) = (welch_t(&a, &b).unwrap(), welch_t(&b, &a).unwrap());
            prop_assert!((ab.t + ba.t).abs() < 1e-12 * (1.0 + ab.t.abs()) && (ab.g + ba.g).abs() < 1e-12);
            prop_assert!((ab.p - ba.p).abs() < 1e-12 && (0.0..=1.0).contains(&ab.p));
            let fewest = (a.len().min(b.len()) - 1) as f64;
            prop_assert!(ab.df >= fewest - 1e-9 && ab.df <= (a.len() + b.len() - 2) as f64 + 1e-9);
        }

        /// An interval of confidence 1 − p ends at zero.
        #[test]
        fn test_and_interval_agree(a in values(), b in values()) {
            let welch = welch_t(&a, &b).unwrap();
            prop_assume!(welch.p > 1e-6 && welch.p < 0.999);
            let interval = welch.interval(1.0 - welch.p).unwrap();
            let nearest = if welch.difference > 0.0 { interval.low } else { interval.high };
            prop_assert!(nearest.abs() < 1e-8 * welch.standard_error, "{nearest}");
        }

        #[test]
        fn a_common_shift_of_each_pair_changes_nothing(
            pairs in prop::collection::vec((-9.0..9.0f64, -9.0..9.0f64, -9.0..9.0f64), 3..20),
        ) {
            let column = |f: &dyn Fn(&(f64, f64, f64)) -> f64| pairs.iter().map(f).collect::<Vec<f64>>();
            let plain = paired_t(&column(&|x| x.0), &column(&|x| x.1)).unwrap();
            let moved = paired_t(&column(&|x| x.0 + x.2), &column(&|x| x.1 + x.2)).unwrap();
            prop_assert!((plain.t - moved.t).abs() < 1e-6 * (1.0 + plain.t.abs()) && (plain.p - moved.p).abs() < 1e-9);
            prop_assert!(plain.g.abs() <= plain.d.abs());
        }
    }
}
