//! Ablation 2: the treatments of weights, beside each other.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::estimates::{Estimate, mean_of, values};
use super::frames::{Labels, OneRun, comparisons, labelled};
use super::main_table::Against;
use super::rules_table::over_runs;
use super::scores::Scored;
use crate::metrics::mean;
use crate::record::record;

record! {
    /// Weights and effective sample sizes of a method: means over steps, then over seeds; null where it has no weights.
    /// And what it came to, as in [`MainRow`](super::MainRow).
    pub struct TreatmentRow {
        pub seeds: i64,
        /// π_θ/q at the method's level, before its treatment and after.
        pub w_raw_mean: Option<f64>,
        pub w_raw_max: Option<f64>,
        pub w_raw_cv: Option<f64>,
        pub w_mean: Option<f64>,
        pub w_max: Option<f64>,
        pub w_cv: Option<f64>,
        /// (Σw)²/(nΣw²) of raw and of treated weights: over tokens, prefixes, whole responses.
        pub ess_token_raw: Option<f64>,
        pub ess_token: Option<f64>,
        pub ess_prefix_raw: Option<f64>,
        pub ess_prefix: Option<f64>,
        pub ess_sequence_raw: Option<f64>,
        pub ess_sequence: Option<f64>,
        /// The share of steps that starved: raw weights worth less than 1% of the draws, or than two of them.
        pub starved: Option<f64>,
        pub gradient_norm: Option<f64>,
        pub gradient_variance: Option<f64>,
        pub reward: f64,
        pub reward_low: Option<f64>,
        pub reward_high: Option<f64>,
        pub gain: f64,
        pub gain_low: Option<f64>,
        pub gain_high: Option<f64>,
        pub qstar_minus: Option<f64>,
        pub qstar_minus_low: Option<f64>,
        pub qstar_minus_high: Option<f64>,
        pub p_paired: Option<f64>,
        pub p_paired_holm: Option<f64>,
        pub detectable: Option<f64>,
    }
}

/// The table of weights: a row a method.
///
/// # Errors
/// As [`main_table`](super::main_table).
pub fn weight_table(evaluations: &DataFrame, samples: &DataFrame, steps: &DataFrame) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let scored = Scored::all(&comparison)?;
        let against = Against::of(&scored)?;
        for ((runs, own), against) in comparison.methods.iter().zip(&scored).zip(&against) {
            let of = |name: &str| over_runs(&runs.steps, name);
            let (reward, gain) = (Estimate::student(&values(&own.after)), own.gain()?);
            let estimate = against.difference.map(|difference| difference.estimate);
            labels.push(Labels::of_method(&comparison.place, &runs.method));
            rows.push(TreatmentRow {
                seeds: own.after.len() as i64,
                w_raw_mean: of("w_raw_mean")?,
                w_raw_max: of("w_raw_max")?,
                w_raw_cv: of("w_raw_cv")?,
                w_mean: of("w_mean")?,
                w_max: of("w_max")?,
                w_cv: of("w_cv")?,
                ess_token_raw: of("ess_token_raw")?,
                ess_token: of("ess_token")?,
                ess_prefix_raw: of("ess_prefix_raw")?,
                ess_prefix: of("ess_prefix")?,
                ess_sequence_raw: of("ess_sequence_raw")?,
                ess_sequence: of("ess_sequence")?,
                starved: starved(&runs.steps)?,
                gradient_norm: of("gradient_norm")?,
                gradient_variance: of("gradient_variance")?,
                reward: mean(&values(&own.after)),
                reward_low: reward.and_then(|reward| reward.low),
                reward_high: reward.and_then(|reward| reward.high),
                gain: gain.value,
                gain_low: gain.low,
                gain_high: gain.high,
                qstar_minus: estimate.map(|estimate| estimate.value),
                qstar_minus_low: estimate.and_then(|estimate| estimate.low),
                qstar_minus_high: estimate.and_then(|estimate| estimate.high),
                p_paired: against.difference.and_then(|difference| difference.p_paired),
                p_paired_holm: against.p_paired_holm,
                detectable: against.detectable,
            });
        }
    }
    labelled(&TreatmentRow::frame(&rows)?, &labels)
}

/// The share of starved steps over all runs.
pub(super) fn starved(runs: &[OneRun]) -> Result<Option<f64>> {
    let mut shares = Vec::new();
    for run in runs {
        let of_run: Vec<f64> = run.flags("starved")?.into_iter().map(|starved| f64::from(u8::from(starved))).collect();
        shares.extend(mean_of(&of_run));
    }
    Ok(mean_of(&shares))
}
