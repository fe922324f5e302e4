//! Which pairs an expensive judge should see, and what its verdicts on them say of all pairs.
//!
//! Taking the pairs on which models differ most, and nothing else, measures those pairs. Drawing them with known
//! probabilities measures all (Horvitz and Thompson 1952, JASA 47, 663-685), with more said where more is to be learned.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::metrics::{Interval, wilson_interval_of_population};
use crate::seed::{Purpose, rng};

/// Rows drawn without replacement from a population, each with a known probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    rows: Vec<usize>,
    /// Of every row of the population.
    probabilities: Vec<f64>,
}

/// Draws `count` rows, each with a probability that grows with its score: (1 − floor) of it in proportion to the score, and
/// `floor` of it the same for all, so that no row is left out for sure. What would exceed 1 is 1. The draw is the pivotal
/// method over a random order (Deville and Tillé 1998, Biometrika 85, 89-101), which has exactly these probabilities and
/// always `count` rows.
///
/// ```
/// let scores = [0.9, 0.0, 0.1, 0.5, 0.5, 0.0];
/// let selection = qstar::judge::select(&scores, 3, 0.2, 0)?;
/// assert_eq!(selection.rows().len(), 3);
/// assert!((selection.probabilities().iter().sum::<f64>() - 3.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// No rows to draw or more than there are, a score that is negative or not finite, a floor outside [0.01, 1].
pub fn select(scores: &[f64], count: usize, floor: f64, seed: u64) -> Result<Selection> {
    check_count(scores.len(), count)?;
    ensure!(
        (0.01..=1.0).contains(&floor),
        "the floor lies from 0.01 to 1, and is not {floor}: without one some pairs are never seen"
    );
    if let Some((row, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite() || **score < 0.0) {
        anyhow::bail!("row {row} has the score {score}; scores are numbers from 0 up");
    }
    // Sums of huge scores stay finite.
    let highest = scores.iter().copied().fold(0.0, f64::max);
    let scaled: Vec<f64> = scores.iter().map(|score| if highest > 0.0 { score / highest } else { 1.0 }).collect();
    let mean = scaled.iter().sum::<f64>() / scaled.len() as f64;
    let sizes: Vec<f64> = scaled.iter().map(|score| (1.0 - floor) * score / mean + floor).collect();
    let probabilities = inclusion_probabilities(&sizes, count);
    let rows = pivotal(&probabilities, count, seed);
    Ok(Selection { rows, probabilities })
}

/// Draws `count` of `population` rows, all with the same probability.
///
/// # Errors
/// No rows to draw or more than there are.
pub fn select_uniformly(population: usize, count: usize, seed: u64) -> Result<Selection> {
    check_count(population, count)?;
    let mut rows: Vec<usize> = (0..population).collect();
    let mut rng = rng(seed, Purpose::Select, 1, 0);
    for i in 0..count {
        rows.swap(i, rng.random_range(i..population));
    }
    rows.truncate(count);
    rows.sort_unstable();
    Ok(Selection { rows, probabilities: vec![count as f64 / population as f64; population] })
}

impl Selection {
    /// The rows that were drawn, ascending.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The probability that a row is drawn, for every row of the population.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The population's mean value: the mean of the guesses plus the Horvitz-Thompson estimate of what they miss. It is
    /// unbiased whatever the guesses are, as long as they were made before the draw; the better they are, the narrower
    /// the interval (Särndal, Swensson, Wretman 1992, section 6.3). `values` are those of [`Selection::rows`], in their order;
    /// `guesses` those of the whole population, for example a cheap judge's, or 1/2 everywhere.
    ///
    /// The interval is Student's, with the variance of Deville's approximation for designs of high entropy (Tillé 2006,
    /// Sampling Algorithms, section 7.5). It has no width when all is drawn for sure, and it is too narrow when only few of
    /// the drawn rows miss their guess: with six misses an interval of 90 % held the truth in 84 % of simulated draws, with
    /// none it has no width.
    ///
    /// # Errors
    /// A missing value or guess, one that is not finite, a confidence that is not strictly between 0 and 1.
    pub fn mean(&self, values: &[f64], guesses: &[f64], confidence: f64) -> Result<Interval> {
        self.check(values, confidence)?;
        let n = self.probabilities.len();
        ensure!(guesses.len() == n, "{} guesses for {n} rows", guesses.len());
        ensure!(guesses.iter().all(|guess| guess.is_finite()), "a guess is not a finite number");
        let missed: Vec<f64> = self.rows.iter().zip(values).map(|(&row, value)| value - guesses[row]).collect();
        let total: f64 = self.weighted(&missed).sum();
        let mean = (guesses.iter().sum::<f64>() + total) / n as f64;
        self.around(mean, &missed, n as f64, confidence)
    }

    /// The mean over those rows of the population that have a value, where only asking shows which have one: none stands
    /// for a drawn row without (a verdict that could not be read). A ratio of two Horvitz-Thompson estimates, as
    /// Hájek's: its bias is of the order of 1 over the number of rows drawn.
    ///
    /// # Errors
    /// As [`Selection::mean`]; no row with a value.
    pub fn mean_of_known(&self, values: &[Option<f64>], confidence: f64) -> Result<Interval> {
        let known: Vec<f64> = values.iter().map(|value| f64::from(value.is_some())).collect();
        let filled: Vec<f64> = values.iter().map(|value| value.unwrap_or(0.0)).collect();
        self.check(&filled, confidence)?;
        let size: f64 = self.weighted(&known).sum();
        ensure!(size > 0.0, "of {} rows that were drawn none has a value", self.rows.len());
        let ratio = self.weighted(&filled).sum::<f64>() / size;
        let residuals: Vec<f64> = filled.iter().zip(&known).map(|(value, known)| value - ratio * known).collect();
        self.around(ratio, &residuals, size, confidence)
    }

    /// For rows that were drawn with one probability and values in [0, 1]: their mean, and Wilson's interval for the
    /// population's, which has no width when all of it was drawn. None stands for a row without a value; the share of
    /// such rows in the population is taken to be that among the drawn.
    ///
    /// # Errors
    /// Rows of different probabilities; no row with a value; as [`Selection::mean`].
    pub fn proportion(&self, values: &[Option<f64>], confidence: f64) -> Result<Interval> {
        let first = self.probabilities[0];
        ensure!(
            self.probabilities.iter().all(|&p| p == first),
            "the rows were drawn with different probabilities: use mean or mean_of_known"
        );
        ensure!(
            values.len() == self.rows.len(),
            "{} values for {} rows that were drawn",
            values.len(),
            self.rows.len()
        );
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        let population = self.probabilities.len() as f64 * known.len() as f64 / values.len() as f64;
        wilson_interval_of_population(known.iter().sum(), known.len(), population, confidence)
    }

    fn check(&self, values: &[f64], confidence: f64) -> Result<()> {
        ensure!(
            values.len() == self.rows.len(),
            "{} values for {} rows that were drawn",
            values.len(),
            self.rows.len()
        );
        if let Some((row, value)) = self.rows.iter().zip(values).find(|(_, value)| !value.is_finite()) {
            anyhow::bail!("row {row} has the value {value}");
        }
        ensure!(confidence > 0.0 && confidence < 1.0, "a confidence lies strictly between 0 and 1: {confidence}");
        Ok(())
    }

    /// Values over the probabilities of their rows.
    fn weighted<'a>(&'a self, values: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.rows.iter().zip(values).map(|(&row, value)| value / self.probabilities[row])
    }

    /// An interval around a mean over `size` rows, of which `residuals` are what varies from draw to draw.
    fn around(&self, mean: f64, residuals: &[f64], size: f64, confidence: f64) -> Result<Interval> {
        // Rows that are drawn for sure add nothing to the variance.
        let uncertain: Vec<(f64, f64)> = self
            .rows
            .iter()
            .zip(self.weighted(residuals))
            .map(|(&row, weighted)| (1.0 - self.probabilities[row], weighted))
            .filter(|(chance, _)| *chance > 0.0)
            .collect();
        let m = uncertain.len() as f64;
        let half = match uncertain.len() {
            0 => 0.0,
            1 => f64::INFINITY,
            _ => {
                let chances: f64 = uncertain.iter().map(|(chance, _)| chance).sum();
                let centre = uncertain.iter().map(|(chance, x)| chance * x).sum::<f64>() / chances;
                let spread: f64 = uncertain.iter().map(|(chance, x)| chance * (x - centre).powi(2)).sum();
                let variance = spread * m / (m - 1.0) / (size * size);
                let quantile = StudentsT::new(0.0, 1.0, m - 1.0).context("degrees of freedom")?;
                quantile.inverse_cdf(0.5 + 0.5 * confidence) * variance.sqrt()
            }
        };
        Ok(Interval { mean, low: mean - half, high: mean + half })
    }
}

