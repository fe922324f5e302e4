//! Scores of many runs on several tasks as one number, with its uncertainty: Agarwal et al. 2021, arXiv:2108.13264.
//!
//! Scores are `[task][run]`. Tasks are compared by their scores, so these must be on one scale: normalise them first.

use anyhow::{Result, ensure};
use rand::Rng;

use super::bootstrap::{Resampled, finite};
use super::moments::{check_finite, iqm, mean, quantile};
use crate::seed::{Purpose, rng};
use rayon::prelude::*;

/// One number for the scores of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregate {
    /// The mean over tasks of the mean over runs.
    Mean,
    /// The median over tasks of the mean over runs.
    Median,
    /// The interquartile mean over all runs of all tasks: robust, and less noisy than the median.
    Iqm,
    /// By how much all runs fall short of the score that is held for enough, on average; what exceeds it does not count.
    /// The lower the better.
    OptimalityGap(f64),
}

impl Aggregate {
    /// # Errors
    /// No tasks, a task without runs, a score that is not finite.
    ///
    /// ```
    /// use qstar::metrics::Aggregate;
    ///
    /// let scores = [vec![0.0, 0.2, 0.4, 3.0], vec![0.5, 0.7, 0.9, 1.1]];
    /// assert!((Aggregate::Iqm.of(&scores)? - 0.625).abs() < 1e-15);
    /// # anyhow::Ok(())
    /// ```
    pub fn of(self, scores: &[Vec<f64>]) -> Result<f64> {
        check(scores)?;
        Ok(self.value(scores))
    }

    /// With its resamples over the runs of each task, as [`stratified_bootstrap`] makes them.
    ///
    /// # Errors
    /// As [`stratified_bootstrap`].
    pub fn resampled(self, scores: &[Vec<f64>], resamples: usize, seed: u64) -> Result<Resampled> {
        stratified_bootstrap(&[scores], |drawn| self.value(&drawn[0]), resamples, seed)
    }

    fn value(self, scores: &[Vec<f64>]) -> f64 {
        let of_tasks = || scores.iter().map(|runs| mean(runs)).collect::<Vec<_>>();
        match self {
            Aggregate::Mean => mean(&of_tasks()),
            Aggregate::Median => quantile(&of_tasks(), 0.5),
            Aggregate::Iqm => iqm(&scores.concat()),
            Aggregate::OptimalityGap(enough) => {
                enough - mean(&scores.concat().iter().map(|score| score.min(enough)).collect::<Vec<_>>())
            }
        }
    }
}

/// The probability that a run of the first method scores above one of the second on the same task, ties counted half; the
/// mean over tasks (Mann, Whitney 1947: U/(nm) on each).
///
/// # Errors
/// As [`Aggregate::of`]; different numbers of tasks.
///
/// ```
/// let p = qstar::metrics::probability_of_improvement(&[vec![1.0, 3.0]], &[vec![2.0, 3.0]])?;
/// assert_eq!(p, 0.375);
/// # anyhow::Ok(())
/// ```
pub fn probability_of_improvement(x: &[Vec<f64>], y: &[Vec<f64>]) -> Result<f64> {
    check(x)?;
    check(y)?;
    same_tasks(x, y)?;
    Ok(improvement(x, y))
}

/// The same with its resamples over the runs of each task, of each method for itself.
///
/// # Errors
/// As [`stratified_bootstrap`]; different numbers of tasks.
pub fn resampled_improvement(x: &[Vec<f64>], y: &[Vec<f64>], resamples: usize, seed: u64) -> Result<Resampled> {
    same_tasks(x, y)?;
    stratified_bootstrap(&[x, y], |drawn| improvement(&drawn[0], &drawn[1]), resamples, seed)
}

/// The share of all runs that score above `threshold`: one point of a performance profile (Dolan, Moré 2002, Math.
/// Program. 91, 201-213; as score distribution in Agarwal et al.). All tasks weigh the same.
///
/// # Errors
/// As [`Aggregate::of`]; a threshold that is NaN.
pub fn share_above(scores: &[Vec<f64>], threshold: f64) -> Result<f64> {
    check(scores)?;
    ensure!(!threshold.is_nan(), "a profile at a threshold that is NaN");
    Ok(above(scores, threshold))
}

/// The same with its resamples over the runs of each task. One seed gives all thresholds the same resamples.
///
/// # Errors
/// As [`stratified_bootstrap`]; a threshold that is NaN.
pub fn resampled_share_above(scores: &[Vec<f64>], threshold: f64, resamples: usize, seed: u64) -> Result<Resampled> {
    ensure!(!threshold.is_nan(), "a profile at a threshold that is NaN");
    stratified_bootstrap(&[scores], |drawn| above(&drawn[0], threshold), resamples, seed)
}

