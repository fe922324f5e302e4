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
    check(successes, trials, confidence)?;
    Ok(wilson(successes / trials as f64, trials as f64, confidence))
}

/// Wilson's interval for the share in a finite population of which `trials` were drawn without replacement: the trials
/// count for (N − 1)/(N − n) as much, and all of the population leaves nothing open.
///
/// # Errors
/// As [`wilson_interval`]; fewer in the population than were drawn. The population can be an estimate, and need not be whole.
pub fn wilson_interval_of_population(
    successes: f64,
    trials: usize,
    population: f64,
    confidence: f64,
) -> Result<Interval> {
    check(successes, trials, confidence)?;
    let n = trials as f64;
    ensure!(population.is_finite() && population >= n, "{trials} trials from a population of {population}");
    let mean = successes / n;
    if population - n < 1e-9 * n {
        return Ok(Interval { mean, low: mean, high: mean });
    }
    Ok(wilson(mean, n * (population - 1.0) / (population - n), confidence))
}

fn check(successes: f64, trials: usize, confidence: f64) -> Result<()> {
    ensure!(trials > 0, "a proportion of no trials");
    ensure!((0.0..=trials as f64).contains(&successes), "{successes} successes of {trials} trials");
    check_confidence(confidence)
}

fn wilson(p: f64, n: f64, confidence: f64) -> Interval {
    let z = -normal_quantile(0.5 * (1.0 - confidence));
    let shrink = 1.0 / (1.0 + z * z / n);
    let centre = shrink * (p + z * z / (2.0 * n));
    let half = shrink * z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and n successes one end is 0 or 1 but for rounding.
    Interval { mean: p, low: (centre - half).clamp(0.0, p), high: (centre + half).clamp(p, 1.0) }
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

    /// The ends of the interval for a finite population turn the score test with the variance of drawing without
    /// replacement, p(1 − p)/n · (N − n)/(N − 1).
    #[test]
    fn a_finite_population_leaves_less_open() {
        for (successes, trials, population) in [(8.0, 10, 40.0), (2.5, 11, 12.0), (30.0, 100, 1e4)] {
            let interval = wilson_interval_of_population(successes, trials, population, 0.95).unwrap();
            let factor = (population - trials as f64) / (population - 1.0) / trials as f64;
            for end in [interval.low, interval.high] {
                let errors = 1.959963984540054 * (end * (1.0 - end) * factor).sqrt();
                assert!(((interval.mean - end).abs() - errors).abs() < 1e-8, "{successes} of {trials}: {interval:?}");
            }
        }
        let all = wilson_interval_of_population(3.0, 10, 10.0, 0.95).unwrap();
        assert_eq!((all.low, all.high), (0.3, 0.3));
        assert!(wilson_interval_of_population(3.0, 10, 9.0, 0.95).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(wilson_interval(0.0, 0, 0.95).is_err());
        assert!(wilson_interval(3.0, 2, 0.95).is_err() && wilson_interval(-1.0, 2, 0.95).is_err());
        assert!(wilson_interval(f64::NAN, 2, 0.95).is_err() && wilson_interval(1.0, 2, 1.0).is_err());
    }
}
