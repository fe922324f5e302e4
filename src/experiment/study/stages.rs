//! The stages of the study: which of their criteria are met.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::estimates::{ALPHA, Estimate, values};
use super::frames::{Labels, comparisons, labelled, rows_by_place};
use super::level_of;
use super::main_table::Against;
use super::scores::{Fewer, ON_POLICY, QSTAR, Scored};
use super::verdict::verdict;
use crate::record::record;

record! {
    /// One criterion of one stage at one place.
    pub struct StageRow {
        pub stage: i64,
        pub criterion: String,
        /// What was measured, and its interval of 95%.
        pub value: Option<f64>,
        pub low: Option<f64>,
        pub high: Option<f64>,
        /// `met`, `not met`, `not measured`.
        pub result: String,
        pub why: String,
    }
}

/// The first stage's bounds of ESS_p/ESS_t.
const NEAR_1: (f64, f64) = (0.8, 1.2);
/// The third stage's: how many times faster, and how many steps.
const FASTER: f64 = 1.3;
const LONG: f64 = 10_000.0;
/// A long run is stable where it ends no more than this share of its gain below its best.
const STABLE: f64 = 0.1;

/// The criteria of the three stages, a row a place each. `speed_up` is how many times faster speculative sampling from q\* was
/// measured to be than plain sampling, of the same distribution. The second stage asks for one task only: it is met where one
/// place meets both of its criteria.
///
/// # Errors
/// As [`main_table`](super::main_table).
pub fn stages(
    evaluations: &DataFrame,
    samples: &DataFrame,
    steps: &DataFrame,
    levels: &[(&str, f64)],
    speed_up: Option<f64>,
) -> Result<DataFrame> {
    let hypotheses = rows_by_place(&verdict(evaluations, samples, steps, None, levels)?)?;
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        let scored = Scored::all(&comparison)?;
        let level = level_of(levels, &comparison.place.task)?;
        let of_place = hypotheses.iter().find(|(place, _)| *place == comparison.place);
        let h1 = of_place.and_then(|(_, rows)| rows.first()).context("every place has a verdict")?.texts("verdict")?;
        let criteria = match scored.iter().find(|scored| scored.method == QSTAR) {
            None => Vec::new(),
            Some(qstar) => vec![
                balance(qstar),
                efficiency(qstar, &scored, level)?,
                above_all(&scored)?,
                h1_holds(&h1[0]),
                faster(speed_up),
                long(qstar, longest(&comparison)?),
            ],
        };
        labels.extend(criteria.iter().map(|_| Labels::of_place(&comparison.place)));
        rows.extend(criteria);
    }
    labelled(&StageRow::frame(&rows)?, &labels)
}

impl StageRow {
    fn new(stage: i64, criterion: &str, value: Option<Estimate>, met: Option<bool>, why: impl Into<String>) -> Self {
        let result = match met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "not measured",
        };
        Self {
            stage,
            criterion: criterion.to_owned(),
            value: value.map(|value| value.value),
            low: value.and_then(|value| value.low),
            high: value.and_then(|value| value.high),
            result: result.to_owned(),
            why: why.into(),
        }
    }
}

fn balance(qstar: &Scored) -> StageRow {
    let criterion = "ESS_p/ESS_t of q* in [0.8, 1.2]";
    match qstar.ess_ratio() {
        None => StageRow::new(1, criterion, None, None, "no step has a ratio that has a logarithm"),
        Some(ratio) if ratio.low.is_none() => {
            StageRow::new(1, criterion, Some(ratio), None, "one seed has no interval")
        }
        Some(ratio) => {
            let met = ratio.within(NEAR_1.0, NEAR_1.1);
            let why = format!("the geometric mean is {}; the whole interval has to lie inside", ratio.in_words());
            StageRow::new(1, criterion, Some(ratio), Some(met), why)
        }
    }
}