/// A statistic of the scores `[method][task][run]`, where a resample draws, for every method and task, as many of its runs
/// with replacement. The tasks are those of the study and stay.
///
/// # Errors
/// No methods, no tasks, a task without runs, a score or a statistic that is not finite, no resamples; methods of which no
/// task has two runs: they have nothing to resample.
pub fn stratified_bootstrap(
    scores: &[&[Vec<f64>]],
    statistic: impl Fn(&[Vec<Vec<f64>>]) -> f64 + Sync,
    resamples: usize,
    seed: u64,
) -> Result<Resampled> {
    stratified(scores, statistic, resamples, |resample| {
        let mut rng = rng(seed, Purpose::Bootstrap, resample, 0);
        let runs = |runs: &Vec<f64>| (0..runs.len()).map(|_| rng.random_range(0..runs.len())).collect();
        let mut runs = runs;
        scores.iter().map(|tasks| tasks.iter().map(&mut runs).collect()).collect()
    })
}

/// With the numbers of the drawn runs, `[method][task][draw]`, for every resample.
pub(super) fn stratified(
    scores: &[&[Vec<f64>]],
    statistic: impl Fn(&[Vec<Vec<f64>>]) -> f64 + Sync,
    resamples: usize,
    draw: impl Fn(u64) -> Vec<Vec<Vec<usize>>> + Sync,
) -> Result<Resampled> {
    ensure!(!scores.is_empty(), "a bootstrap of no methods");
    ensure!(resamples > 0, "a bootstrap needs at least one resample");
    scores.iter().try_for_each(|tasks| check(tasks))?;
    ensure!(
        scores.iter().flat_map(|tasks| tasks.iter()).any(|runs| runs.len() > 1),
        "every task has one run: there is nothing to resample"
    );
    let own: Vec<Vec<Vec<f64>>> = scores.iter().map(|tasks| tasks.to_vec()).collect();
    let estimate = finite(statistic(&own))?;
    let one = |resample: u64| {
        let runs = |(runs, drawn): (&Vec<f64>, Vec<usize>)| drawn.into_iter().map(|i| runs[i]).collect();
        let tasks = |(tasks, drawn): (&&[Vec<f64>], Vec<Vec<usize>>)| tasks.iter().zip(drawn).map(runs).collect();
        finite(statistic(&scores.iter().zip(draw(resample)).map(tasks).collect::<Vec<_>>()))
    };
    let statistics = (0..resamples as u64).into_par_iter().map(one).collect::<Result<_>>()?;
    Ok(Resampled { estimate, statistics })
}

fn improvement(x: &[Vec<f64>], y: &[Vec<f64>]) -> f64 {
    let on_task = |(x, y): (&Vec<f64>, &Vec<f64>)| {
        let wins = |x: &f64| y.iter().map(|y| if x > y { 1.0 } else { 0.5 * f64::from(x == y) }).sum::<f64>();
        x.iter().map(wins).sum::<f64>() / (x.len() * y.len()) as f64
    };
    mean(&x.iter().zip(y).map(on_task).collect::<Vec<_>>())
}

fn above(scores: &[Vec<f64>], threshold: f64) -> f64 {
    let share = |runs: &Vec<f64>| runs.iter().filter(|score| **score > threshold).count() as f64 / runs.len() as f64;
    mean(&scores.iter().map(share).collect::<Vec<_>>())
}

fn check(scores: &[Vec<f64>]) -> Result<()> {
    ensure!(!scores.is_empty(), "scores of no tasks");
    for (task, runs) in scores.iter().enumerate() {
        ensure!(!runs.is_empty(), "task number {task} has no runs");
        check_finite(runs, &format!("scores of task number {task}, a list"))?;
    }
    Ok(())
}

