//! Figure 3: rules for α, by the α that they choose and by what comes of it.

use anyhow::{Context, Result, ensure};
use plotters::prelude::{Color, Polygon};
use polars::prelude::DataFrame;
use std::collections::BTreeMap;

use super::axis::Axis;
use super::canvas::{Area, Entry, Key, Sheet};
use super::columns::{COMPARISON, Columns, RowKey, Task, by_task};
use super::crossing::span;
use super::intervals;
use super::runs::{Mean, T_INTERVAL, ends};
use super::{Figure, style};
use crate::metrics::mean;

/// Bins of the histograms, over [0, 1].
const BINS: usize = 20;
/// Half of the height of the widest bin, where rows are 1 apart.
const HALF: f64 = 0.4;

/// What rules for α choose and what comes of it, a row a method: on the left the distribution of α over all tokens, steps and
/// seeds, with its median and the range from its 5 % to its 95 % quantile (means over steps and seeds); on the right the
/// held-out reward at the end of training, with a 95 % t-interval over the seeds. One row of panels a task. Each
/// distribution is as high as its row: shapes can be compared, heights cannot.
///
/// A row of `steps` is one step. Columns: `task` and `method` (text), `seed` (integer), `alpha_q05`, `alpha_q50`, `alpha_q95`
/// (numbers in [0, 1]; null in rows without a mixture, of which only the reward is shown) and `alpha_histogram` (lists of
/// numbers: counts in 20 equal bins of [0, 1]). A row of `evaluations` is one evaluation. Columns: `task`, `method`, `seed`, `step`
/// (integer) and `reward` (number, in the task's unit).
///
/// # Errors
/// No rows, a missing column or one of another type, no row with all quantiles, a histogram without 20 counts, a method with
/// steps and without evaluations, two evaluations of one task, method and seed at the same step, a task with rows of two
/// `target`, `setting` or `parameters`.
///
/// ```no_run
/// # fn of(steps: polars::prelude::DataFrame, evaluations: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// qstar::plot::alpha_rules(&steps, &evaluations)?.save("figures/alpha-rules".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn alpha_rules(steps: &DataFrame, evaluations: &DataFrame) -> Result<Figure> {
    let rewards = rewards(evaluations)?;
    let mut alphas = alphas(steps)?;
    for task in &alphas {
        for method in task.1.keys() {
            let known =
                rewards.iter().any(|of| of.name == *task.0 && of.methods.iter().any(|(name, _)| name == method));
            ensure!(known, "alpha_rules has steps of {method} on {}, and no evaluations of it", task.0);
        }
    }
    let tasks: Vec<(Task<Mean>, BTreeMap<String, Alpha>)> =
        rewards.into_iter().filter_map(|task| alphas.remove(&task.name).map(|alphas| (task, alphas))).collect();
    let rows = tasks.iter().map(|(task, _)| task.methods.len()).max().unwrap_or(1);
    let sheet = Sheet {
        legend: vec![
            Entry::new(Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY), "distribution over tokens"),
            Entry::new(Key::Line(style::MethodStyle { color: style::REFERENCE, mark: style::Mark::Circle }), MEDIAN),
            Entry::new(Key::Stroke(style::REFERENCE), format!("reward: {T_INTERVAL}")),
        ],
        columns: vec![0.56 * style::WIDE, 0.44 * style::WIDE],
        panel_height: 84.0 + 34.0 * rows as f64,
        panels: 2 * tasks.len(),
    };
    sheet.draw(|index, area| {
        let (task, alphas) = &tasks[index / 2];
        if index % 2 == 0 { distributions(area, task, alphas) } else { ends_of_training(area, task) }
    })
}

const MEDIAN: &str = "median, 5 % to 95 %";

/// What one method on one task chose.
#[derive(Default)]
struct Alpha {
    /// α at 5 %, 50 % and 95 % in every step.
    quantiles: [Vec<f64>; 3],
    counts: Vec<f64>,
}

