//! How many times fewer samples a method needs than a baseline, where some runs never got there.

use anyhow::{Result, ensure};
use rand::Rng;
use rayon::prelude::*;

use super::moments::{check_confidence, quantile_of_sorted};
use super::{Interval, Reached};
use crate::seed::{Purpose, rng};

/// What [`sample_efficiency`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Efficiency {
    /// The baseline's samples over the method's, each the restricted mean up to `horizon`: above 1 the method needs fewer.
    /// With its bootstrap interval over the runs of both, which lets nothing out of `horizon` either.
    pub ratio: Interval,
    /// How far the runs of both were watched; where all of them got there, up to the last arrival.
    pub horizon: f64,
    /// What `ratio` says of the ratio of the true means.
    pub reading: Reading,
}

/// A mean that is cut off at the horizon is too small: how that bounds a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Every run got there.
    Exact,
    /// Some of the baseline did not: the true ratio is at least this.
    AtLeast,
    /// Some of the method did not: the true ratio is at most this.
    AtMost,
    /// Some of both did not: the ratio of restricted means, and no bound of another.
    Restricted,
}

/// The ratio of the samples to a level that was fixed ahead, baseline over method, by runs.
///
/// A run that ended below the level is censored, not left out and not counted as if it had arrived: the mean is the area
/// under Kaplan and Meier's estimate of the share that is not there yet, up to the largest number of samples that both
/// methods were watched for (Royston, Parmar 2013, BMC Med. Res. Methodol. 13, 152).
///
/// # Errors
/// No runs of one, a number that is negative or not finite, no resamples; a level that no run reached; one that all runs of a
/// method reach before they learn anything (0 samples); a confidence that is not strictly between 0 and 1.
///
/// ```
/// use qstar::metrics::{Reached::{At, NotBy}, Reading, sample_efficiency};
///
/// let (baseline, method) = ([At(800.0), NotBy(1000.0), At(900.0)], [At(500.0), At(400.0), At(450.0)]);
/// let efficiency = sample_efficiency(&baseline, &method, 0.95, 1_000, 0)?;
/// assert_eq!((efficiency.ratio.mean, efficiency.reading), (2.0, Reading::AtLeast));
/// # anyhow::Ok(())
/// ```
pub fn sample_efficiency(
    baseline: &[Reached],
    method: &[Reached],
    confidence: f64,
    resamples: usize,
    seed: u64,
) -> Result<Efficiency> {
    check_confidence(confidence)?;
    ensure!(resamples > 0, "a bootstrap needs at least one resample");
    let watched = watched(baseline)?.min(watched(method)?);
    // A resample may hold only runs that were censored, so that even then there must be an end.
    let last = baseline.iter().chain(method).map(|run| time(*run)).fold(0.0, f64::max);
    let horizon = if watched.is_finite() { watched } else { last };
    let arrived = |runs: &[Reached]| runs.iter().any(|run| matches!(run, Reached::At(at) if *at <= horizon));
    ensure!(
        arrived(baseline) || arrived(method),
        "no run reached the level: nothing is known of a ratio; choose a lower one"
    );
    let ratio = |baseline: &[Reached], method: &[Reached]| {
        kaplan_meier(baseline, horizon).area / kaplan_meier(method, horizon).area
    };
    let censored = |runs: &[Reached]| kaplan_meier(runs, horizon).left > 0.0;
    let reading = match (censored(baseline), censored(method)) {
        (false, false) => Reading::Exact,
        (true, false) => Reading::AtLeast,
        (false, true) => Reading::AtMost,
        (true, true) => Reading::Restricted,
    };
    let mean = ratio(baseline, method);
    ensure!(
        mean.is_finite() && mean > 0.0,
        "all runs of a method are at the level with 0 samples: choose a level above the start"
    );
    let mut resampled: Vec<f64> = (0..resamples as u64)
        .into_par_iter()
        .map(|resample| {
            let mut rng = rng(seed, Purpose::Bootstrap, resample, 0);
            let mut draw =
                |runs: &[Reached]| (0..runs.len()).map(|_| runs[rng.random_range(0..runs.len())]).collect::<Vec<_>>();
            let (baseline, method) = (draw(baseline), draw(method));
            ratio(&baseline, &method)
        })
        .collect();
    ensure!(
        resampled.iter().all(|x| !x.is_nan()),
        "runs are at the level with 0 samples: choose a level above the start"
    );
    resampled.sort_by(f64::total_cmp);
    let level = |level| quantile_of_sorted(&resampled, level);
    let (low, high) = (level(0.5 * (1.0 - confidence)), level(0.5 * (1.0 + confidence)));
    Ok(Efficiency { ratio: Interval { mean, low, high }, horizon, reading })
}

/// The mean samples to the level, of runs that are watched up to `horizon` at most: the area under Kaplan and Meier's
/// estimate (1958, JASA 53, 457-481). Where the last runs are censored before the horizon, the estimate stays where it was.
///
/// # Errors
/// No runs, a number that is negative or not finite; a horizon that is not positive, or infinite where a run is censored.
pub fn restricted_mean(runs: &[Reached], horizon: f64) -> Result<f64> {
    let watched = watched(runs)?;
    ensure!(
        horizon > 0.0 && (horizon.is_finite() || watched.is_infinite()),
        "a mean up to {horizon} of runs that were watched up to {watched}"
    );
    Ok(kaplan_meier(runs, horizon).area)
}

