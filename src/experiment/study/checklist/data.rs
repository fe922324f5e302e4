//! Are the numbers of a run numbers, without wild ones, of responses that differ?

use anyhow::Result;
use polars::prelude::DataType;

use super::{Found, Subject};
use crate::experiment::study::frames::OneRun;
use crate::metrics::quantile;

/// A step's mean reward is an outlier where it jumps by more than so many robust deviations from one step to the next.
const JUMP: f64 = 6.0;
/// Fewer steps have no deviation to speak of.
const FEWEST: usize = 10;
/// The normal's deviation over its median absolute one.
const ROBUST: f64 = 1.482_602_218_505_602;
/// The share of distinct bigrams that has to be left at the end.
const DIVERSE: f64 = 0.5;

pub(super) fn finite(subject: &Subject) -> Result<Found> {
    let frames = [("evaluations", Some(subject.evaluations)), ("steps", subject.steps), ("samples", subject.samples)];
    let (mut count, mut columns) = (0, Vec::new());
    for (frame, run) in frames.into_iter().filter_map(|(frame, run)| Some((frame, run?))) {
        for column in run.rows.columns().iter().filter(|column| column.dtype() == &DataType::Float64) {
            let wrong = run.series(column.name())?.iter().flatten().filter(|x| !x.is_finite()).count();
            if wrong > 0 {
                count += wrong;
                columns.push(format!("{wrong} in `{}` of the {frame}", column.name()));
            }
        }
    }
    let reason = match columns.is_empty() {
        true => "every number is finite".to_owned(),
        false => format!("not finite: {}", columns.join(", ")),
    };
    Ok(Found::at_most(count as f64, 0.0, reason))
}

pub(super) fn outliers(subject: &Subject) -> Result<Found> {
    let Some(steps) = subject.steps else { return Ok(Found::not_applicable("there are no steps of this run")) };
    let rewards = finite_of(steps, "q_reward")?;
    if rewards.len() < FEWEST {
        return Ok(Found::not_applicable(format!("{} steps have no spread to speak of", rewards.len())));
    }
    let jumps: Vec<f64> = rewards.windows(2).map(|two| two[1] - two[0]).collect();
    let centre = quantile(&jumps, 0.5);
    let away: Vec<f64> = jumps.iter().map(|jump| (jump - centre).abs()).collect();
    let deviation = ROBUST * quantile(&away, 0.5);
    if deviation <= 0.0 {
        return Ok(Found::not_applicable("the reward of most steps does not move at all"));
    }
    let (at, largest) =
        away.iter().enumerate().fold((0, 0.0), |found, (at, away)| if *away > found.1 { (at, *away) } else { found });
    let reason =
        format!("the largest jump of the drawn responses' mean reward, in robust deviations, is at step {}", at + 1);
    Ok(Found::at_most(largest / deviation, JUMP, reason))
}

pub(super) fn diverse(subject: &Subject) -> Result<Found> {
    let distinct = finite_of(subject.evaluations, "distinct_2")?;
    let (Some(first), Some(last)) = (distinct.first(), distinct.last()) else {
        return Ok(Found::not_applicable("no evaluation has a share of distinct bigrams"));
    };
    if *first <= 0.0 {
        return Ok(Found::not_applicable("the responses of π_init have no bigrams"));
    }
    let reason = format!("distinct bigrams of held-out responses went from {first:.3} to {last:.3}; the ratio");
    Ok(Found::at_least(last / first, DIVERSE, reason))
}

/// The numbers of a column that are there and finite.
pub(super) fn finite_of(run: &OneRun, name: &str) -> Result<Vec<f64>> {
    Ok(run.series(name)?.into_iter().flatten().filter(|x| x.is_finite()).collect())
}
