//! Do things that are predicted with probability p happen with frequency p?

use anyhow::{Result, ensure};

/// One bin of a reliability diagram (DeGroot, Fienberg 1983).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityBin {
    /// The probabilities `low <= p < high`; the last bin holds its end.
    pub low: f64,
    pub high: f64,
    pub count: usize,
    /// The mean of the probabilities in the bin, and how often what they predict was observed; none of an empty bin.
    pub predicted: Option<f64>,
    pub observed: Option<f64>,
}

/// Predicted probabilities against what was observed (1: it happened, 0: it did not, 1/2: a tie), in `bins` bins of equal
/// width from `low` to `high`.
///
/// # Errors
/// No predictions, as many observations as predictions are missing, a prediction outside `low ..= high`, an observation
/// outside 0 to 1, no bins.
pub fn reliability(
    predicted: &[f64],
    observed: &[f64],
    (low, high): (f64, f64),
    bins: usize,
) -> Result<Vec<ReliabilityBin>> {
    ensure!(bins > 0 && low < high, "{bins} bins from {low} to {high}");
    ensure!(!predicted.is_empty(), "calibration of no predictions");
    ensure!(
        predicted.len() == observed.len(),
        "{} predictions and {} observations do not belong together",
        predicted.len(),
        observed.len()
    );
    let mut sums = vec![(0usize, 0.0, 0.0); bins];
    for (row, (&p, &y)) in predicted.iter().zip(observed).enumerate() {
        ensure!((low..=high).contains(&p), "prediction {row} is {p}, which is not within {low} to {high}");
        ensure!((0.0..=1.0).contains(&y), "observation {row} is {y}, which is not within 0 to 1");
        let bin = ((p - low) / (high - low) * bins as f64) as usize;
        let (count, predicted, observed) = &mut sums[bin.min(bins - 1)];
        *count += 1;
        *predicted += p;
        *observed += y;
    }
    let edge = |i: usize| low + (high - low) * i as f64 / bins as f64;
    let bin = |(i, (count, predicted, observed)): (usize, (usize, f64, f64))| {
        let mean = |sum: f64| (count > 0).then(|| sum / count as f64);
        ReliabilityBin { low: edge(i), high: edge(i + 1), count, predicted: mean(predicted), observed: mean(observed) }
    };
    Ok(sums.into_iter().enumerate().map(bin).collect())
}

/// The expected calibration error: the mean of |observed − predicted| over bins, weighted by their counts. Guo et al.
/// 2017, arXiv:1706.04599.
pub fn calibration_error(bins: &[ReliabilityBin]) -> f64 {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let gaps = bins.iter().filter_map(|bin| Some(bin.count as f64 * (bin.observed? - bin.predicted?).abs()));
    gaps.sum::<f64>() / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_a_hand_computation() {
        let predicted = [0.0, 0.1, 0.24, 0.25, 0.6, 0.74, 1.0, 1.0];
        let observed = [0.0, 1.0, 0.0, 1.0, 0.5, 1.0, 1.0, 0.0];
        let bins = reliability(&predicted, &observed, (0.0, 1.0), 4).unwrap();
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [3, 1, 2, 2]);
        assert_eq!((bins[1].low, bins[1].high), (0.25, 0.5));
        let near = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-15);
        near(bins[0].predicted, 0.34 / 3.0);
        near(bins[0].observed, 1.0 / 3.0);
        near(bins[2].predicted, 0.67);
        near(bins[2].observed, 0.75);
        // (3·0.22 + 1·0.75 + 2·0.08 + 2·0.5) / 8
        assert!((calibration_error(&bins) - 2.57 / 8.0).abs() < 1e-15);
        let empty = reliability(&[0.9], &[1.0], (0.5, 1.0), 5).unwrap();
        assert_eq!((empty[0].predicted, empty[0].observed, empty[4].count), (None, None, 1));
        assert!((calibration_error(&empty) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn nonsense_is_refused() {
        let error = |p: &[f64], y: &[f64]| reliability(p, y, (0.5, 1.0), 5).unwrap_err().to_string();
        assert!(error(&[], &[]).contains("no predictions"));
        assert!(error(&[0.6], &[]).contains("1 predictions and 0 observations"));
        assert!(error(&[0.6, 0.4], &[1.0, 1.0]).contains("prediction 1 is 0.4"));
        assert!(error(&[0.6, f64::NAN], &[1.0, 1.0]).contains("prediction 1 is NaN"));
        assert!(error(&[0.6], &[2.0]).contains("observation 0 is 2"));
        assert!(reliability(&[0.6], &[1.0], (0.5, 1.0), 0).is_err());
    }
}