fn alphas(steps: &DataFrame) -> Result<BTreeMap<String, BTreeMap<String, Alpha>>> {
    let columns = Columns::of(steps, "alpha_rules", "the steps of runs of methods with a mixture")?;
    columns.unmixed(&COMPARISON)?;
    let [low, middle, high] = ["alpha_q05", "alpha_q50", "alpha_q95"].map(|name| columns.numbers(name));
    let (low, middle, high) = (low?, middle?, high?);
    let counts = columns.histograms("alpha_histogram", BINS)?;
    let mut tasks: BTreeMap<String, BTreeMap<String, Alpha>> = BTreeMap::new();
    for (row, (key, counts)) in columns.keys()?.into_iter().zip(counts).enumerate() {
        let (Some(low), Some(middle), Some(high)) = (low[row], middle[row], high[row]) else { continue };
        ensure!(
            0.0 <= low && low <= middle && middle <= high && high <= 1.0,
            "`alpha_q05`, `alpha_q50` and `alpha_q95` rise within [0, 1]: {} on {} has {low}, {middle} and {high} in row {row}",
            key.method,
            key.task
        );
        let alpha = tasks.entry(key.task).or_default().entry(key.method).or_default();
        alpha.quantiles.iter_mut().zip([low, middle, high]).for_each(|(all, found)| all.push(found));
        alpha.counts.resize(BINS, 0.0);
        alpha.counts.iter_mut().zip(counts.iter().flatten()).for_each(|(total, count)| *total += count);
    }
    ensure!(!tasks.is_empty(), "columns `alpha_q05`, `alpha_q50` and `alpha_q95` are never all there");
    Ok(tasks)
}

fn rewards(evaluations: &DataFrame) -> Result<Vec<Task<Mean>>> {
    let columns = Columns::of(evaluations, "alpha_rules", "the evaluations of the same runs")?;
    columns.unmixed(&COMPARISON)?;
    let rewards = columns.required_numbers("reward")?;
    let runs = ends::<RowKey>(&columns.keys()?, &columns.required_integers("step")?)?;
    let tasks = by_task(runs.into_iter().map(|run| (run.key, rewards[run.last])));
    let summarise = |task: Task<f64>| {
        let mean = |(method, rewards): (String, Vec<f64>)| Ok((method, vec![Mean::of(&rewards)?]));
        let methods = task.methods.into_iter().map(mean).collect::<Result<_>>();
        Ok(Task { methods: methods.with_context(|| task.name.clone())?, name: task.name })
    };
    tasks.into_iter().map(summarise).collect()
}

fn names(task: &Task<Mean>) -> Vec<&str> {
    task.methods.iter().map(|(name, _)| name.as_str()).collect()
}

fn distributions(area: &Area, task: &Task<Mean>, alphas: &BTreeMap<String, Alpha>) -> Result<()> {
    let x = Axis::padded("α (0: target, 1: policy)", 0.0, 1.0, 0.02, 5);
    let names = names(task);
    let mut plot = intervals::named(area, &task.name, &names, &x, true)?;
    for (row, name) in names.iter().enumerate() {
        let Some(alpha) = alphas.get(*name) else { continue };
        let (y, look) = (intervals::place(row, names.len()), style::method(name));
        let most = alpha.counts.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let edge = |bin: usize| bin as f64 / BINS as f64;
        let corners = |side: f64| {
            let bins = alpha.counts.iter().enumerate();
            bins.flat_map(move |(bin, count)| [edge(bin), edge(bin + 1)].map(|x| (x, y + side * HALF * count / most)))
        };
        let outline: Vec<_> = corners(1.0).chain(corners(-1.0).collect::<Vec<_>>().into_iter().rev()).collect();
        plot.draw_series([Polygon::new(outline, look.color.mix(2.0 * style::BAND_OPACITY).filled())])?;
        let [low, middle, high] = alpha.quantiles.each_ref().map(|of_steps| mean(of_steps));
        intervals::mark(&mut plot, y, middle, Some((low, high)), look)?;
    }
    Ok(())
}

fn ends_of_training(area: &Area, task: &Task<Mean>) -> Result<()> {
    let (low, high) = span(task.methods.iter().flat_map(|(_, mean)| mean[0].reach()));
    let x = Axis::padded("Held-out reward at the end", low, high, 0.06, 5);
    let names = names(task);
    let mut plot = intervals::named(area, "", &names, &x, false)?;
    for (row, (name, mean)) in task.methods.iter().enumerate() {
        intervals::mark(
            &mut plot,
            intervals::place(row, names.len()),
            mean[0].value,
            mean[0].ends,
            style::method(name),
        )?;
    }
    Ok(())
}
