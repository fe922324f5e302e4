//! Figure 5: what a gain costs.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::{COMPARISON, Columns, RowKey, Task, by_task, methods};
use super::crossing::span;
use super::runs::{Mean, ends};
use super::{Figure, fonts, style};

/// The gain in held-out reward from the first evaluation to the last over the cost of training relative to that of the method
/// `baseline`: a point a method with 95 % t-intervals over the seeds in both directions, and the Pareto front of the means
/// (no method that costs less gains as much); one panel a task.
///
/// `cost` is the column that is compared at the end of training: `seconds_charged`, `flops`, `samples` or `reward_calls`. The cost of a
/// run is divided by that of the baseline with the same seed; its mean over the seeds is the geometric one, on a logarithmic axis.
///
/// A row is one evaluation. The other columns: `task` and `method` (text), `seed` and `step` (integers), `reward` (number, in
/// the task's unit).
///
/// # Errors
/// No rows, a missing column or one of another type; a run with a seed that the baseline lacks, or at whose end the cost is not
/// positive; two evaluations of one task, method and seed at the same step; a task with rows of two `target`, `setting` or
/// `parameters`.
///
/// ```no_run
/// # fn of(evaluations: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// qstar::plot::pareto(&evaluations, "flops", "on_policy")?.save("figures/pareto".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn pareto(evaluations: &DataFrame, cost: &str, baseline: &str) -> Result<Figure> {
    let columns = Columns::of(evaluations, "pareto", "the evaluations of runs")?;
    columns.unmixed(&COMPARISON)?;
    let (rewards, costs) = (columns.required_numbers("reward")?, columns.required_numbers(cost)?);
    let runs = ends::<RowKey>(&columns.keys()?, &columns.required_integers("step")?)?;
    let mut rows = Vec::new();
    for run in &runs {
        let key = &run.key;
        let of_baseline = RowKey { method: fonts::clean(baseline), ..key.clone() };
        let base = runs.iter().find(|other| other.key == of_baseline).with_context(|| {
            format!(
                "pareto has no run of `{baseline}` on {} with seed {}, to which {} could be compared",
                key.task, key.seed, key.method
            )
        })?;
        let [spent, by_baseline] = [costs[run.last], costs[base.last]];
        ensure!(
            spent > 0.0 && by_baseline > 0.0,
            "`{cost}` must be positive at the end of a run to be compared: {} on {} with seed {} has {spent}, `{baseline}` {by_baseline}",
            key.method,
            key.task,
            key.seed
        );
        rows.push((key.clone(), (spent / by_baseline, rewards[run.last] - rewards[run.first])));
    }
    let tasks: Vec<Task<Point>> = by_task(rows).into_iter().map(points).collect::<Result<_>>()?;
    let several = tasks.iter().flat_map(|task| &task.methods).any(|(_, point)| point[0].gain.ends.is_some());
    let of_method = |name| Entry::new(Key::Mark(style::method(name)), name);
    let mut legend: Vec<Entry> = methods(&tasks).into_iter().map(of_method).collect();
    legend.push(Entry::new(Key::Dashes(style::AXIS), "Pareto front"));
    if several {
        legend.push(Entry::new(Key::Stroke(style::REFERENCE), super::runs::T_INTERVAL));
    }
    let label = format!("{} relative to {}", name(cost), fonts::clean(baseline));
    let sheet = Sheet { legend, columns: Sheet::columns_for(tasks.len()), panel_height: 290.0, panels: tasks.len() };
    sheet.draw(|index, area| panel(area, &tasks[index], &label))
}

struct Point {
    /// A decimal logarithm.
    cost: Mean,
    gain: Mean,
}

fn points(task: Task<(f64, f64)>) -> Result<Task<Point>> {
    let point = |(method, runs): (String, Vec<(f64, f64)>)| {
        let (costs, gains): (Vec<f64>, Vec<f64>) = runs.into_iter().unzip();
        Ok((method, vec![Point { cost: Mean::of_logarithms(&costs)?, gain: Mean::of(&gains)? }]))
    };
    Ok(Task { methods: task.methods.into_iter().map(point).collect::<Result<_>>()?, name: task.name })
}

fn name(cost: &str) -> String {
    match cost {
        "seconds_charged" => "Training time".to_owned(),
        "flops" => "FLOPs".to_owned(),
        "samples" => "Samples".to_owned(),
        "reward_calls" => "Reward calls".to_owned(),
        other => fonts::clean(other),
    }
}

fn panel(area: &Area, task: &Task<Point>, label: &str) -> Result<()> {
    let points = || task.methods.iter().map(|(_, point)| &point[0]);
    let (least, most) = span(points().flat_map(|point| point.cost.reach()));
    let (low, high) = span(points().flat_map(|point| point.gain.reach()));
    let x = Axis::logarithmic(label, 0.95 * 10f64.powf(least), 1.05 * 10f64.powf(most));
    let y = Axis::padded("Gain in held-out reward", low, high, 0.05, 7);
    let mut plot = canvas::plot(area, &task.name, &x, &y)?;
    canvas::dashes(&mut plot, front(points().map(|point| (point.cost.value, point.gain.value))), style::AXIS, 1.25)?;
    for (method, point) in &task.methods {
        let (Point { cost, gain }, look) = (&point[0], style::method(method));
        if let Some((low, high)) = gain.ends {
            canvas::line(&mut plot, &[(cost.value, low), (cost.value, high)], look.color, 1.25)?;
        }
        if let Some((low, high)) = cost.ends {
            canvas::line(&mut plot, &[(low, gain.value), (high, gain.value)], look.color, 1.25)?;
        }
    }
    for (method, point) in &task.methods {
        canvas::marks(&mut plot, &[(point[0].cost.value, point[0].gain.value)], style::method(method))?;
    }
    Ok(())
}

/// From the cheapest point up, the corners of the stairs over all points that gain more than every cheaper one.
fn front(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for (cost, gain) in points {
        match corners.last() {
            Some((_, best)) if gain <= *best => {}
            Some((_, best)) => corners.extend([(cost, *best), (cost, gain)]),
            None => corners.push((cost, gain)),
        }
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_cheaper_beats() {
        let points = [(1.0, 0.2), (0.5, 0.1), (2.0, 0.15), (3.0, 0.4), (1.0, 0.1)];
        assert_eq!(front(points.into_iter()), [(0.5, 0.1), (1.0, 0.1), (1.0, 0.2), (3.0, 0.2), (3.0, 0.4)]);
    }
}
