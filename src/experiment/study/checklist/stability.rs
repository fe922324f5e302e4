//! Did the training go on as it should?

use anyhow::Result;

use super::data::finite_of;
use super::{Found, Subject};
use crate::experiment::study::weight_table::starved;
use crate::method::{Method, Objective};
use crate::metrics::{mean, quantile};

/// The largest gradient norm over the median one, and the last median over the first one.
const EXPLODED: f64 = 10.0;
const VANISHED: f64 = 0.01;
/// KL(π_θ‖π_init) of a held-out response, in nats.
const FAR: f64 = 20.0;
/// Fewer steps have no first and last fifth.
const FEWEST: usize = 5;

/// Of maximum likelihood and of preferences the loss of the updates; of all else the loss that they share, −(reward − β KL) on
/// held-out prompts, for that of a policy gradient measures nothing.
pub(super) fn loss(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps else { return Ok(Found::not_applicable("there are no steps of this run")) };
    let objective = Method::by_name(subject.method).ok().map(|method| method.objective);
    if let Some(Objective::MaximumLikelihood | Objective::Dpo(_)) = objective {
        let losses = finite_of(steps, "loss")?;
        let Some((first, last)) = fifths(&losses) else {
            return Ok(Found::not_applicable(format!("{} steps have no first and last fifth", losses.len())));
        };
        let (first, last) = (mean(first), mean(last));
        let reason =
            format!("the mean loss of the first fifth of the steps is {first:.4}, of the last {last:.4}; the change");
        return Ok(Found::at_most(last - first, 0.0, reason));
    }
    let beta = finite_of(steps, "kl_coefficient")?.last().copied().unwrap_or_default();
    let rewards = subject.evaluations.series("reward")?;
    let divergences = subject.evaluations.series("kl")?;
    let losses: Vec<f64> = rewards.iter().zip(&divergences).filter_map(|(r, kl)| Some(beta * (*kl)? - (*r)?)).collect();
    let (Some(first), Some(last)) = (losses.first(), losses.last()) else {
        return Ok(Found::not_applicable("no evaluation has a reward and a KL"));
    };
    let reason =
        format!("−(reward − β KL) on held-out prompts, β = {beta}, went from {first:.4} to {last:.4}; the change");
    Ok(Found::at_most(last - first, 0.0, reason))
}

pub(super) fn explosion(subject: &Subject) -> Result<Found> {
    let Some(norms) = norms(subject)? else { return Ok(Found::not_applicable("no step has a gradient")) };
    let largest = norms.iter().copied().fold(0.0, f64::max);
    let ratio = largest / quantile(&norms, 0.5);
    Ok(Found::at_most(ratio, EXPLODED, "the largest gradient norm, before clipping, over the median one"))
}

pub(super) fn vanishing(subject: &Subject) -> Result<Found> {
    let Some(norms) = norms(subject)? else { return Ok(Found::not_applicable("no step has a gradient")) };
    let Some((first, last)) = fifths(&norms) else {
        return Ok(Found::not_applicable(format!("{} steps have no first and last fifth", norms.len())));
    };
    let ratio = quantile(last, 0.5) / quantile(first, 0.5);
    Ok(Found::at_least(
        ratio,
        VANISHED,
        "the median gradient norm of the last fifth of the steps over that of the first",
    ))
}

pub(super) fn divergence(subject: &Subject) -> Result<Found> {
    let divergences: Vec<f64> = subject.evaluations.series("kl")?.into_iter().flatten().collect();
    if divergences.is_empty() {
        return Ok(Found::not_applicable("no evaluation has a KL"));
    }
    // A NaN is no smaller than any number.
    let largest =
        divergences.iter().copied().fold(0.0, |a: f64, b| if b.is_nan() || a.is_nan() { f64::NAN } else { a.max(b) });
    Ok(Found::at_most(largest, FAR, "the largest KL(π_θ‖π_init) of a held-out response, nats"))
}

pub(super) fn starving(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps else { return Ok(Found::not_applicable("there are no steps of this run")) };
    let share = starved(std::slice::from_ref(steps))?.unwrap_or_default();
    Ok(Found::at_most(
        share,
        0.0,
        "the share of steps that accepted less than 1%, or whose raw weights are worth as little",
    ))
}

fn norms(subject: &Subject) -> Result<Option<Vec<f64>>> {
    let Some(steps) = subject.steps else { return Ok(None) };
    let norms: Vec<f64> = steps.series("gradient_norm")?.into_iter().flatten().collect();
    Ok((!norms.is_empty()).then_some(norms))
}

fn fifths(values: &[f64]) -> Option<(&[f64], &[f64])> {
    let n = values.len() / FEWEST;
    (n > 0).then(|| (&values[..n], &values[values.len() - n..]))
}
