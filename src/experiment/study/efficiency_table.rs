//! Efficiency: what a gain costs, in time, memory, floating-point operations and rewards.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::estimates::mean_of;
use super::frames::{Labels, MethodRuns, comparisons, labelled};
use super::scores::{ON_POLICY, Scored};
use crate::record::record;

record! {
    /// What a method was charged until its end, mean over seeds, and what it gained. Seconds and memory are measured: they
    /// depend on the machine and on what ran beside. The memory is the largest of the process, which all runs of a plan that
    /// are trained at once share.
    pub struct CostRow {
        pub seeds: i64,
        pub gain: f64,
        pub gain_low: Option<f64>,
        pub gain_high: Option<f64>,
        pub samples: f64,
        pub reward_calls: f64,
        pub flops: f64,
        pub seconds: f64,
        pub peak_memory_mb: Option<f64>,
        /// Relative to `on_policy`; null without it.
        pub relative_samples: Option<f64>,
        pub relative_reward_calls: Option<f64>,
        pub relative_flops: Option<f64>,
        pub relative_seconds: Option<f64>,
        pub relative_memory: Option<f64>,
        /// Efficiency scores: the gain over the relative cost, by operations and by seconds; the interval is that of the gain
        /// alone.
        pub score_flops: Option<f64>,
        pub score_flops_low: Option<f64>,
        pub score_flops_high: Option<f64>,
        pub score_seconds: Option<f64>,
        pub score_seconds_low: Option<f64>,
        pub score_seconds_high: Option<f64>,
        /// Whether no other method of the place gains at least as much for at most the same, and one of both strictly: by the
        /// means alone.
        pub pareto_flops: bool,
        pub pareto_seconds: bool,
    }
}

/// The table of costs: a row a method.
///
/// # Errors
/// As [`main_table`](super::main_table).
pub fn efficiency_table(evaluations: &DataFrame, samples: &DataFrame, steps: &DataFrame) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let scored = Scored::all(&comparison)?;
        let costs: Vec<Cost> = comparison.methods.iter().map(Cost::of).collect::<Result<_>>()?;
        let base = comparison.methods.iter().position(|runs| runs.method == ON_POLICY).map(|at| costs[at]);
        let gains = scored.iter().map(Scored::gain).collect::<Result<Vec<_>>>()?;
        let front = |of: &dyn Fn(&Cost) -> f64| {
            let points: Vec<(f64, f64)> = gains.iter().zip(&costs).map(|(gain, cost)| (gain.value, of(cost))).collect();
            pareto(&points)
        };
        let (by_flops, by_seconds) = (front(&|cost| cost.flops), front(&|cost| cost.seconds));
        for (at, (own, cost)) in scored.iter().zip(&costs).enumerate() {
            let relative = |of: &dyn Fn(&Cost) -> f64| {
                let base = base.as_ref().map(of).filter(|base| *base > 0.0)?;
                Some(of(cost) / base)
            };
            let (flops, seconds) = (relative(&|cost| cost.flops), relative(&|cost| cost.seconds));
            let gain = gains[at];
            let over = |gain: Option<f64>, cost: Option<f64>| Some(gain? / cost.filter(|cost| *cost > 0.0)?);
            let memory = base.and_then(|base| Some(cost.peak_memory_mb? / base.peak_memory_mb?));
            labels.push(Labels::of_method(&comparison.place, &own.method));
            rows.push(CostRow {
                seeds: own.after.len() as i64,
                gain: gain.value,
                gain_low: gain.low,
                gain_high: gain.high,
                samples: cost.samples,
                reward_calls: cost.reward_calls,
                flops: cost.flops,
                seconds: cost.seconds,
                peak_memory_mb: cost.peak_memory_mb,
                relative_samples: relative(&|cost| cost.samples),
                relative_reward_calls: relative(&|cost| cost.reward_calls),
                relative_flops: flops,
                relative_seconds: seconds,
                relative_memory: memory,
                score_flops: over(Some(gain.value), flops),
                score_flops_low: over(gain.low, flops),
                score_flops_high: over(gain.high, flops),
                score_seconds: over(Some(gain.value), seconds),
                score_seconds_low: over(gain.low, seconds),
                score_seconds_high: over(gain.high, seconds),
                pareto_flops: by_flops[at],
                pareto_seconds: by_seconds[at],
            });
        }
    }
    labelled(&CostRow::frame(&rows)?, &labels)
}

/// What the runs of a method were charged, mean over seeds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    samples: f64,
    reward_calls: f64,
    flops: f64,
    seconds: f64,
    peak_memory_mb: Option<f64>,
}

impl Cost {
    fn of(runs: &MethodRuns) -> Result<Self> {
        let last = |name: &str| -> Result<f64> {
            let ends = runs.evaluations.iter().map(|run| Ok(run.all(name)?.last().copied().unwrap_or_default()));
            Ok(mean_of(&ends.collect::<Result<Vec<f64>>>()?).unwrap_or_default())
        };
        let mut memory = Vec::new();
        for run in &runs.steps {
            memory.extend(run.some("peak_memory_mb")?.into_iter().max_by(f64::total_cmp));
        }
        Ok(Self {
            samples: last("samples")?,
            reward_calls: last("reward_calls")?,
            flops: last("flops")?,
            seconds: last("seconds_charged")?,
            peak_memory_mb: mean_of(&memory),
        })
    }
}

/// Which of the (gain, cost) no other dominates.
fn pareto(points: &[(f64, f64)]) -> Vec<bool> {
    let dominates = |a: &(f64, f64), b: &(f64, f64)| a.0 >= b.0 && a.1 <= b.1 && (a.0 > b.0 || a.1 < b.1);
    points.iter().map(|own| !points.iter().any(|other| dominates(other, own))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_holds_what_nothing_dominates() {
        let points = [(1.0, 1.0), (0.5, 1.0), (2.0, 3.0), (2.0, 3.0), (0.9, 0.5), (1.5, 4.0)];
        assert_eq!(pareto(&points), [true, false, true, true, true, false]);
    }
}
