//! Is q* what the theory says?

use anyhow::{Context, Result};

use super::data::finite_of;
use super::{Found, Subject};
use crate::experiment::study::frames::OneRun;
use crate::experiment::study::scores::QSTAR;
use crate::experiment::study::verdict::NEAR_1;
use crate::metrics::mean;

/// α* is expected here; so large a share of tokens has to have it there.
const ALPHA: (f64, f64) = (0.2, 0.8);
const MOST_TOKENS: f64 = 0.9;
/// A raw weight above this is extreme.
const EXTREME: f64 = 100.0;

pub(super) fn balance(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps.filter(|_| subject.method == QSTAR) else {
        return Ok(Found::not_applicable("asked of qstar alone"));
    };
    let logs: Vec<f64> = steps.series("ess_ratio_geometric")?.into_iter().flatten().map(f64::ln).collect();
    if logs.is_empty() {
        return Ok(Found::not_applicable("no step has an ESS_p/ESS_t"));
    }
    Ok(Found::within(mean(&logs).exp(), NEAR_1, "the geometric mean of ESS_p/ESS_t over tokens and steps"))
}

pub(super) fn alpha(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps.filter(|_| subject.method == QSTAR) else {
        return Ok(Found::not_applicable("asked of qstar alone"));
    };
    let bins = histogram(steps)?;
    let all: f64 = bins.iter().sum();
    if all == 0.0 {
        return Ok(Found::not_applicable("no token has an α"));
    }
    let width = 1.0 / bins.len() as f64;
    let inside = |bin: usize| {
        let centre = (bin as f64 + 0.5) * width;
        centre > ALPHA.0 && centre < ALPHA.1
    };
    let share = (0..bins.len()).filter(|bin| inside(*bin)).map(|bin| bins[bin]).sum::<f64>() / all;
    Ok(Found::at_least(share, MOST_TOKENS, "the share of tokens whose α* lies in [0.2, 0.8]"))
}

pub(super) fn weights(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps else { return Ok(Found::not_applicable("there are no steps of this run")) };
    let weights = finite_of(steps, "w_raw_max")?;
    if weights.is_empty() {
        return Ok(Found::not_applicable("the method has no importance weights"));
    }
    let largest = weights.iter().copied().fold(0.0, f64::max);
    Ok(Found::at_most(largest, EXTREME, "the largest weight π_θ/q of all steps, before its treatment"))
}

/// Counts of α in equal bins of \[0, 1\], over all steps.
fn histogram(steps: &OneRun) -> Result<Vec<f64>> {
    let column = steps.rows.column("alpha_histogram").context("there is no column `alpha_histogram`")?;
    let lists = column.list().context("column `alpha_histogram` holds no lists")?;
    let mut bins: Vec<f64> = Vec::new();
    for list in (0..lists.len()).filter_map(|row| lists.get_as_series(row)) {
        for (bin, count) in list.f64().context("column `alpha_histogram` holds lists of no numbers")?.iter().enumerate()
        {
            if bin == bins.len() {
                bins.push(0.0);
            }
            bins[bin] += count.unwrap_or_default();
        }
    }
    Ok(bins)
}
