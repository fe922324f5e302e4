//! What a test of so many values could have seen.

use anyhow::{Result, ensure};

use super::distribution::Student;

/// How many values a two-sided t-test has. Both groups are taken to have the same variance; the draws to be normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Design {
    /// The sizes of two independent groups; an effect is Cohen's d.
    TwoSample(usize, usize),
    /// So many pairs; an effect is the mean difference in standard deviations of the differences.
    Paired(usize),
}

impl Design {
    /// The probability of p < `alpha` where the true effect, in standard deviations, is `effect`: by the noncentral
    /// distribution of t (Cohen 1988, Statistical Power Analysis, ch. 2), good to 1e-9.
    ///
    /// # Errors
    /// Fewer than two values in a group, fewer than two pairs, an alpha that is not strictly between 0 and 1, or so small
    /// that the values could hardly ever reach it; an effect that is not finite.
    ///
    /// ```
    /// use qstar::metrics::Design;
    ///
    /// // The textbook's case: 64 in each group see half a standard deviation with a probability of 0.8.
    /// assert!((Design::TwoSample(64, 64).power(0.5, 0.05)? - 0.8015).abs() < 1e-4);
    /// // With three seeds each it takes a difference of 3.1 standard deviations.
    /// assert!((Design::TwoSample(3, 3).detectable_effect(0.05, 0.8)? - 3.07).abs() < 0.01);
    /// # anyhow::Ok(())
    /// ```
    pub fn power(self, effect: f64, alpha: f64) -> Result<f64> {
        let (student, root) = self.law()?;
        ensure!(effect.is_finite(), "the power for an effect of {effect}");
        let critical = critical(student, alpha)?;
        let shift = effect * root;
        Ok(student.noncentral_sf(critical, shift) + student.noncentral_sf(critical, -shift))
    }

    /// The smallest true effect, in standard deviations, that is found at p < `alpha` with probability `power`: what the
    /// absence of a finding excludes.
    ///
    /// # Errors
    /// As [`Design::power`]; a power that is not above `alpha` and below 1.
    pub fn detectable_effect(self, alpha: f64, power: f64) -> Result<f64> {
        self.power(0.0, alpha)?;
        ensure!(power > alpha && power < 1.0, "a power lies between alpha = {alpha} and 1: {power}");
        let (mut low, mut high) = (0.0, 1.0);
        while self.power(high, alpha)? < power {
            (low, high) = (high, 2.0 * high);
            ensure!(high < 1e6, "no effect below {high} standard deviations is found with probability {power}");
        }
        while high - low > 1e-13 * high {
            let middle = 0.5 * (low + high);
            if middle <= low || middle >= high {
                break;
            }
            if self.power(middle, alpha)? < power { low = middle } else { high = middle }
        }
        Ok(0.5 * (low + high))
    }

    /// The law of t without an effect, and the t of one standard deviation.
    fn law(self) -> Result<(Student, f64)> {
        match self {
            Design::TwoSample(a, b) => {
                ensure!(a > 1 && b > 1, "a t-test needs two values in each group: there are {a} and {b}");
                let (a, b) = (a as f64, b as f64);
                Ok((Student { df: a + b - 2.0 }, (a * b / (a + b)).sqrt()))
            }
            Design::Paired(n) => {
                ensure!(n > 1, "a paired test needs two pairs: there are {n}");
                Ok((Student { df: n as f64 - 1.0 }, (n as f64).sqrt()))
            }
        }
    }
}

fn critical(student: Student, alpha: f64) -> Result<f64> {
    ensure!(alpha > 0.0 && alpha < 1.0, "alpha lies strictly between 0 and 1: {alpha}");
    let critical = student.upper(0.5 * alpha);
    ensure!(
        critical < 1e4,
        "with {} degrees of freedom alpha = {alpha} is reached at t = {critical:.0}: more values or a larger alpha",
        student.df
    );
    Ok(critical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        assert!(Design::TwoSample(1, 5).power(1.0, 0.05).is_err() && Design::Paired(1).power(1.0, 0.05).is_err());
        let design = Design::Paired(2);
        assert!(design.power(f64::NAN, 0.05).is_err() && design.power(1.0, 1.0).is_err());
        assert!(design.power(1.0, 1e-9).unwrap_err().to_string().contains("more values"));
        assert!(design.detectable_effect(0.05, 0.04).is_err() && design.detectable_effect(0.05, 1.0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn power_grows_with_effect_and_values(n in 2usize..40, effect in 0.0..3.0f64, alpha in 0.001..0.2f64) {
            let power = |n, effect| Design::TwoSample(n, n + 1).power(effect, alpha).unwrap();
            prop_assert!((power(n, 0.0) - alpha).abs() < 1e-11);
            prop_assert!(power(n, effect + 0.1) > power(n, effect) - 1e-12);
            prop_assert!(power(n + 1, effect) >= power(n, effect) - 1e-11);
            prop_assert!((power(n, effect) - power(n, -effect)).abs() < 1e-12);
        }

        #[test]
        fn a_detectable_effect_has_its_power(n in 2usize..60, alpha in 0.001..0.2f64, power in 0.25..0.99f64) {
            let effect = Design::Paired(n).detectable_effect(alpha, power).unwrap();
            prop_assert!((Design::Paired(n).power(effect, alpha).unwrap() - power).abs() < 1e-10);
        }
    }
}