/// Up to where the share of runs that are not there yet is known: without end once the last has arrived.
fn watched(runs: &[Reached]) -> Result<f64> {
    ensure!(!runs.is_empty(), "samples to a level of no runs");
    let mut last = (0.0, true);
    for (number, run) in runs.iter().enumerate() {
        let at = time(*run);
        ensure!(at.is_finite() && at >= 0.0, "run {number} reached, or did not reach, the level at {at} samples");
        let arrived = matches!(run, Reached::At(_));
        // A run that is censored when another arrives was still on its way.
        if at > last.0 || (at == last.0 && !arrived) {
            last = (at, arrived);
        }
    }
    Ok(if last.1 { f64::INFINITY } else { last.0 })
}

fn time(run: Reached) -> f64 {
    let (Reached::At(at) | Reached::NotBy(at)) = run;
    at
}

struct KaplanMeier {
    /// Under the curve, from 0 to the horizon.
    area: f64,
    /// The share that is not there by the horizon.
    left: f64,
}

fn kaplan_meier(runs: &[Reached], horizon: f64) -> KaplanMeier {
    // At one time, arrivals come before what is censored.
    let mut events: Vec<(f64, bool)> = runs
        .iter()
        .map(|run| match *run {
            Reached::At(at) => (at, false),
            Reached::NotBy(at) => (at, true),
        })
        .collect();
    events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut area, mut left, mut before) = (0.0, 1.0, 0.0);
    for (rank, (at, censored)) in events.iter().enumerate() {
        if *at > horizon {
            break;
        }
        area += left * (at - before);
        before = *at;
        let at_risk = events.len() - rank;
        // One arrival after the other: of r at risk d together leave (1 − 1/r)(1 − 1/(r − 1)) … = 1 − d/r.
        if !censored {
            left *= (at_risk - 1) as f64 / at_risk as f64;
        }
    }
    if left > 0.0 {
        area += left * (horizon - before);
    }
    KaplanMeier { area, left }
}

#[cfg(test)]
mod tests {
    use super::Reached::{At, NotBy};
    use super::*;
    use proptest::prelude::*;

    fn ratio(baseline: &[Reached], method: &[Reached]) -> Efficiency {
        sample_efficiency(baseline, method, 0.9, 200, 0).unwrap()
    }

    #[test]
    fn a_ratio_says_how_to_read_it() {
        let exact = ratio(&[At(2.0), At(4.0)], &[At(1.0), At(1.0)]);
        assert_eq!((exact.ratio.mean, exact.horizon, exact.reading), (3.0, 4.0, Reading::Exact));
        assert_eq!(ratio(&[At(2.0), NotBy(4.0)], &[At(1.0), At(1.0)]).reading, Reading::AtLeast);
        assert_eq!(ratio(&[At(2.0), At(4.0)], &[At(1.0), NotBy(4.0)]).reading, Reading::AtMost);
        assert_eq!(ratio(&[At(2.0), NotBy(4.0)], &[At(1.0), NotBy(4.0)]).reading, Reading::Restricted);
        // What arrives after the other was watched is not there by the horizon.
        let late = ratio(&[At(2.0), At(9.0)], &[At(1.0), NotBy(4.0)]);
        assert_eq!((late.ratio.mean, late.horizon, late.reading), (3.0 / 2.5, 4.0, Reading::Restricted));
    }

    #[test]
    fn nonsense_is_refused() {
        let error = |a: &[Reached], b: &[Reached]| sample_efficiency(a, b, 0.9, 10, 0).unwrap_err().to_string();
        assert!(error(&[], &[At(1.0)]).contains("no runs"));
        assert!(error(&[At(f64::NAN)], &[At(1.0)]).contains("run 0"));
        assert!(error(&[NotBy(5.0)], &[NotBy(5.0)]).contains("no run reached"));
        assert!(error(&[At(5.0)], &[At(0.0)]).contains("above the start"));
        assert!(sample_efficiency(&[At(1.0)], &[At(1.0)], 0.9, 0, 0).is_err());
        assert!(restricted_mean(&[NotBy(5.0)], f64::INFINITY).is_err() && restricted_mean(&[At(5.0)], 0.0).is_err());
    }

    proptest! {
        #[test]
        fn without_censoring_it_is_the_mean(at in prop::collection::vec(1.0..9.0f64, 1..12)) {
            let runs: Vec<Reached> = at.iter().map(|at| At(*at)).collect();
            let mean = at.iter().sum::<f64>() / at.len() as f64;
            prop_assert!((restricted_mean(&runs, f64::INFINITY).unwrap() - mean).abs() < 1e-12);
            // All censored at the horizon: the mean of what was watched.
            let cut: Vec<Reached> = at.iter().map(|at| if *at > 5.0 { NotBy(5.0) } else { At(*at) }).collect();
            let mean = at.iter().map(|at| at.min(5.0)).sum::<f64>() / at.len() as f64;
            prop_assert!((restricted_mean(&cut, 5.0).unwrap() - mean).abs() < 1e-12);
        }

        #[test]
        fn the_inverse_question_has_the_inverse_answer(
            a in prop::collection::vec((1.0..9.0f64, any::<bool>()), 2..8),
            b in prop::collection::vec((1.0..9.0f64, any::<bool>()), 2..8),
        ) {
            let runs = |x: &[(f64, bool)]| x.iter().map(|(at, here)| if *here { At(*at) } else { NotBy(*at) }).collect::<Vec<_>>();
            let (a, b) = (runs(&a), runs(&b));
            let (Ok(ab), Ok(ba)) = (sample_efficiency(&a, &b, 0.9, 20, 0), sample_efficiency(&b, &a, 0.9, 20, 0)) else {
                return Ok(());
            };
            prop_assert!((ab.ratio.mean * ba.ratio.mean - 1.0).abs() < 1e-12);
            prop_assert!(ab.ratio.low <= ab.ratio.high);
        }
    }
}
