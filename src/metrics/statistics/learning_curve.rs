//! What a learning curve says in one number: the area under it, and when it reached a score that was fixed ahead.

use anyhow::{Result, ensure};

/// When a run's score first reached a level, in the unit of its curve (samples, as a rule).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reached {
    /// At this evaluation.
    At(f64),
    /// Not by the end of the run, which is here: censored.
    NotBy(f64),
}

/// The mean height of a curve of (samples, score) between `from` and `to`: the area under it by the trapezoidal rule, over
/// `to − from`, in the unit of the score. Between two evaluations the curve is straight.
///
/// # Errors
/// A curve of fewer than two evaluations, whose samples do not rise, or with a value that is not finite; `from` not below
/// `to`, or either outside of the curve: what was not measured is not extrapolated.
///
/// ```
/// let curve = [(0.0, 0.0), (10.0, 1.0), (30.0, 1.0)];
/// assert!((qstar::metrics::area_under_curve(&curve, 0.0, 30.0)? - 25.0 / 30.0).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub fn area_under_curve(curve: &[(f64, f64)], from: f64, to: f64) -> Result<f64> {
    check(curve)?;
    let (first, last) = (curve[0].0, curve[curve.len() - 1].0);
    ensure!(curve.len() > 1 && from < to, "an area from {from} to {to} under a curve of {} evaluations", curve.len());
    ensure!(
        first <= from && to <= last,
        "the curve goes from {first} to {last}: its area from {from} to {to} is not known"
    );
    let area = curve.windows(2).map(|ends| {
        let ((x0, y0), (x1, y1)) = (ends[0], ends[1]);
        let (a, b) = (x0.clamp(from, to), x1.clamp(from, to));
        let height = |x: f64| y0 + (y1 - y0) * (x - x0) / (x1 - x0);
        0.5 * (b - a) * (height(a) + height(b))
    });
    Ok(area.sum::<f64>() / (to - from))
}

/// The first evaluation of a curve of (samples, score) at or above `level`. The level must not be chosen from these curves:
/// the best method's half-way mark favours that method.
///
/// # Errors
/// No evaluations, samples that do not rise, a value that is not finite.
///
/// ```
/// use qstar::metrics::{Reached, samples_to};
///
/// let curve = [(0.0, 0.1), (512.0, 0.4), (1024.0, 0.6)];
/// assert_eq!(samples_to(&curve, 0.4)?, Reached::At(512.0));
/// assert_eq!(samples_to(&curve, 0.7)?, Reached::NotBy(1024.0));
/// # anyhow::Ok(())
/// ```
pub fn samples_to(curve: &[(f64, f64)], level: f64) -> Result<Reached> {
    check(curve)?;
    ensure!(level.is_finite(), "a level of {level} is never reached");
    let reached = curve.iter().find(|(_, score)| *score >= level);
    Ok(reached.map_or(Reached::NotBy(curve[curve.len() - 1].0), |(samples, _)| Reached::At(*samples)))
}

fn check(curve: &[(f64, f64)]) -> Result<()> {
    ensure!(!curve.is_empty(), "a curve without evaluations");
    for (row, (samples, score)) in curve.iter().enumerate() {
        ensure!(samples.is_finite() && score.is_finite(), "evaluation {row} is ({samples}, {score}): not finite");
        ensure!(
            row == 0 || curve[row - 1].0 < *samples,
            "evaluation {row} is at {samples}, which is not after {}: sort the curve, and keep one run in it",
            curve[row - 1].0
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_not_measured_is_refused() {
        let curve = [(0.0, 0.0), (10.0, 1.0)];
        assert!(area_under_curve(&curve, 0.0, 11.0).unwrap_err().to_string().contains("is not known"));
        assert!(area_under_curve(&curve, 5.0, 5.0).is_err() && area_under_curve(&curve[..1], 0.0, 0.0).is_err());
        assert!(area_under_curve(&[], 0.0, 1.0).is_err() && samples_to(&[], 0.5).is_err());
        assert!(samples_to(&[(0.0, 0.0), (0.0, 1.0)], 0.5).unwrap_err().to_string().contains("sort the curve"));
        assert!(samples_to(&[(0.0, f64::NAN)], 0.5).is_err() && samples_to(&curve, f64::NAN).is_err());
        assert_eq!(samples_to(&curve, -1.0).unwrap(), Reached::At(0.0));
    }

    proptest! {
        #[test]
        fn areas_add_up(
            steps in prop::collection::vec((0.1..5.0f64, -2.0..2.0f64), 2..12),
            cut in 0.05..0.95f64,
        ) {
            let mut at = 0.0;
            let curve: Vec<(f64, f64)> = steps.iter().map(|(step, y)| { at += step; (at, *y) }).collect();
            let (first, last) = (curve[0].0, at);
            let middle = first + cut * (last - first);
            let area = |from, to| area_under_curve(&curve, from, to).unwrap() * (to - from);
            prop_assert!((area(first, middle) + area(middle, last) - area(first, last)).abs() < 1e-9);
            let mean = area_under_curve(&curve, first, last).unwrap();
            let (low, high) = curve.iter().fold((f64::MAX, f64::MIN), |(l, h), (_, y)| (l.min(*y), h.max(*y)));
            prop_assert!(low - 1e-9 <= mean && mean <= high + 1e-9);
        }
    }
}
