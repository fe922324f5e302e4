//! Figure 1: the reward over the samples that it cost.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::{Columns, Task, by_task, methods};
use super::over_seeds::Seeds;
use super::{Figure, style};
use crate::metrics::{Interval, t_interval};

/// Curves with more points than this are drawn without marks.
const MOST_MARKS: usize = 30;

/// Held-out reward over samples: a line a method, its mean over seeds, with a 95 % t-interval over the seeds as a
/// band; one panel a task.
///
/// A row is one evaluation. Columns: `task` and `method` (text), `seed` (integer), `samples` (integer: responses
/// used so far), `reward` (number, in the task's unit: the mean reward of π_θ's own responses to held-out prompts;
/// rows where it is null are left out).
///
/// A seed without an evaluation at another's number of samples is interpolated linearly, and a line goes as far as
/// all its seeds do. A single seed has no band. A band that is much wider than all lines together, as with two
/// seeds, is cut off at the edge of its panel.
///
/// # Errors
/// No rows, a missing column or one of another type, `reward` null everywhere or not finite, two rewards of one
/// task, method and seed at the same number of samples, seeds whose ranges of samples do not meet.
///
/// ```
/// use polars::df;
///
/// let evaluations = df!(
///     "task" => ["summary", "summary"],
///     "method" => ["qstar", "qstar"],
///     "seed" => [0i64, 0],
///     "samples" => [0i64, 512],
///     "reward" => [0.1, 0.4],
/// )?;
/// let figure = qstar::plot::reward_curves(&evaluations)?;
/// assert!(figure.svg.contains("Held-out reward"));
/// # anyhow::Ok(())
/// ```
pub fn reward_curves(evaluations: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(evaluations, "reward_curves", "the evaluations of runs")?;
    let samples = columns.required_integers("samples")?;
    let rewards = columns.numbers("reward")?;
    let rows = columns.keys()?.into_iter().zip(samples.into_iter().zip(rewards));
    let rows = rows.filter_map(|(key, (samples, reward))| {
        let row = (key.seed, samples, reward?);
        Some((key, row))
    });
    let tasks: Vec<_> = by_task(rows).into_iter().map(curves).collect::<Result<_>>()?;
    let sheet = Sheet {
        legend: legend(&tasks),
        columns: Sheet::columns_for(tasks.len()),
        panel_height: 290.0,
        panels: tasks.len(),
    };
    sheet.draw(|index, area| panel(area, &tasks[index]))
}

/// A mean over seeds, with its interval where there are several.
struct Point {
    samples: f64,
    reward: f64,
    band: Option<Interval>,
}

fn curves(task: Task<(i64, i64, f64)>) -> Result<Task<Point>> {
    let curve = |(method, rows): (String, Vec<(i64, i64, f64)>)| {
        let points = points(rows).with_context(|| format!("{method} on {}", task.name))?;
        Ok((method, points))
    };
    let methods = task.methods.into_iter().map(curve).collect::<Result<_>>()?;
    Ok(Task { name: task.name, methods })
}

fn points(rows: Vec<(i64, i64, f64)>) -> Result<Vec<Point>> {
    let mut seeds = Seeds::default();
    for (seed, samples, reward) in rows {
        seeds.insert(seed, samples, reward)?;
    }
    let point = |(samples, rewards): (f64, Vec<f64>)| {
        let interval = t_interval(&rewards, 0.95)?;
        Ok(Point { samples, reward: interval.mean, band: (seeds.count() > 1).then_some(interval) })
    };
    seeds.common()?.into_iter().map(point).collect()
}

fn legend(tasks: &[Task<Point>]) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        methods(tasks).into_iter().map(|name| Entry::new(Key::Line(style::method(name)), name)).collect();
    let mut points = tasks.iter().flat_map(|task| &task.methods).flat_map(|(_, points)| points);
    if points.any(|point| point.band.is_some()) {
        let key = Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY);
        entries.push(Entry::new(key, "95 % t-interval over seeds"));
    }
    entries
}

fn panel(area: &Area, task: &Task<Point>) -> Result<()> {
    let points = || task.methods.iter().flat_map(|(_, points)| points);
    let (first, last) = span(points().map(|point| point.samples));
    let (low, high) = reward_span(points);
    let x = Axis::padded("Samples (responses used)", first, last, 0.02, 6);
    let y = Axis::padded("Held-out reward", low, high, 0.05, 7);
    let mut plot = canvas::plot(area, &task.name, &x, &y)?;
    // All bands below all lines.
    for (method, points) in &task.methods {
        let bounds: Vec<_> =
            points.iter().filter_map(|point| point.band.map(|band| (point.samples, band.low, band.high))).collect();
        if bounds.len() > 1 {
            canvas::band(&mut plot, &bounds, style::method(method).color, style::BAND_OPACITY)?;
        }
    }
    for (method, points) in &task.methods {
        let look = style::method(method);
        let line: Vec<_> = points.iter().map(|point| (point.samples, point.reward)).collect();
        canvas::line(&mut plot, &line, look.color, style::LINE_WIDTH)?;
        if line.len() <= MOST_MARKS {
            canvas::marks(&mut plot, &line, look)?;
        }
    }
    Ok(())
}

/// From the lowest to the highest that a panel shows: every line, and of the bands what lies within one height of
/// all lines from them. Two seeds have bands of six times their distance, next to which no line could be told from
/// another.
fn reward_span<'a, I: Iterator<Item = &'a Point>>(points: impl Fn() -> I) -> (f64, f64) {
    let (low, high) = span(points().map(|point| point.reward));
    let height = high - low;
    let bands = || points().filter_map(|point| point.band);
    let (lowest, _) = span(bands().map(|band| band.low).chain([low]));
    let (_, highest) = span(bands().map(|band| band.high).chain([high]));
    if height == 0.0 {
        return (lowest, highest);
    }
    (lowest.max(low - height), highest.min(high + height))
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}
