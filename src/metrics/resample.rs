//! The bootstrap over documents.

use anyhow::{Result, ensure};
use rand::Rng;
use rayon::prelude::*;

use super::Interval;
use super::statistics::quantile_of_sorted;
use crate::seed::{Purpose, rng};

/// How an interval is found by drawing documents again, with replacement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampling {
    /// How often.
    pub resamples: usize,
    /// The share of resamples that lie within the interval.
    pub confidence: f64,
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 1_000, confidence: 0.95, seed: 0 }
    }
}

impl Resampling {
    /// Statistics of `documents` documents, each with its percentile interval (B. Efron, Annals of Statistics 7, 1979). A statistic
    /// is given the numbers of the documents; `mean` of an interval is that of all documents, each once. All are computed of the same
    /// resamples. The same bits whatever the number of threads.
    ///
    /// # Errors
    /// No documents, no resamples, a confidence that is not strictly between 0 and 1.
    pub fn intervals(
        &self,
        documents: usize,
        statistics: impl Fn(&[usize]) -> Vec<f64> + Sync,
    ) -> Result<Vec<Interval>> {
        ensure!(documents > 0, "an interval of no documents");
        ensure!(self.resamples > 0, "a bootstrap needs at least one resample");
        let confidence = self.confidence;
        ensure!(confidence > 0.0 && confidence < 1.0, "a confidence lies strictly between 0 and 1: {confidence}");
        let resample = |number| {
            let mut rng = rng(self.seed, Purpose::Bootstrap, number, 0);
            let drawn: Vec<usize> = (0..documents).map(|_| rng.random_range(0..documents)).collect();
            statistics(&drawn)
        };
        let resampled: Vec<Vec<f64>> = (0..self.resamples as u64).into_par_iter().map(resample).collect();
        let all: Vec<usize> = (0..documents).collect();
        let tail = 0.5 - 0.5 * confidence;
        let interval = |(index, mean)| {
            let mut values: Vec<f64> = resampled.iter().map(|statistics| statistics[index]).collect();
            values.sort_by(f64::total_cmp);
            Interval { mean, low: quantile_of_sorted(&values, tail), high: quantile_of_sorted(&values, 1.0 - tail) }
        };
        Ok(statistics(&all).into_iter().enumerate().map(interval).collect())
    }

    /// The means of columns with one value a document, all of the same length, with their intervals.
    ///
    /// # Errors
    /// As of [`Self::intervals`].
    ///
    /// ```
    /// # use qstar::metrics::Resampling;
    /// let interval = Resampling::default().means(&[vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0]])?[0];
    /// assert!(interval.low < interval.mean && interval.mean < interval.high);
    /// # anyhow::Ok(())
    /// ```
    pub fn means(&self, columns: &[Vec<f64>]) -> Result<Vec<Interval>> {
        let documents = columns.first().map_or(0, Vec::len);
        ensure!(columns.iter().all(|column| column.len() == documents), "columns of different lengths");
        self.intervals(documents, |drawn| {
            let mean = |column: &Vec<f64>| drawn.iter().map(|&at| column[at]).sum::<f64>() / drawn.len() as f64;
            columns.iter().map(mean).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of n draws has the spread of the central limit.
    #[test]
    fn intervals_have_the_width_that_they_should() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 10)).collect();
        let sd = (99.0f64 / 12.0).sqrt();
        let found =
            Resampling { resamples: 4_000, ..Resampling::default() }.means(std::slice::from_ref(&values)).unwrap()[0];
        let half = 1.959964 * sd / 20.0;
        assert!((found.mean - 4.5).abs() < 1e-12);
        assert!((found.low - (4.5 - half)).abs() < 0.06 * half, "{found:?}");
        assert!((found.high - (4.5 + half)).abs() < 0.06 * half, "{found:?}");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let values: Vec<f64> = (0..300).map(|i| f64::from(i).sin()).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Resampling::default().means(std::slice::from_ref(&values)).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |resamples, confidence| Resampling { resamples, confidence, seed: 0 }.means(&[vec![1.0]]);
        assert!(with(10, 0.95).is_ok() && with(0, 0.95).is_err() && with(10, 1.0).is_err());
        assert!(Resampling::default().means(&[]).is_err() && Resampling::default().means(&[vec![]]).is_err());
        assert!(Resampling::default().means(&[vec![1.0], vec![]]).is_err());
    }
}
