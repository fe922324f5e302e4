//! An estimate over seeds: with an interval where there are two of them, and nulls where there are not.

use anyhow::Result;

use crate::metrics::{Design, Interval, holm, mean, paired_t, sd, t_interval, welch_t};

/// Of all intervals.
pub(super) const CONFIDENCE: f64 = 0.95;
/// Below this p is a finding.
pub(super) const ALPHA: f64 = 0.05;
/// The probability with which a detectable effect is found.
const POWER: f64 = 0.8;
/// Resamples of a bootstrap, and its seed.
pub(super) const RESAMPLES: usize = 2_000;
pub(super) const BOOTSTRAP_SEED: u64 = 0;

/// A number and its interval, which one seed does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl Estimate {
    /// Of `seeds` seeds.
    pub fn of(interval: Interval, seeds: usize) -> Self {
        let ends = (seeds > 1).then_some((interval.low, interval.high));
        Self { value: interval.mean, low: ends.map(|ends| ends.0), high: ends.map(|ends| ends.1) }
    }

    /// The mean over seeds with Student's interval.
    pub fn student(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|x| !x.is_finite()) {
            return None;
        }
        Some(Self::of(t_interval(values, CONFIDENCE).ok()?, values.len()))
    }

    /// The geometric mean over seeds, from logarithms, with Student's interval of these.
    pub fn geometric(logs: &[f64]) -> Option<Self> {
        Self::student(logs).map(Self::exp)
    }

    pub fn exp(self) -> Self {
        Self { value: self.value.exp(), low: self.low.map(f64::exp), high: self.high.map(f64::exp) }
    }

    /// Whether the whole interval lies above `x`; no interval lies nowhere.
    pub fn above(&self, x: f64) -> bool {
        self.low.is_some_and(|low| low > x)
    }

    pub fn below(&self, x: f64) -> bool {
        self.high.is_some_and(|high| high < x)
    }

    pub fn within(&self, low: f64, high: f64) -> bool {
        self.low.is_some_and(|x| x >= low) && self.high.is_some_and(|x| x <= high)
    }

    /// `0.123 (0.100 to 0.146)`.
    pub fn in_words(&self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{:.4} ({low:.4} to {high:.4})", self.value),
            _ => format!("{:.4} (no interval from one seed)", self.value),
        }
    }
}

/// A number a seed.
pub(super) type BySeed = Vec<(i64, f64)>;

pub(super) fn values(by_seed: &[(i64, f64)]) -> Vec<f64> {
    by_seed.iter().map(|(_, value)| *value).collect()
}

/// The first of two methods less the second, over the seeds that both have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    /// With Student's interval over the pairs.
    pub estimate: Estimate,
    pub seeds: usize,
    /// Of the paired test; null where there is no t: one seed, or pairs that all differ by the same but zero.
    pub p_paired: Option<f64>,
    /// Welch's, of all seeds of both.
    pub p_welch: Option<f64>,
    /// The standard deviation of the pairs' differences.
    pub sd: Option<f64>,
}

impl Difference {
    pub fn of(a: &[(i64, f64)], b: &[(i64, f64)]) -> Option<Self> {
        let (x, y) = pairs(a, b);
        let differences: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
        let estimate = Estimate::student(&differences)?;
        let seeds = differences.len();
        // Equal pairs are no evidence of a difference, although t is not defined.
        let equal = seeds > 1 && differences.iter().all(|x| *x == 0.0);
        let p_paired = if equal { Some(1.0) } else { paired_t(&x, &y).ok().map(|test| test.p) };
        let p_welch = if equal { Some(1.0) } else { welch_t(&values(a), &values(b)).ok().map(|test| test.p) };
        let sd = (seeds > 1).then(|| sd(&differences));
        Some(Self { estimate, seeds, p_paired, p_welch, sd })
    }

    /// The true difference that the paired test would have found with a probability of 0.8, were it the first that Holm
    /// looks at among `tests`: in the unit of the values.
    pub fn detectable(&self, tests: usize) -> Option<f64> {
        Some(detectable_sd(self.seeds, tests)? * self.sd?)
    }
}

/// The same in standard deviations of the differences.
pub(super) fn detectable_sd(seeds: usize, tests: usize) -> Option<f64> {
    Design::Paired(seeds).detectable_effect(ALPHA / tests.max(1) as f64, POWER).ok()
}

/// The values of the seeds that both have.
pub(super) fn pairs(a: &[(i64, f64)], b: &[(i64, f64)]) -> (Vec<f64>, Vec<f64>) {
    let other = |seed: i64| b.iter().find(|(known, _)| *known == seed).map(|(_, value)| *value);
    a.iter().filter_map(|(seed, x)| Some((*x, other(*seed)?))).unzip()
}

/// Holm's correction over the tests that there are.
pub(super) fn holm_of(p: &[Option<f64>]) -> Result<Vec<Option<f64>>> {
    let present: Vec<f64> = p.iter().copied().flatten().collect();
    let mut adjusted = holm(&present)?.into_iter();
    Ok(p.iter().map(|p| p.and_then(|_| adjusted.next())).collect())
}

/// The mean; none of nothing.
pub(super) fn mean_of(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| mean(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_has_no_interval_and_equal_pairs_no_finding() {
        let one = Difference::of(&[(0, 2.0)], &[(0, 1.0)]).unwrap();
        assert_eq!((one.estimate.value, one.estimate.low, one.p_paired, one.sd), (1.0, None, None, None));
        assert!(one.detectable(3).is_none() && !one.estimate.above(0.0));
        let same = [(0, 1.0), (1, 2.0)];
        assert_eq!(Difference::of(&same, &same).unwrap().p_paired, Some(1.0));
        assert!(Difference::of(&[(0, 1.0)], &[(1, 1.0)]).is_none());
        // All pairs differ by one: there is no t, so no p.
        assert_eq!(Difference::of(&[(0, 2.0), (1, 3.0)], &same).unwrap().p_paired, None);
    }

    /// By hand: differences 1, 2, 3 have the mean 2 and the standard error 1/√3, so t = 2√3 with two degrees of freedom, where
    /// P(|T| > t) = 1 − t/√(2 + t²).
    #[test]
    fn a_difference_is_that_of_a_hand_computation() {
        let found = Difference::of(&[(0, 1.0), (1, 3.0), (2, 5.0)], &[(2, 2.0), (1, 1.0), (0, 0.0)]).unwrap();
        let t = 2.0 * 3f64.sqrt();
        assert!((found.estimate.value - 2.0).abs() < 1e-15);
        assert!((found.p_paired.unwrap() - (1.0 - t / (2.0 + t * t).sqrt())).abs() < 1e-12);
        assert!((found.sd.unwrap() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn holm_passes_over_what_was_not_tested() {
        assert_eq!(holm_of(&[Some(0.01), None, Some(0.04)]).unwrap(), [Some(0.02), None, Some(0.04)]);
    }
}
