//! How good a reward model is on pairs that it was not trained on.

use anyhow::{Result, ensure};

use super::{Preferences, RewardModel};
use crate::metrics::{calibration_error, mean, reliability, sd, t_interval, wilson_interval};
use crate::record::record;

record! {
    /// A reward model on held-out pairs. Intervals are of 95 % and take pairs for independent: they are too narrow where
    /// many pairs share a prompt. Rewards are in nats of preference: a margin of d means odds of e^d.
    pub struct RewardEvaluationRow {
        pub pairs: i64,
        /// Pairs of equal sequences, which are not among `pairs`.
        pub equal: i64,
        /// Pairs of which both got the same reward; each counts as half right.
        pub ties: i64,
        /// The share of pairs of which the chosen one got the higher reward, and Wilson's interval.
        pub accuracy: f64,
        pub accuracy_low: f64,
        pub accuracy_high: f64,
        /// r(chosen) − r(rejected): mean, its t-interval, standard deviation over pairs.
        pub margin: f64,
        pub margin_low: f64,
        pub margin_high: f64,
        pub margin_sd: f64,
        /// The mean of −log σ(r(chosen) − r(rejected)), in nats; without a margin. Guessing gets log 2.
        pub log_loss: f64,
        /// The expected calibration error over the bins.
        pub calibration_error: f64,
    }
}

record! {
    /// One bin of the calibration: among the pairs whose likelier side the model gives a probability from `low` to
    /// `high`, how often that side was the chosen one.
    pub struct CalibrationRow {
        pub low: f64,
        pub high: f64,
        pub pairs: i64,
        /// The mean probability in the bin; null for an empty one.
        pub predicted: Option<f64>,
        /// The share of pairs of which the likelier side was the chosen one, and Wilson's interval of 95 %.
        pub observed: Option<f64>,
        pub observed_low: Option<f64>,
        pub observed_high: Option<f64>,
    }
}

/// What [`evaluate_preferences`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferenceEvaluation {
    pub row: RewardEvaluationRow,
    pub calibration: Vec<CalibrationRow>,
}

/// Scores both sides of every pair.
///
/// # Errors
/// A sequence that the model cannot read, a score that is not a number; the pair is named.
pub fn evaluate_preferences(model: &RewardModel, preferences: &Preferences) -> Result<PreferenceEvaluation> {
    preferences.check(&model.network)?;
    let pairs = preferences.pairs();
    // Both sides at once, so that batches are of similar lengths.
    let sides = pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected));
    let scores = model.scores(&sides.cloned().collect::<Vec<_>>())?;
    let (chosen, rejected) = scores.split_at(pairs.len());
    let mut evaluation = PreferenceEvaluation::of_scores(chosen, rejected)?;
    evaluation.row.equal = preferences.equal().len() as i64;
    Ok(evaluation)
}

const CONFIDENCE: f64 = 0.95;

/// Bins of the likelier side's probability, from 1/2 to 1.
const BINS: usize = 10;

impl PreferenceEvaluation {
    /// From the rewards of both sides, pair by pair.
    ///
    /// Which side of a pair stands first is a convention, so calibration looks at the side that the model takes for the
    /// likelier one: its probability σ(|d|) lies between 1/2 and 1.
    ///
    /// # Errors
    /// No pairs, sides of different numbers, a reward that is not finite.
    pub fn of_scores(chosen: &[f64], rejected: &[f64]) -> Result<Self> {
        ensure!(!chosen.is_empty() && chosen.len() == rejected.len(), "rewards do not come in pairs");
        for (pair, (c, r)) in chosen.iter().zip(rejected).enumerate() {
            ensure!(c.is_finite() && r.is_finite(), "pair {pair} has the rewards {c} and {r}");
        }
        let margins: Vec<f64> = chosen.iter().zip(rejected).map(|(c, r)| c - r).collect();
        let right: Vec<f64> = margins.iter().map(|&d| if d == 0.0 { 0.5 } else { f64::from(d > 0.0) }).collect();
        let likelier: Vec<f64> = margins.iter().map(|d| 1.0 / (1.0 + (-d.abs()).exp())).collect();
        let losses: Vec<f64> = margins.iter().map(|d| (-d.abs()).exp().ln_1p() + (-d).max(0.0)).collect();
        let bins = reliability(&likelier, &right, (0.5, 1.0), BINS)?;
        let accuracy = wilson_interval(right.iter().sum(), right.len(), CONFIDENCE)?;
        let margin = t_interval(&margins, CONFIDENCE)?;
        let row = RewardEvaluationRow {
            pairs: margins.len() as i64,
            equal: 0,
            ties: margins.iter().filter(|&&d| d == 0.0).count() as i64,
            accuracy: accuracy.mean,
            accuracy_low: accuracy.low,
            accuracy_high: accuracy.high,
            margin: margin.mean,
            margin_low: margin.low,
            margin_high: margin.high,
            margin_sd: sd(&margins),
            log_loss: mean(&losses),
            calibration_error: calibration_error(&bins),
        };
        let calibration: Result<Vec<_>> = bins
            .into_iter()
            .map(|bin| {
                let observed =
                    bin.observed.map(|share| wilson_interval(share * bin.count as f64, bin.count, CONFIDENCE));
                let observed = observed.transpose()?;
                Ok(CalibrationRow {
                    low: bin.low,
                    high: bin.high,
                    pairs: bin.count as i64,
                    predicted: bin.predicted,
                    observed: bin.observed,
                    observed_low: observed.map(|interval| interval.low),
                    observed_high: observed.map(|interval| interval.high),
                })
            })
            .collect();
        Ok(Self { row, calibration: calibration? })
    }
}
