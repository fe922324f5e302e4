//! Was it worth it?

use anyhow::Result;

use super::{Found, Subject};
use crate::experiment::study::estimates::ALPHA;
use crate::experiment::study::scores::{Responses, SFT};
use crate::metrics::{mean, paired_t, sd};

/// The standard deviation over seeds of the last reward, over the mean gain.
const SPREAD: f64 = 0.25;

pub(super) fn above_baseline(subject: &Subject) -> Result<Found> {
    let (own, theirs) = match rivals(subject)? {
        Ok(both) => both,
        Err(why) => return Ok(Found::not_applicable(why)),
    };
    let reward = mean(&own.reward) - mean(&theirs.reward);
    let wins = mean(&own.outcomes(&theirs));
    let above = usize::from(reward > 0.0) + usize::from(wins > 0.5);
    let reason = format!(
        "how many of two metrics lie above those of sft with the same seed: held-out reward {reward:+.4}, win rate {wins:.3}"
    );
    Ok(Found::at_least(above as f64, 1.0, reason))
}

/// Over the prompts of this run: what seeds say stands in the main table.
pub(super) fn significant(subject: &Subject) -> Result<Found> {
    let (own, theirs) = match rivals(subject)? {
        Ok(both) => both,
        Err(why) => return Ok(Found::not_applicable(why)),
    };
    let Ok(test) = paired_t(&own.reward, &theirs.reward) else {
        return Ok(Found::not_applicable("the held-out rewards of both have no t"));
    };
    // A significant loss is no success.
    let p = if test.difference > 0.0 { 0.5 * test.p } else { 1.0 - 0.5 * test.p };
    let reason = format!(
        "one-sided p of the paired t-test over held-out prompts, above sft of the same seed; the difference is {:+.4}",
        test.difference
    );
    Ok(Found::at_most(p, ALPHA, reason))
}

pub(super) fn spread(subject: &Subject) -> Result<Found> {
    let Some(runs) = subject.comparison.method(subject.method) else {
        return Ok(Found::not_applicable("there are no other seeds"));
    };
    let (mut last, mut gains) = (Vec::new(), Vec::new());
    for run in &runs.evaluations {
        let rewards = run.series("reward")?;
        let (Some(Some(first)), Some(Some(end))) = (rewards.first(), rewards.last()) else { continue };
        last.push(*end);
        gains.push(end - first);
    }
    if last.len() < 2 {
        return Ok(Found::not_applicable("one seed has no variance"));
    }
    let (deviation, gain) = (sd(&last), mean(&gains));
    let reason = format!(
        "over {} seeds the last held-out reward has a standard deviation of {deviation:.4} and the mean gain is {gain:+.4}; \
         the one over the size of the other",
        last.len()
    );
    let ratio = if deviation == 0.0 { 0.0 } else { deviation / gain.abs() };
    Ok(Found::at_most(ratio, SPREAD, reason))
}

/// The last held-out responses of the run and of `sft` with the same seed, or why they cannot be compared.
fn rivals(subject: &Subject) -> Result<Result<(Responses, Responses), &'static str>> {
    if subject.method == SFT {
        return Ok(Err("sft is the baseline"));
    }
    let Some(sft) = Subject::of(subject.comparison, SFT, subject.seed) else {
        return Ok(Err("there is no run of sft with this seed"));
    };
    let Some((own, theirs)) = subject.samples.zip(sft.samples) else {
        return Ok(Err("there are no held-out responses of both"));
    };
    let (own, theirs) = (Responses::last(own)?, Responses::last(theirs)?);
    let Some((own, theirs)) = own.zip(theirs) else { return Ok(Err("a held-out reward is not a number")) };
    if own.index != theirs.index {
        return Ok(Err("they have answered different held-out prompts"));
    }
    Ok(Ok((own, theirs)))
}
