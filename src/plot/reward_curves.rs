//! Figure 1: the reward over the samples that it cost.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::Figure;
use super::axis::Axis;
use super::banded_lines::{Line, Point};
use super::columns::{COMPARISON, Columns, Task, by_task};
use super::crossing::span;
use super::multiples::{self, Group};
use super::over_seeds::Seeds;
use super::runs::{Mean, T_INTERVAL};

/// Held-out reward over samples: a line a method, its mean over seeds, with a 95 % t-interval over the seeds as a
/// band. Up to four methods stand in one panel a task; of more, each has a panel of its own, in front of the lines of the
/// others, with that of `qstar` dashed.
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
/// task, method and seed at the same number of samples, seeds whose ranges of samples do not meet, a task with rows of
/// two `target`, `setting` or `parameters`.
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
    columns.unmixed(&COMPARISON)?;
    let samples = columns.required_integers("samples")?;
    let rewards = columns.numbers("reward")?;
    let rows = columns.keys()?.into_iter().zip(samples.into_iter().zip(rewards));
    let rows = rows.filter_map(|(key, (samples, reward))| {
        let row = (key.seed, samples, reward?);
        Some((key, row))
    });
    let groups: Vec<Group> = by_task(rows).into_iter().map(group).collect::<Result<_>>()?;
    multiples::draw(&groups, T_INTERVAL)
}

/// Seed, samples and reward.
type Row = (i64, i64, f64);

fn group(task: Task<Row>) -> Result<Group> {
    let line = |(method, rows): (String, Vec<Row>)| {
        let points = points(rows).with_context(|| format!("{method} on {}", task.name))?;
        Ok(Line { method, points, end: None })
    };
    let lines: Vec<Line> = task.methods.into_iter().map(line).collect::<Result<_>>()?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let (first, last) = span(points().map(|point| point.x));
    let (low, high) = reward_span(&lines);
    Ok(Group {
        x: Axis::padded("Samples (responses used)", first, last, 0.02, 6),
        y: Axis::padded("Held-out reward", low, high, 0.05, 7),
        name: task.name,
        lines,
    })
}

fn points(rows: Vec<Row>) -> Result<Vec<Point>> {
    let mut seeds = Seeds::default();
    for (seed, samples, reward) in rows {
        seeds.insert(seed, samples, reward)?;
    }
    let point = |(x, rewards): (f64, Vec<f64>)| {
        let Mean { value: y, ends } = Mean::of(&rewards)?;
        Ok(Point { x, y, ends })
    };
    seeds.common()?.into_iter().map(point).collect()
}

/// From the lowest to the highest that a panel shows: every line, and of the bands what lies within one height of
/// all lines from them. Two seeds have bands of six times their distance, next to which no line could be told from
/// another.
fn reward_span(lines: &[Line]) -> (f64, f64) {
    let (low, high) = span(lines.iter().flat_map(|line| &line.points).map(|point| point.y));
    let (lowest, highest) = span(lines.iter().flat_map(Line::heights));
    let height = high - low;
    if height == 0.0 {
        return (lowest, highest);
    }
    (lowest.max(low - height), highest.min(high + height))
}
