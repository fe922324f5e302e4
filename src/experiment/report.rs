//! What came out of a plan: what was spent and gained, and what the policies say.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::Results;
use crate::metrics::{Interval, bootstrap_gain, mean, t_interval};
use crate::record::{Kind, record};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2_000;

record! {
    /// A method at the end of its runs. Intervals are of 95%.
    pub struct FinalRow {
        pub method: String,
        pub seeds: i64,
        /// Held-out reward of π_θ's own responses: before, after (mean over seeds with Student's interval).
        pub reward_before: f64,
        pub reward_after: f64,
        pub after_low: f64,
        pub after_high: f64,
        /// The gain, by the bootstrap over seeds and prompts.
        pub gain: f64,
        pub gain_low: f64,
        pub gain_high: f64,
        /// Samples until the held-out reward first lies halfway between the start and the best method's
        /// end; null where some seed never does (mean over seeds).
        pub samples_to_half: Option<f64>,
        pub kl: f64,
        pub entropy: f64,
        pub seconds_a_step: f64,
        /// What a run was charged at its end (means over seeds): responses drawn or read, accepted or not, a preference pair
        /// being two; rewards that its updates or its target looked at; floating-point operations of the models, forward
        /// and backward; seconds of wall time without evaluations and checkpoints. At an equal budget one of them agrees
        /// but for the last step.
        pub samples: f64,
        pub reward_calls: f64,
        pub flops: f64,
        pub seconds: f64,
        /// Why the runs ended: `steps`, `budget`, `kl` (the divergence grew too large) or `patience` (no new best reward);
        /// where the seeds differ, each reason with the number of its seeds.
        pub end: String,
    }
}

record! {
    /// One held-out prompt answered before and after training.
    pub struct BeforeAfterRow {
        pub prompt: String,
        pub before: String,
        pub reward_before: f64,
        pub after: String,
        pub reward_after: f64,
    }
}

record! {
    /// One held-out prompt answered by one policy.
    pub struct SideBySideRow {
        pub prompt: String,
        pub method: String,
        pub response: String,
        pub reward: f64,
    }
}

/// The runs of one method: per seed, what is needed to compare.
struct Arm {
    method: String,
    /// Held-out rewards \[seed\]\[prompt\] at the first and at the last evaluation.
    before: Vec<Vec<f64>>,
    after: Vec<Vec<f64>>,
    /// Learning curves \[seed\] of (samples, reward).
    curves: Vec<Vec<(f64, f64)>>,
    kl: f64,
    entropy: f64,
    seconds_a_step: f64,
    /// Samples, reward calls, FLOPs and seconds at the end.
    spent: [f64; 4],
    end: String,
}

/// What an evaluation row says that the training was charged, in the order of [`Arm::spent`].
const SPENT: [&str; 4] = ["samples", "reward_calls", "flops", "seconds_charged"];

impl Arm {
    fn gain(&self) -> Result<Interval> {
        bootstrap_gain(&self.before, &self.after, RESAMPLES, 0)
    }

    fn final_rewards(&self) -> Vec<f64> {
        self.after.iter().map(|prompts| mean(prompts)).collect()
    }
}