fn efficiency(qstar: &Scored, scored: &[Scored], level: Option<f64>) -> Result<StageRow> {
    let criterion = "sample efficiency of q* above on_policy";
    let unknown = |why: &str| Ok(StageRow::new(1, criterion, None, None, why));
    let Some(level) = level else { return unknown("no level was fixed ahead for this task") };
    let Some(base) = scored.iter().find(|scored| scored.method == ON_POLICY) else {
        return unknown("there are no runs of on_policy here");
    };
    let fewer = Fewer::of(base, qstar, level)?;
    let Some((ratio, reading)) = fewer.ratio.zip(fewer.reading) else {
        return unknown(&format!("no run of either method reached {level:.4}"));
    };
    if ratio.low.is_none() {
        return Ok(StageRow::new(1, criterion, Some(ratio), None, "one seed has no interval"));
    }
    let met = ratio.above(1.0) && ["exact", "at least"].contains(&reading);
    let why = format!("to {level:.4} the ratio of samples is {}, read as `{reading}`", ratio.in_words());
    Ok(StageRow::new(1, criterion, Some(ratio), Some(met), why))
}

fn above_all(scored: &[Scored]) -> Result<StageRow> {
    let criterion = "q* significantly above all other methods on at least one task";
    let against = Against::of(scored)?;
    let others: Vec<(&str, &Against)> = scored
        .iter()
        .zip(&against)
        .filter(|(own, _)| own.method != QSTAR)
        .map(|(own, a)| (own.method.as_str(), a))
        .collect();
    if others.is_empty() {
        return Ok(StageRow::new(2, criterion, None, None, "there is no other method here"));
    }
    let smallest = others
        .iter()
        .filter_map(|(_, against)| against.difference.map(|difference| difference.estimate))
        .min_by(|a, b| a.value.total_cmp(&b.value));
    if !others.iter().any(|(_, against)| against.p_paired_holm.is_some()) {
        return Ok(StageRow::new(2, criterion, smallest, None, "there is no p-value: two common seeds are needed"));
    }
    let above = |against: &Against| {
        against.p_paired_holm.is_some_and(|p| p < ALPHA)
            && against.difference.is_some_and(|difference| difference.estimate.value > 0.0)
    };
    let not: Vec<&str> = others.iter().filter(|(_, against)| !above(against)).map(|(name, _)| *name).collect();
    let why = match not.is_empty() {
        true => "above every other method (paired t, p < 0.05 after Holm)".to_owned(),
        false => format!("not significantly above {} (paired t, p < 0.05 after Holm)", not.join(", ")),
    };
    Ok(StageRow::new(2, criterion, smallest, Some(not.is_empty()), why))
}

fn h1_holds(verdict: &str) -> StageRow {
    StageRow::new(2, "H1 holds", None, Some(verdict == "supported"), format!("the verdict on H1 is `{verdict}`"))
}

fn faster(speed_up: Option<f64>) -> StageRow {
    let criterion = "speculative sampling more than 1.3 times faster";
    let value = speed_up.map(|value| Estimate { value, low: None, high: None });
    match speed_up {
        None => StageRow::new(3, criterion, None, None, "no speed-up was given"),
        Some(x) => StageRow::new(3, criterion, value, Some(x > FASTER), format!("{x:.3} times faster was measured")),
    }
}

/// The most steps that every run of `qstar` has done.
fn longest(comparison: &super::frames::Comparison) -> Result<f64> {
    let mut least = f64::INFINITY;
    for run in comparison.method(QSTAR).iter().flat_map(|runs| &runs.evaluations) {
        least = least.min(run.all("step")?.last().copied().unwrap_or_default());
    }
    Ok(least)
}

fn long(qstar: &Scored, steps: f64) -> StageRow {
    let criterion = "10,000 steps of q* are stable";
    if steps < LONG {
        return StageRow::new(3, criterion, None, None, format!("the runs have {steps:.0} steps"));
    }
    let drops: Vec<f64> = (0..qstar.after.len())
        .map(|at| {
            let (before, best, after) = (qstar.before[at].1, qstar.best[at].1, qstar.after[at].1);
            if best > before { (best - after) / (best - before) } else { 1.0 }
        })
        .collect();
    let found = Estimate::student(&drops);
    let worst = drops.iter().copied().fold(0.0, f64::max);
    let why = format!(
        "after {steps:.0} steps the {} runs end {:.1}% of their gain below their best at worst; {:.0}% are allowed",
        values(&qstar.after).len(),
        100.0 * worst,
        100.0 * STABLE
    );
    StageRow::new(3, criterion, found, Some(worst <= STABLE), why)
}