fn same_tasks(x: &[Vec<f64>], y: &[Vec<f64>]) -> Result<()> {
    ensure!(x.len() == y.len(), "methods are compared on the same tasks: there are {} and {}", x.len(), y.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        let error = |scores: &[Vec<f64>]| Aggregate::Iqm.of(scores).unwrap_err().to_string();
        assert!(error(&[]).contains("no tasks"));
        assert!(error(&[vec![1.0], vec![]]).contains("task number 1 has no runs"));
        assert!(error(&[vec![1.0], vec![2.0, f64::NAN]]).contains("task number 1"));
        assert!(probability_of_improvement(&[vec![1.0]], &[]).is_err());
        assert!(resampled_improvement(&[vec![1.0, 2.0]], &[vec![1.0], vec![1.0]], 9, 0).is_err());
        assert!(share_above(&[vec![1.0]], f64::NAN).is_err());
        let alone = Aggregate::Mean.resampled(&[vec![1.0], vec![2.0]], 10, 0).unwrap_err().to_string();
        assert!(alone.contains("nothing to resample"), "{alone}");
        assert!(Aggregate::Mean.resampled(&[vec![1.0, 2.0]], 0, 0).is_err());
    }

    #[test]
    fn equal_scores_have_no_width() {
        let scores = [vec![0.5; 3], vec![0.5; 3]];
        for aggregate in [Aggregate::Mean, Aggregate::Median, Aggregate::Iqm, Aggregate::OptimalityGap(1.0)] {
            let interval = aggregate.resampled(&scores, 50, 0).unwrap().percentile(0.95).unwrap();
            assert_eq!((interval.mean, interval.low, interval.high), (0.5, 0.5, 0.5));
        }
        assert_eq!(probability_of_improvement(&scores, &scores).unwrap(), 0.5);
    }

    /// A task with two runs resamples one, the other, or both: its mean has variance (x − y)²/8.
    #[test]
    fn strata_are_resampled_apart() {
        let scores = [vec![0.0, 2.0], vec![100.0, 104.0]];
        let resampled = Aggregate::Mean.resampled(&scores, 20_000, 1).unwrap();
        let expected = ((0.5 + 2.0) / 4.0f64).sqrt();
        assert!((resampled.standard_error() - expected).abs() < 0.01 * expected, "{}", resampled.standard_error());
    }

    /// Five runs of a normal score on each of four tasks: the IQM's percentile interval is known to be somewhat narrow with
    /// few runs (Agarwal et al., figure A.32), and not to be absurd.
    #[test]
    fn the_interval_of_the_iqm_covers() {
        use rand_distr::{Distribution, StandardNormal};
        let covered = (0..300).filter(|trial| {
            let mut rng = rng(*trial, Purpose::Exact, 1, 0);
            let scores: Vec<Vec<f64>> =
                (0..4).map(|_| (0..5).map(|_| StandardNormal.sample(&mut rng)).collect()).collect();
            let interval = Aggregate::Iqm.resampled(&scores, 300, *trial).unwrap().percentile(0.95).unwrap();
            interval.low <= 0.0 && 0.0 <= interval.high
        });
        let covered = covered.count();
        assert!((255..=297).contains(&covered), "{covered} of 300");
    }

    fn scores() -> impl Strategy<Value = Vec<Vec<f64>>> {
        prop::collection::vec(prop::collection::vec(-3.0..3.0f64, 1..6), 3)
    }

    proptest! {
        #[test]
        fn improvements_of_both_sides_add_up_to_one(x in scores(), y in scores()) {
            // Rounded, so that ties occur.
            let round = |x: Vec<Vec<f64>>| x.iter().map(|x| x.iter().map(|x| x.round()).collect()).collect::<Vec<Vec<f64>>>();
            let (x, y) = (round(x), round(y));
            let (xy, yx) = (probability_of_improvement(&x, &y).unwrap(), probability_of_improvement(&y, &x).unwrap());
            prop_assert!((xy + yx - 1.0).abs() < 1e-12);
            // It asks for order alone.
            let cube = |x: &[Vec<f64>]| x.iter().map(|x| x.iter().map(|x| x.powi(3)).collect()).collect::<Vec<Vec<f64>>>();
            prop_assert!((probability_of_improvement(&cube(&x), &cube(&y)).unwrap() - xy).abs() < 1e-12);
        }

        #[test]
        fn profiles_fall_from_one_to_zero(x in scores(), a in -4.0..4.0f64, b in 0.0..1.0f64) {
            prop_assert!(share_above(&x, a).unwrap() >= share_above(&x, a + b).unwrap());
            prop_assert_eq!((share_above(&x, -3.1).unwrap(), share_above(&x, 3.0).unwrap()), (1.0, 0.0));
        }

        #[test]
        fn aggregates_move_with_the_scores(x in scores(), shift in -2.0..2.0f64) {
            let moved: Vec<Vec<f64>> = x.iter().map(|x| x.iter().map(|x| x + shift).collect()).collect();
            for aggregate in [Aggregate::Mean, Aggregate::Median, Aggregate::Iqm] {
                prop_assert!((aggregate.of(&moved).unwrap() - aggregate.of(&x).unwrap() - shift).abs() < 1e-12);
            }
            let gap = |x: &[Vec<f64>], enough| Aggregate::OptimalityGap(enough).of(x).unwrap();
            prop_assert!((gap(&moved, 1.0 + shift) - gap(&x, 1.0)).abs() < 1e-12 && gap(&x, 1.0) >= 0.0);
        }
    }
}