/// A row a method: reward before and after, gain, samples, KL, entropy, time; what was spent, and why the runs ended.
pub fn final_table(results: &Results) -> Result<DataFrame> {
    let arms = arms(results)?;
    let half = half_way(&arms);
    let row = |arm: &Arm| -> Result<FinalRow> {
        let (gain, last) = (arm.gain()?, t_interval(&arm.final_rewards(), 0.95)?);
        let [samples, reward_calls, flops, seconds] = arm.spent;
        Ok(FinalRow {
            method: arm.method.clone(),
            seeds: arm.after.len() as i64,
            reward_before: mean(&arm.before.iter().map(|x| mean(x)).collect::<Vec<_>>()),
            reward_after: last.mean,
            after_low: last.low,
            after_high: last.high,
            gain: gain.mean,
            gain_low: gain.low,
            gain_high: gain.high,
            samples_to_half: samples_to(arm, half),
            kl: arm.kl,
            entropy: arm.entropy,
            seconds_a_step: arm.seconds_a_step,
            samples,
            reward_calls,
            flops,
            seconds,
            end: arm.end.clone(),
        })
    };
    FinalRow::frame(&arms.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// The first `count` held-out prompts with the first seed's responses before and after training.
pub fn before_and_after(results: &Results, method: &str, count: usize) -> Result<DataFrame> {
    let mut rows = both_ends(results, method)?;
    rows.truncate(count);
    BeforeAfterRow::frame(&rows)
}

/// The `count` held-out prompts on which the first seed's reward rose most in training, then those on which it fell most, the
/// deepest fall last; of equal changes the first.
pub fn extremes(results: &Results, method: &str, count: usize) -> Result<DataFrame> {
    let mut rows = both_ends(results, method)?;
    let change = |row: &BeforeAfterRow| row.reward_after - row.reward_before;
    rows.sort_by(|a, b| change(b).total_cmp(&change(a)));
    let (rose, fell) = (|row: &&BeforeAfterRow| change(row) > 0.0, |row: &&BeforeAfterRow| change(row) < 0.0);
    let risen: Vec<BeforeAfterRow> = rows.iter().filter(rose).take(count).cloned().collect();
    let mut fallen: Vec<BeforeAfterRow> = rows.iter().rev().filter(fell).take(count).cloned().collect();
    fallen.reverse();
    BeforeAfterRow::frame(&[risen, fallen].concat())
}

/// The first `count` held-out prompts, each answered by π_init and by the first seed's trained policy of every method.
pub fn side_by_side(results: &Results, count: usize) -> Result<DataFrame> {
    let methods = results.methods();
    let ends = methods.iter().map(|method| both_ends(results, method)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for prompt in 0..count.min(ends.first().map_or(0, Vec::len)) {
        let row = |method: &str, response: &str, reward: f64| SideBySideRow {
            prompt: ends[0][prompt].prompt.clone(),
            method: method.to_string(),
            response: response.to_string(),
            reward,
        };
        rows.push(row("π_init", &ends[0][prompt].before, ends[0][prompt].reward_before));
        for (method, of_method) in methods.iter().zip(&ends) {
            let found = of_method.get(prompt).context("all methods are evaluated on the same prompts")?;
            rows.push(row(method, &found.after, found.reward_after));
        }
    }
    SideBySideRow::frame(&rows)
}

/// The first seed's responses to every held-out prompt before and after training.
fn both_ends(results: &Results, method: &str) -> Result<Vec<BeforeAfterRow>> {
    let samples = results.of_method(method, Kind::Samples)?;
    let samples = samples.first().with_context(|| format!("there is no run of {method}"))?;
    let (step, text) = (numbers(samples, "step")?, |name: &str| texts(samples, name));
    let (prompts, responses, rewards) = (text("prompt")?, text("response")?, numbers(samples, "reward")?);
    let last = step.iter().copied().fold(0.0, f64::max);
    let at = |wanted: f64| step.iter().enumerate().filter(move |(_, s)| **s == wanted).map(|(i, _)| i);
    let both = |(first, last): (usize, usize)| BeforeAfterRow {
        prompt: prompts[first].clone(),
        before: responses[first].clone(),
        reward_before: rewards[first],
        after: responses[last].clone(),
        reward_after: rewards[last],
    };
    Ok(at(0.0).zip(at(last)).map(both).collect())
}

fn arms(results: &Results) -> Result<Vec<Arm>> {
    results.methods().into_iter().map(|method| arm(results, method)).collect()
}

fn arm(results: &Results, method: String) -> Result<Arm> {
    let (mut before, mut after, mut curves) = (Vec::new(), Vec::new(), Vec::new());
    for samples in results.of_method(&method, Kind::Samples)? {
        let (step, reward) = (numbers(&samples, "step")?, numbers(&samples, "reward")?);
        let last = step.iter().copied().fold(0.0, f64::max);
        let at = |wanted: f64| step.iter().zip(&reward).filter(|(s, _)| **s == wanted).map(|(_, r)| *r).collect();
        before.push(at(0.0));
        after.push(at(last));
    }
    let (mut kl, mut entropy, mut spent) = (Vec::new(), Vec::new(), [const { Vec::new() }; 4]);
    for evaluations in results.of_method(&method, Kind::Evaluations)? {
        let (samples, reward) = (numbers(&evaluations, "samples")?, numbers(&evaluations, "reward")?);
        curves.push(samples.into_iter().zip(reward).collect());
        kl.extend(numbers(&evaluations, "kl")?.last());
        entropy.extend(numbers(&evaluations, "entropy")?.last());
        // The end of a run is evaluated.
        for (spent, name) in spent.iter_mut().zip(SPENT) {
            spent.extend(numbers(&evaluations, name)?.last());
        }
    }
    let seconds: Vec<f64> = results
        .of_method(&method, Kind::Steps)?
        .iter()
        .map(|s| numbers(s, "seconds"))
        .collect::<Result<Vec<_>>>()?
        .concat();
    Ok(Arm {
        end: reasons(&results.ends(&method)?),
        method,
        before,
        after,
        curves,
        kl: mean(&kl),
        entropy: mean(&entropy),
        seconds_a_step: mean(&seconds),
        spent: spent.map(|of_seeds| mean(&of_seeds)),
    })
}

/// One reason where all seeds have it, else each with the number of its seeds.
fn reasons(ends: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    ends.iter().for_each(|end| *counts.entry(end).or_default() += 1);
    match counts.len() {
        1 => ends[0].clone(),
        _ => counts.iter().map(|(end, count)| format!("{end} {count}")).collect::<Vec<_>>().join(", "),
    }
}

/// Halfway between the start and the best method's end.
fn half_way(arms: &[Arm]) -> f64 {
    let starts: Vec<f64> = arms.iter().flat_map(|arm| arm.before.iter().map(|x| mean(x))).collect();
    let best = arms.iter().map(|arm| mean(&arm.final_rewards())).fold(f64::NEG_INFINITY, f64::max);
    0.5 * (mean(&starts) + best)
}

fn samples_to(arm: &Arm, level: f64) -> Option<f64> {
    let reached: Option<Vec<f64>> = arm
        .curves
        .iter()
        .map(|curve| curve.iter().find(|(_, reward)| *reward >= level).map(|(samples, _)| *samples))
        .collect();
    reached.map(|samples| mean(&samples))
}

/// A column's numbers, nulls left out.
fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    let column = frame.column(name)?.cast(&polars::prelude::DataType::Float64)?;
    Ok(column.f64()?.iter().flatten().collect())
}

fn texts(frame: &DataFrame, name: &str) -> Result<Vec<String>> {
    Ok(frame.column(name)?.str()?.iter().map(|text| text.unwrap_or_default().to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_where_seeds_differ() {
        let of = |ends: &[&str]| reasons(&ends.iter().map(|end| end.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["budget", "budget"]), "budget");
        assert_eq!(of(&["steps", "kl", "steps"]), "kl 1, steps 2");
    }
}
