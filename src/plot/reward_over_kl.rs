//! What reward a method has at which distance from where it began.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::Figure;
use super::axis::Axis;
use super::banded_lines::{Line, Point};
use super::columns::{COMPARISON, Columns, Task, by_task};
use super::crossing::span;
use super::fonts::indexed;
use super::multiples::{self, Group};
use super::over_seeds::Seeds;
use super::runs::{Mean, T_INTERVAL};
use crate::metrics::mean;

/// Intervals at the ends are shown so far beyond all curves, as a share of their extent: of two seeds they would leave no room
/// for the curves.
const BEYOND: f64 = 0.3;

/// Held-out reward over KL(π_θ‖π_init): a curve a method from the first evaluation to the last (means over seeds after equally
/// many steps), with a mark and 95 % t-intervals over the seeds in both directions at its end. Up to four methods stand in one
/// panel a task; of more, each has a panel of its own, in front of the curves of the others, with that of `qstar` dashed.
///
/// A row is one evaluation. Columns: `task` and `method` (text), `seed` and `step` (integers), `kl` (number: nats a response),
/// `reward` (number, in the task's unit).
///
/// # Errors
/// No rows, a missing column or one of another type, a null; two rows of one task, method and seed at the same step; a
/// task with rows of two `target`, `setting` or `parameters`.
///
/// ```
/// use polars::df;
///
/// let evaluations = df!(
///     "task" => ["code", "code"], "method" => ["qstar", "qstar"], "seed" => [0i64, 0], "step" => [0i64, 10],
///     "kl" => [0.0, 1.2], "reward" => [0.1, 0.3],
/// )?;
/// assert!(qstar::plot::reward_over_kl(&evaluations)?.svg.contains("nats a response"));
/// # anyhow::Ok(())
/// ```
pub fn reward_over_kl(evaluations: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(evaluations, "reward_over_kl", "the evaluations of runs")?;
    columns.unmixed(&COMPARISON)?;
    let (steps, kl, rewards) =
        (columns.required_integers("step")?, columns.required_numbers("kl")?, columns.required_numbers("reward")?);
    let rows = columns.keys()?.into_iter().enumerate().map(|(row, key)| {
        let found = (key.seed, steps[row], kl[row], rewards[row]);
        (key, found)
    });
    let groups: Vec<Group> = by_task(rows).into_iter().map(group).collect::<Result<_>>()?;
    multiples::draw(&groups, &format!("at the end: {T_INTERVAL}"))
}

/// Seed, step, KL and reward.
type Row = (i64, i64, f64, f64);

fn group(task: Task<Row>) -> Result<Group> {
    let line =
        |(method, rows): (String, Vec<Row>)| curve(&method, rows).with_context(|| format!("{method} on {}", task.name));
    let lines: Vec<Line> = task.methods.into_iter().map(line).collect::<Result<_>>()?;
    let reach = |of: usize, at: fn(&Point) -> f64| {
        let (low, high) = span(lines.iter().flat_map(|line| &line.points).map(at));
        let (least, most) = span(lines.iter().filter_map(|line| line.end).flat_map(|end| end[of].reach()));
        let beyond = BEYOND * (high - low);
        if beyond == 0.0 { (least, most) } else { (least.clamp(low - beyond, low), most.clamp(high, high + beyond)) }
    };
    let (nearest, furthest) = reach(0, |point| point.x);
    let (low, high) = reach(1, |point| point.y);
    // A divergence is never negative, whatever an interval says.
    let nearest =
        if lines.iter().flat_map(|line| &line.points).all(|p| p.x >= 0.0) { nearest.max(0.0) } else { nearest };
    let label = indexed("KL(π", "θ", &indexed(" ‖ π", "init", "), nats a response"));
    Ok(Group {
        x: Axis::padded(&label, nearest, furthest, 0.03, 6),
        y: Axis::padded("Held-out reward", low, high, 0.05, 7),
        name: task.name,
        lines,
    })
}

fn curve(method: &str, rows: Vec<Row>) -> Result<Line> {
    let (mut kl, mut reward) = (Seeds::default(), Seeds::default());
    for (seed, step, of_kl, of_reward) in rows {
        kl.insert(seed, step, of_kl)?;
        reward.insert(seed, step, of_reward)?;
    }
    let (kl, reward) = (kl.common()?, reward.common()?);
    let last = |of: &[(f64, Vec<f64>)]| Mean::of(&of.last().context("a run without evaluations")?.1);
    let both = kl.iter().zip(&reward);
    let points = both.map(|((_, kl), (_, reward))| Point { x: mean(kl), y: mean(reward), ends: None }).collect();
    Ok(Line { method: method.to_owned(), points, end: Some([last(&kl)?, last(&reward)?]) })
}
