//! One curve out of the curves of several seeds.

use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// The curves of one method on one task: for every seed, a value at every x.
#[derive(Default)]
pub(super) struct Seeds(BTreeMap<i64, BTreeMap<i64, f64>>);

impl Seeds {
    /// # Errors
    /// A second value of one seed at one x: the rows of different runs are mixed.
    pub fn insert(&mut self, seed: i64, x: i64, value: f64) -> Result<()> {
        if self.0.entry(seed).or_default().insert(x, value).is_some() {
            bail!(
                "two values of seed {seed} at {x}: the frame mixes runs that differ in something else; \
                 filter it to one run a task, method and seed"
            );
        }
        Ok(())
    }

    /// Every x that some seed has, from where the last seed begins to where the first one ends, with the values of
    /// all seeds there in the order of the seeds. A seed that has no value at an x is interpolated linearly: methods
    /// that pay for rejected responses are not evaluated after the same number of samples with every seed.
    ///
    /// # Errors
    /// Seeds whose ranges do not meet.
    pub fn common(&self) -> Result<Vec<(f64, Vec<f64>)>> {
        let ends = |curve: &BTreeMap<i64, f64>| {
            let first = *curve.keys().next().expect("a seed has a value");
            let last = *curve.keys().next_back().expect("a seed has a value");
            (first, last)
        };
        let begin = self.0.values().map(|curve| ends(curve).0).max().unwrap_or(0);
        let end = self.0.values().map(|curve| ends(curve).1).min().unwrap_or(0);
        ensure!(
            begin <= end,
            "the seeds have no common range: one begins at {begin}, another ends at {end}; \
             filter the frame to runs that have been equally far"
        );
        let grid: BTreeSet<i64> = self.0.values().flat_map(|curve| curve.range(begin..=end).map(|(x, _)| *x)).collect();
        let values = |x: &i64| self.0.values().map(|curve| at(curve, *x)).collect();
        Ok(grid.iter().map(|x| (*x as f64, values(x))).collect())
    }
}

/// The curve's value at an x between its ends.
fn at(curve: &BTreeMap<i64, f64>, x: i64) -> f64 {
    let (x0, y0) = curve.range(..=x).next_back().expect("x is not before the curve");
    if *x0 == x {
        return *y0;
    }
    let (x1, y1) = curve.range(x..).next().expect("x is not after the curve");
    y0 + (y1 - y0) * (x - x0) as f64 / (x1 - x0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(rows: &[(i64, i64, f64)]) -> Seeds {
        let mut seeds = Seeds::default();
        for (seed, x, value) in rows {
            seeds.insert(*seed, *x, *value).unwrap();
        }
        seeds
    }

    #[test]
    fn equal_grids_are_kept_as_they_are() {
        let seeds = seeds(&[(1, 0, 0.1), (1, 8, 0.3), (0, 8, 0.5), (0, 0, 0.2)]);
        assert_eq!(seeds.common().unwrap(), [(0.0, vec![0.2, 0.1]), (8.0, vec![0.5, 0.3])]);
    }

    #[test]
    fn different_grids_meet_by_interpolation() {
        let seeds = seeds(&[(0, 0, 0.0), (0, 10, 1.0), (1, 0, 2.0), (1, 4, 3.0), (1, 8, 3.0)]);
        let expected = [(0.0, vec![0.0, 2.0]), (4.0, vec![0.4, 3.0]), (8.0, vec![0.8, 3.0])];
        assert_eq!(seeds.common().unwrap(), expected);
    }

    #[test]
    fn mixed_runs_and_separate_ranges_are_errors() {
        let mut mixed = seeds(&[(0, 5, 1.0)]);
        assert!(mixed.insert(0, 5, 1.0).unwrap_err().to_string().contains("seed 0 at 5"));
        let apart = seeds(&[(0, 0, 1.0), (0, 5, 1.0), (1, 6, 1.0)]);
        assert!(apart.common().unwrap_err().to_string().contains("no common range"));
    }
}
