//! Probabilities estimated from counts.

use anyhow::{Result, ensure};

use super::Interval;
use super::statistics::{check_confidence, normal_quantile};

/// Wilson's interval for a probability (Wilson 1927, JASA 22, 209-212): `successes` of `trials` independent trials, where
/// half a success is a tie. It lies within [0, 1] and has a width even when all trials succeed; its middle is not the
/// mean.
///
/// # Errors
/// No trials, more successes than trials, a confidence that is not strictly between 0 and 1.
///
/// ```
/// let interval = qstar::metrics::wilson_interval(8.0, 10, 0.95)?;
/// assert!((interval.low - 0.490162).abs() < 1e-6 && (interval.high - 0.943318).abs() < 1e-6);
/// # anyhow::Ok(())
/// ```
pub fn wilson_interval(successes: f64, trials: usize, confidence: f64) -> Result<Interval> {
    ensure!(trials > 0, "a proportion of no trials");
    let n = trials as f64;
    ensure!((0.0..=n).contains(&successes), "{successes} successes of {trials} trials");
    check_confidence(confidence)?;
    let z = -normal_quantile(0.5 * (1.0 - confidence));
    let p = successes / n;
    let shrink = 1.0 / (1.0 + z * z / n);
    let centre = shrink * (p + z * z / (2.0 * n));
    let half = shrink * z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and n successes one end is 0 or 1 but for rounding.
    Ok(Interval { mean: p, low: (centre - half).clamp(0.0, p), high: (centre + half).clamp(p, 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends are the probabilities p from which what was observed lies z standard errors of p away.
    #[test]
    fn ends_are_where_the_score_test_turns() {
        for (confidence, z) in [(0.95, 1.959963984540054), (0.9, 1.6448536269514722), (0.5, 0.6744897501960817)] {
            for (successes, trials) in [(8.0, 10), (0.0, 7), (7.0, 7), (2.5, 11), (511.0, 1000)] {
                let interval = wilson_interval(successes, trials, confidence).unwrap();
                assert_eq!(interval.mean, successes / trials as f64);
                for end in [interval.low, interval.high] {
                    let distance = (interval.mean - end).abs();
                    let errors = z * (end * (1.0 - end) / trials as f64).sqrt();
                    assert!((distance - errors).abs() < 1e-8, "{successes} of {trials}: {interval:?}");
                }
                assert!(interval.low < interval.high);
            }
        }
        let all = wilson_interval(7.0, 7, 0.95).unwrap();
        assert_eq!(all.high, 1.0);
        assert!((all.low - 7.0 / (7.0 + 1.959963984540054f64.powi(2))).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(wilson_interval(0.0, 0, 0.95).is_err());
        assert!(wilson_interval(3.0, 2, 0.95).is_err() && wilson_interval(-1.0, 2, 0.95).is_err());
        assert!(wilson_interval(f64::NAN, 2, 0.95).is_err() && wilson_interval(1.0, 2, 1.0).is_err());
    }
}
