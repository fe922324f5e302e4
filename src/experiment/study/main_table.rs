//! Table 1: all methods beside each other.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::estimates::{Difference, Estimate, detectable_sd, holm_of, mean_of, values};
use super::frames::{Comparison, Labels, comparisons, labelled};
use super::level_of;
use super::scores::{Fewer, ON_POLICY, QSTAR, SFT, Scored, common_range, win_rate};
use crate::metrics::mean;
use crate::record::record;

record! {
    /// A method at the end of its runs. Intervals are of 95%; one seed has none. What a frame or a method that is not
    /// there would be needed for is null.
    pub struct MainRow {
        pub seeds: i64,
        /// Held-out reward of π_θ's own responses: before training, and after it (mean over seeds, Student's interval).
        pub reward_before: f64,
        pub reward: f64,
        pub reward_low: Option<f64>,
        pub reward_high: Option<f64>,
        /// The gain, by the crossed bootstrap over seeds and prompts.
        pub gain: f64,
        pub gain_low: Option<f64>,
        pub gain_high: Option<f64>,
        /// The share of held-out prompts with a better response than that of `sft` with the same seed and setting, ties
        /// half; by the crossed bootstrap over seeds and prompts.
        pub win_rate: Option<f64>,
        pub win_rate_low: Option<f64>,
        pub win_rate_high: Option<f64>,
        /// How many times fewer samples than `on_policy` to `level`, which was fixed ahead; how many runs got there; and what
        /// the ratio says of that of the true means: `exact`, `at least`, `at most`, `restricted`.
        pub level: Option<f64>,
        pub efficiency: Option<f64>,
        pub efficiency_low: Option<f64>,
        pub efficiency_high: Option<f64>,
        pub efficiency_reading: Option<String>,
        pub reached: Option<f64>,
        /// Mean height of the learning curve over the samples that all methods of the place have in common.
        pub area: Option<f64>,
        pub area_low: Option<f64>,
        pub area_high: Option<f64>,
        /// Stability: the standard deviation over seeds of the last reward, and the mean distance of it from the run's best.
        pub reward_sd: Option<f64>,
        pub drop_from_best: f64,
        /// ESS_p/ESS_t of what was drawn from a mixture: geometric mean.
        pub ess_ratio: Option<f64>,
        pub ess_ratio_low: Option<f64>,
        pub ess_ratio_high: Option<f64>,
        /// KL(π_θ‖π_init) of a held-out response, in nats.
        pub kl: f64,
        /// The last reward of `qstar` less that of the method, over the seeds of both, with Student's interval of the pairs;
        /// p-values of the paired and of Welch's test, and after Holm's correction over the methods of the place.
        pub qstar_minus: Option<f64>,
        pub qstar_minus_low: Option<f64>,
        pub qstar_minus_high: Option<f64>,
        pub p_paired: Option<f64>,
        pub p_paired_holm: Option<f64>,
        pub p_welch: Option<f64>,
        pub p_welch_holm: Option<f64>,
        /// The true difference that the paired test would have found with a probability of 0.8 at Holm's strictest level
        /// (0.05 over the number of methods): in reward, and in standard deviations of the pairs' differences.
        pub detectable: Option<f64>,
        pub detectable_sd: Option<f64>,
    }
}

/// Table 1: a row a task, size, target, method and setting. `levels` are the held-out rewards that were fixed ahead,
/// (task, reward), as [`World::level`](crate::experiment::World::level) gives them; a task without one has no sample
/// efficiency.
///
/// # Errors
/// Frames without the columns of [`EvaluationRow`](crate::record::EvaluationRow), [`SampleRow`](crate::record::SampleRow) and
/// [`StepRow`](crate::record::StepRow) with the labels of runs in front; a reward that is not finite; runs mixed up under
/// one label; a level at which all runs begin.
pub fn main_table(
    evaluations: &DataFrame,
    samples: &DataFrame,
    steps: &DataFrame,
    levels: &[(&str, f64)],
) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let level = level_of(levels, &comparison.place.task)?;
        let (names, of_place) = of_place(&comparison, level)?;
        labels.extend(names);
        rows.extend(of_place);
    }
    labelled(&MainRow::frame(&rows)?, &labels)
}

