//! Runs at their ends, and means over their seeds.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;

use crate::metrics::t_interval;

/// What the intervals of [`Mean`] are.
pub(super) const T_INTERVAL: &str = "95 % t-interval over seeds";

/// A mean over seeds with its 95 % t-interval, where there are several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mean {
    pub value: f64,
    pub ends: Option<(f64, f64)>,
}

impl Mean {
    /// # Errors
    /// No values, or one that is not finite.
    pub fn of(values: &[f64]) -> Result<Self> {
        let interval = t_interval(values, 0.95)?;
        Ok(Self { value: interval.mean, ends: (values.len() > 1).then_some((interval.low, interval.high)) })
    }

    /// The geometric mean of positive values, as a decimal logarithm.
    pub fn of_logarithms(values: &[f64]) -> Result<Self> {
        Self::of(&values.iter().map(|x| x.log10()).collect::<Vec<_>>())
    }

    /// The mean and its ends, for an axis to hold.
    pub fn reach(&self) -> [f64; 3] {
        let (low, high) = self.ends.unwrap_or((self.value, self.value));
        [self.value, low, high]
    }
}

/// The rows of the first and of the last evaluation of one run.
pub(super) struct Ends<K> {
    pub key: K,
    pub first: usize,
    pub last: usize,
}

/// The ends of every run, in the order of their keys.
///
/// # Errors
/// Two rows of one run at one step.
pub(super) fn ends<K: Ord + Clone>(keys: &[K], steps: &[i64]) -> Result<Vec<Ends<K>>> {
    let mut runs: BTreeMap<&K, BTreeMap<i64, usize>> = BTreeMap::new();
    for (row, (key, step)) in keys.iter().zip(steps).enumerate() {
        let twice = runs.entry(key).or_default().insert(*step, row);
        ensure!(
            twice.is_none(),
            "two evaluations of one task, method and seed at step {step}: the frame mixes runs that differ in something \
             else; filter it to one run a task, method and seed"
        );
    }
    let ends = |(key, rows): (&K, BTreeMap<i64, usize>)| {
        let (first, last) = (rows.first_key_value()?, rows.last_key_value()?);
        Some(Ends { key: key.clone(), first: *first.1, last: *last.1 })
    };
    Ok(runs.into_iter().filter_map(ends).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_first_and_a_last_evaluation() {
        let ends_of = ends(&["b", "a", "b", "a"], &[10, 0, 0, 5]).unwrap();
        let rows: Vec<_> = ends_of.iter().map(|run| (run.key, run.first, run.last)).collect();
        assert_eq!(rows, [("a", 1, 3), ("b", 2, 0)]);
        assert!(ends(&["a", "a"], &[3, 3]).err().unwrap().to_string().contains("at step 3"));
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(Mean::of(&[0.5]).unwrap(), Mean { value: 0.5, ends: None });
        let mean = Mean::of_logarithms(&[0.1, 0.001]).unwrap();
        assert!((mean.value + 2.0).abs() < 1e-12 && mean.ends.unwrap().1 > mean.value);
    }
}
