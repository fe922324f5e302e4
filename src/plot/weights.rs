//! How the treatment of weights changes what the draws are worth, and what comes of it.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;
use std::collections::BTreeMap;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::intervals;
use super::runs::{Mean, T_INTERVAL, ends};
use super::style::{Mark, MethodStyle};
use super::{Figure, style};
use crate::metrics::mean;

const RAW: MethodStyle = MethodStyle { color: style::REFERENCE, mark: Mark::Bar };
const LEVELS: [(&str, [&str; 2]); 2] =
    [("Tokens", ["ess_token_raw", "ess_token"]), ("Whole responses", ["ess_sequence_raw", "ess_sequence"])];

/// Variants of a method that treat their weights differently, a row each: on the left the effective sample size (Σw)²/(nΣw²) of
/// the raw and of the treated weights, over tokens and over whole responses; on the right the held-out reward at the end with a
/// 95 % t-interval over the seeds. The effective sizes are geometric means over steps and seeds, on a logarithmic axis.
///
/// A row of `steps` is one step. Columns: `task` and `method` (text), `seed` (integer), `ess_token_raw`, `ess_token`,
/// `ess_sequence_raw`, `ess_sequence` (numbers in (0, 1]; null where a method has no weights). A row of `evaluations` is one
/// evaluation. Columns: `task`, `method`, `seed`, `step` (integer) and `reward` (number, in the task's unit).
///
/// # Errors
/// No rows, a missing column or one of another type, an effective size that is not positive, two evaluations of one method and
/// seed at the same step, rows of two tasks, or of two `target`, `setting` or `parameters`.
///
/// ```no_run
/// # fn of(steps: polars::prelude::DataFrame, evaluations: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// qstar::plot::weights(&steps, &evaluations)?.save("figures/weights".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn weights(steps: &DataFrame, evaluations: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(steps, "weights", "the steps of runs of methods with weights")?;
    let task = columns.one_task()?;
    let mut sizes = Vec::new();
    for (title, [raw, treated]) in LEVELS {
        sizes.push((title, geometric(&columns, raw)?, geometric(&columns, treated)?));
    }
    let rewards = rewards(evaluations, &task)?;
    let names: Vec<&str> = rewards.iter().map(|(name, _)| name.as_str()).collect();
    let of_sizes = |sizes: &BTreeMap<String, f64>| sizes.values().copied().collect::<Vec<_>>();
    let (low, high) = span(sizes.iter().flat_map(|(_, raw, treated)| [of_sizes(raw), of_sizes(treated)].concat()));
    ensure!(low.is_finite(), "no row has an effective sample size: pass the steps of runs of methods with weights");
    let x = Axis::logarithmic("ESS, share of draws (logarithmic)", 0.9 * low, (1.05 * high).min(1.0));
    let treated = MethodStyle { color: style::TEXT, mark: Mark::Circle };
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Mark(RAW), "raw weights"),
            Entry::new(Key::Mark(treated), "treated weights, in the variant's look"),
            Entry::new(Key::Stroke(style::REFERENCE), format!("reward: {T_INTERVAL}")),
        ],
        columns: vec![0.42 * style::WIDE, 0.28 * style::WIDE, 0.30 * style::WIDE],
        panel_height: 84.0 + 26.0 * names.len() as f64,
        panels: 3,
    };
    sheet.draw(|index, area| match sizes.get(index) {
        Some((title, raw, treated)) => effective(area, title, &names, &x, [raw, treated], index == 0),
        None => at_the_end(area, &rewards),
    })
}

/// The geometric mean of a column over steps and seeds, of every method that has it.
fn geometric(columns: &Columns, name: &str) -> Result<BTreeMap<String, f64>> {
    let mut logarithms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (row, (key, size)) in columns.keys()?.into_iter().zip(columns.optional_numbers(name)?).enumerate() {
        let Some(size) = size else { continue };
        ensure!(
            size > 0.0 && size <= 1.0 + 1e-9,
            "`{name}` is a share of draws in (0, 1]: {} has {size} in row {row}",
            key.method
        );
        logarithms.entry(key.method).or_default().push(size.ln());
    }
    Ok(logarithms.into_iter().map(|(method, of_steps)| (method, mean(&of_steps).exp())).collect())
}

fn rewards(evaluations: &DataFrame, task: &str) -> Result<Vec<(String, Mean)>> {
    let columns = Columns::of(evaluations, "weights", "the evaluations of the same runs")?;
    let found = columns.one_task()?;
    ensure!(found == task, "weights got the steps of {task} and the evaluations of {found}");
    let rewards = columns.required_numbers("reward")?;
    let mut methods: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in ends(&columns.keys()?, &columns.required_integers("step")?)? {
        methods.entry(run.key.method).or_default().push(rewards[run.last]);
    }
    let mean = |(method, rewards): (String, Vec<f64>)| {
        let mean = Mean::of(&rewards).with_context(|| method.clone())?;
        Ok((method, mean))
    };
    let mut methods: Vec<_> = methods.into_iter().map(mean).collect::<Result<_>>()?;
    methods.sort_by(|(a, _), (b, _)| style::order(a).cmp(&style::order(b)));
    Ok(methods)
}

fn effective(
    area: &Area,
    title: &str,
    names: &[&str],
    x: &Axis,
    [raw, treated]: [&BTreeMap<String, f64>; 2],
    named: bool,
) -> Result<()> {
    let mut plot = intervals::named(area, title, names, x, named)?;
    for (row, name) in names.iter().enumerate() {
        let (Some(raw), Some(treated)) = (raw.get(*name), treated.get(*name)) else { continue };
        let (y, look) = (intervals::place(row, names.len()), style::method(name));
        let (raw, treated) = (raw.log10(), treated.log10());
        canvas::line(&mut plot, &[(raw, y), (treated, y)], look.color, style::LINE_WIDTH)?;
        canvas::marks(&mut plot, &[(raw, y)], RAW)?;
        canvas::marks(&mut plot, &[(treated, y)], look)?;
    }
    Ok(())
}

fn at_the_end(area: &Area, rewards: &[(String, Mean)]) -> Result<()> {
    let (low, high) = span(rewards.iter().flat_map(|(_, mean)| mean.reach()));
    let x = Axis::padded("Held-out reward at the end", low, high, 0.06, 4);
    let names: Vec<&str> = rewards.iter().map(|(name, _)| name.as_str()).collect();
    let mut plot = intervals::named(area, "Reward", &names, &x, false)?;
    for (row, (name, mean)) in rewards.iter().enumerate() {
        intervals::mark(&mut plot, intervals::place(row, names.len()), mean.value, mean.ends, style::method(name))?;
    }
    Ok(())
}