fn of_place(comparison: &Comparison, level: Option<f64>) -> Result<(Vec<Labels>, Vec<MainRow>)> {
    let scored = Scored::all(comparison)?;
    let against = Against::of(&scored)?;
    let range = common_range(&scored);
    let find = |name: &str| scored.iter().find(|scored| scored.method == name);
    let mut rows = Vec::new();
    for (own, against) in scored.iter().zip(&against) {
        let (gain, reward) = (own.gain()?, Estimate::student(&values(&own.after)));
        let win = find(SFT).filter(|sft| sft.method != own.method).map(|sft| win_rate(own, sft)).transpose()?.flatten();
        let fewer = level.zip(find(ON_POLICY)).map(|(level, base)| Fewer::of(base, own, level)).transpose()?;
        let ratio = fewer.as_ref().and_then(|fewer| fewer.ratio);
        let area = Estimate::student(&values(&own.areas(range)));
        let ess = own.ess_ratio();
        let Against { difference, p_paired_holm, p_welch_holm, detectable, detectable_sd } = *against;
        let estimate = difference.map(|difference| difference.estimate);
        rows.push(MainRow {
            seeds: own.after.len() as i64,
            reward_before: mean(&values(&own.before)),
            reward: mean(&values(&own.after)),
            reward_low: reward.and_then(|reward| reward.low),
            reward_high: reward.and_then(|reward| reward.high),
            gain: gain.value,
            gain_low: gain.low,
            gain_high: gain.high,
            win_rate: win.map(|win| win.value),
            win_rate_low: win.and_then(|win| win.low),
            win_rate_high: win.and_then(|win| win.high),
            level,
            efficiency: ratio.map(|ratio| ratio.value),
            efficiency_low: ratio.and_then(|ratio| ratio.low),
            efficiency_high: ratio.and_then(|ratio| ratio.high),
            efficiency_reading: fewer.as_ref().and_then(|fewer| fewer.reading).map(str::to_owned),
            reached: fewer.map(|fewer| fewer.reached as f64),
            area: area.map(|area| area.value),
            area_low: area.and_then(|area| area.low),
            area_high: area.and_then(|area| area.high),
            reward_sd: own.reward_sd(),
            drop_from_best: own.drop_from_best(),
            ess_ratio: ess.map(|ess| ess.value),
            ess_ratio_low: ess.and_then(|ess| ess.low),
            ess_ratio_high: ess.and_then(|ess| ess.high),
            kl: mean_of(&values(&own.kl)).unwrap_or(f64::NAN),
            qstar_minus: estimate.map(|estimate| estimate.value),
            qstar_minus_low: estimate.and_then(|estimate| estimate.low),
            qstar_minus_high: estimate.and_then(|estimate| estimate.high),
            p_paired: difference.and_then(|difference| difference.p_paired),
            p_paired_holm,
            p_welch: difference.and_then(|difference| difference.p_welch),
            p_welch_holm,
            detectable,
            detectable_sd,
        });
    }
    let labels = scored.iter().map(|own| Labels::of_method(&comparison.place, &own.method)).collect();
    Ok((labels, rows))
}

/// `qstar` less a method, by the last reward; all null for `qstar` itself and where there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Against {
    pub difference: Option<Difference>,
    pub p_paired_holm: Option<f64>,
    pub p_welch_holm: Option<f64>,
    pub detectable: Option<f64>,
    pub detectable_sd: Option<f64>,
}

impl Against {
    /// One for each of the methods of a place, corrected over all of them.
    pub fn of(scored: &[Scored]) -> Result<Vec<Self>> {
        let qstar = scored.iter().find(|scored| scored.method == QSTAR);
        let difference = |own: &Scored| {
            let qstar = qstar.filter(|qstar| qstar.method != own.method)?;
            Difference::of(&qstar.after, &own.after)
        };
        let differences: Vec<Option<Difference>> = scored.iter().map(difference).collect();
        let tests = differences.iter().flatten().count();
        let paired: Vec<_> = differences.iter().map(|difference| difference.and_then(|found| found.p_paired)).collect();
        let welch: Vec<_> = differences.iter().map(|difference| difference.and_then(|found| found.p_welch)).collect();
        let (paired, welch) = (holm_of(&paired)?, holm_of(&welch)?);
        let corrected = differences.into_iter().zip(paired.into_iter().zip(welch));
        let against = |(difference, (p_paired_holm, p_welch_holm)): (Option<Difference>, _)| Self {
            difference,
            p_paired_holm,
            p_welch_holm,
            detectable: difference.and_then(|found| found.detectable(tests)),
            detectable_sd: difference.and_then(|found| detectable_sd(found.seeds, tests)),
        };
        Ok(corrected.map(against).collect())
    }
}
