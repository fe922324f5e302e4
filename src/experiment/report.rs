//! What came out of a plan: tables, and the same in words.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::Results;
use crate::display::{Html, escape};
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
    /// Weights and effective sample sizes of a method, means over steps and seeds.
    pub struct WeightRow {
        pub method: String,
        pub alpha_mean: Option<f64>,
        pub ess_p: Option<f64>,
        pub ess_t: Option<f64>,
        pub ess_ratio_geometric: Option<f64>,
        pub ess_ratio_near_1: Option<f64>,
        pub w_raw_mean: Option<f64>,
        pub w_raw_max: Option<f64>,
        pub w_raw_cv: Option<f64>,
        pub w_max: Option<f64>,
        pub w_cv: Option<f64>,
        /// Of the raw weights: over tokens, prefixes, whole responses; and of the treated ones over tokens.
        pub ess_token_raw: Option<f64>,
        pub ess_prefix_raw: Option<f64>,
        pub ess_sequence_raw: Option<f64>,
        pub ess_token: Option<f64>,
        pub gradient_variance: Option<f64>,
        pub q_kl_p: Option<f64>,
        pub log_prob_gap: Option<f64>,
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

/// A row a method: α, ESS, weights, gradient variance.
pub fn weight_table(results: &Results) -> Result<DataFrame> {
    let mut rows = Vec::new();
    for method in results.methods() {
        let steps = results.of_method(&method, Kind::Steps)?;
        let of = |name: &str| -> Result<Option<f64>> {
            let all: Vec<f64> = steps.iter().map(|frame| numbers(frame, name)).collect::<Result<Vec<_>>>()?.concat();
            Ok((!all.is_empty()).then(|| mean(&all)))
        };
        rows.push(WeightRow {
            alpha_mean: of("alpha_mean")?,
            ess_p: of("ess_p")?,
            ess_t: of("ess_t")?,
            ess_ratio_geometric: of("ess_ratio_geometric")?,
            ess_ratio_near_1: of("ess_ratio_near_1")?,
            w_raw_mean: of("w_raw_mean")?,
            w_raw_max: of("w_raw_max")?,
            w_raw_cv: of("w_raw_cv")?,
            w_max: of("w_max")?,
            w_cv: of("w_cv")?,
            ess_token_raw: of("ess_token_raw")?,
            ess_prefix_raw: of("ess_prefix_raw")?,
            ess_sequence_raw: of("ess_sequence_raw")?,
            ess_token: of("ess_token")?,
            gradient_variance: of("gradient_variance")?,
            q_kl_p: of("q_kl_p")?,
            log_prob_gap: of("log_prob_gap")?,
            method,
        });
    }
    WeightRow::frame(&rows)
}

/// The first `count` held-out prompts with the first seed's responses before and after training.
pub fn before_and_after(results: &Results, method: &str, count: usize) -> Result<DataFrame> {
    let samples = results.of_method(method, Kind::Samples)?;
    let samples = samples.first().context("the plan has no seed")?;
    let (step, text) = (numbers(samples, "step")?, |name: &str| texts(samples, name));
    let (prompts, responses, rewards) = (text("prompt")?, text("response")?, numbers(samples, "reward")?);
    let last = step.iter().copied().fold(0.0, f64::max);
    let at = |wanted: f64| step.iter().enumerate().filter(move |(_, s)| **s == wanted).map(|(i, _)| i);
    let rows: Vec<BeforeAfterRow> = at(0.0)
        .zip(at(last))
        .take(count)
        .map(|(first, last)| BeforeAfterRow {
            prompt: prompts[first].clone(),
            before: responses[first].clone(),
            reward_before: rewards[first],
            after: responses[last].clone(),
            reward_after: rewards[last],
        })
        .collect();
    BeforeAfterRow::frame(&rows)
}

/// What the numbers say, in sentences; also where q* is not better.
///
/// A difference counts only where two intervals exclude zero: the bootstrap over seeds and prompts, which is too
/// narrow for few seeds, and Student's over the seeds alone, which knows nothing of the prompts.
pub fn in_words(results: &Results) -> Result<Html> {
    let arms = arms(results)?;
    let mut html = String::from("<ul>");
    for arm in &arms {
        let words = ["gained", "lost", "neither gained nor lost for certain:"];
        let (verdict, numbers) = verdict(&arm.before, &arm.after, words)?;
        let _ = write!(html, "<li><b>{}</b> {verdict} {numbers} of held-out reward.</li>", escape(&arm.method));
    }
    if let Some(qstar) = arms.iter().find(|arm| arm.method == "qstar") {
        for other in arms.iter().filter(|arm| arm.method != "qstar") {
            // The same prompts and the same seeds: paired.
            let words = ["ended above", "ended <em>below</em>", "did not end distinguishably from"];
            let (verdict, numbers) = verdict(&other.after, &qstar.after, words)?;
            let _ = write!(html, "<li>qstar {verdict} {}: {numbers}.</li>", escape(&other.method));
        }
    }
    html.push_str(&ess_sentence(results)?);
    html.push_str("</ul>");
    Ok(Html(html))
}

/// Whether `b` lies above `a`, below, or neither, and the difference with its intervals.
fn verdict<'w>(a: &[Vec<f64>], b: &[Vec<f64>], words: [&'w str; 3]) -> Result<(&'w str, String)> {
    let bootstrap = bootstrap_gain(a, b, RESAMPLES, 0)?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| mean(b) - mean(a)).collect();
    let student = t_interval(&differences, 0.95)?;
    let [above, below, neither] = words;
    let word = if bootstrap.low > 0.0 && student.low > 0.0 {
        above
    } else if bootstrap.high < 0.0 && student.high < 0.0 {
        below
    } else {
        neither
    };
    let numbers = format!(
        "{:+.3} (95% interval by bootstrap {:+.3} to {:+.3}, by Student's t over {} seeds {:+.3} to {:+.3})",
        bootstrap.mean,
        bootstrap.low,
        bootstrap.high,
        differences.len(),
        student.low,
        student.high
    );
    Ok((word, numbers))
}

/// Whether ESS_p ≈ ESS_t at q*: the first hypothesis, descriptively.
fn ess_sentence(results: &Results) -> Result<String> {
    let mut ratios = Vec::new();
    let mut near = Vec::new();
    if results.methods().iter().any(|m| m == "qstar") {
        for steps in results.of_method("qstar", Kind::Steps)? {
            ratios.extend(numbers(&steps, "ess_ratio_geometric")?.iter().map(|r| r.ln()));
            near.extend(numbers(&steps, "ess_ratio_near_1")?);
        }
    }
    if ratios.is_empty() {
        return Ok(String::new());
    }
    let ratio = mean(&ratios).exp();
    let verdict = if (0.9..=1.1).contains(&ratio) { "lies in" } else { "lies <em>outside</em> of" };
    Ok(format!(
        "<li>The geometric mean of ESS_p/ESS_t at q* is {ratio:.3}: it {verdict} [0.9, 1.1]. Of the single tokens {:.0}% lie in that interval.</li>",
        100.0 * mean(&near)
    ))
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