fn check_count(population: usize, count: usize) -> Result<()> {
    ensure!(count >= 1 && count <= population, "{count} of {population} pairs cannot be drawn");
    Ok(())
}

/// min(1, c·size) with the c for which they sum to `count`.
fn inclusion_probabilities(sizes: &[f64], count: usize) -> Vec<f64> {
    let mut certain = vec![false; sizes.len()];
    loop {
        let open = count - certain.iter().filter(|&&sure| sure).count();
        let total: f64 = sizes.iter().zip(&certain).filter(|(_, sure)| !**sure).map(|(size, _)| size).sum();
        let probability = |size: f64| open as f64 * size / total;
        let mut more = false;
        for (size, sure) in sizes.iter().zip(&mut certain) {
            if !*sure && probability(*size) >= 1.0 {
                (*sure, more) = (true, true);
            }
        }
        if !more {
            let one = |(size, sure): (&f64, &bool)| if *sure { 1.0 } else { probability(*size) };
            return sizes.iter().zip(&certain).map(one).collect();
        }
    }
}

/// Two rows at a time fight for their chances, until one of them has chance 0 or 1 and another takes its place.
fn pivotal(probabilities: &[f64], count: usize, seed: u64) -> Vec<usize> {
    let mut rng = rng(seed, Purpose::Select, 0, 0);
    let (mut drawn, mut order): (Vec<usize>, Vec<usize>) =
        (0..probabilities.len()).partition(|&row| probabilities[row] >= 1.0);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    let mut order = order.into_iter();
    if let Some(mut holder) = order.next() {
        let mut chance = probabilities[holder];
        for rival in order {
            let other = probabilities[rival];
            let both = chance + other;
            let u: f64 = rng.random();
            if both < 1.0 {
                // One of the two gets the chances of both; the other is out.
                if u * both < other {
                    holder = rival;
                }
                chance = both;
            } else {
                // One of the two is drawn, the other keeps what is left.
                let rest = 2.0 - both;
                let holder_wins = rest <= 0.0 || u * rest < 1.0 - other;
                drawn.push(if holder_wins { holder } else { rival });
                holder = if holder_wins { rival } else { holder };
                chance = both - 1.0;
            }
        }
        // The chances sum to a whole number, so that the last one is 0 or 1 but for rounding.
        if drawn.len() < count {
            drawn.push(holder);
        }
    }
    drawn.sort_unstable();
    drawn
}
