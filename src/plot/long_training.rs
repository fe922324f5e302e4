//! What happens to a policy that is trained for long.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::banded_lines::{self as banded, Line, Point};
use super::canvas::{Entry, Key, Sheet};
use super::columns::{Columns, by_task};
use super::crossing::span;
use super::multiples::TOGETHER;
use super::over_seeds::Seeds;
use super::runs::{Mean, T_INTERVAL};
use super::{Figure, style};
use crate::metrics::mean;

/// What is shown of the evaluations: column, title, label with its unit.
const MEASURES: [(&str, &str, &str); 5] = [
    ("reward", "Held-out reward", "Reward"),
    ("kl", "Distance from the start", "KL, nats a response"),
    ("entropy", "Entropy", "Nats a token"),
    ("distinct_2", "Diversity", "Distinct bigrams, share"),
    ("length", "Length", "Tokens a response"),
];
/// A line of α has at most about so many points: a step is as noisy as its tokens.
const POINTS: usize = 100;

/// Training over its steps, a panel a measure: on held-out prompts the reward, KL(π_θ‖π_init), the entropy of π_θ, the share of
/// distinct bigrams and the length of responses, which tell of overfitting and of collapse; and the median of α over the
/// tokens of a step. Lines are means over the seeds; bands are 95 % t-intervals, and of α its range from the 5 % to the 95 %
/// quantile. At most four methods.
///
/// A row of `evaluations` is one evaluation. Columns: `task` and `method` (text), `seed` and `step` (integers), `reward` (number, in
/// the task's unit), `kl`, `entropy`, `distinct_2`, `length` (numbers). A row of `steps` is one step. Columns: `task`, `method`,
/// `seed`, `step`, `alpha_q05`, `alpha_q50`, `alpha_q95` (numbers in [0, 1], or null; without any there is no panel of α). Over long
/// trainings neighbouring steps are averaged.
///
/// # Errors
/// No rows, a missing column or one of another type, a null in the evaluations, two rows of one method and seed at the same
/// step, more than four methods, rows of two tasks, or of two `target`, `setting` or `parameters`.
///
/// ```no_run
/// # fn of(evaluations: polars::prelude::DataFrame, steps: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// qstar::plot::long_training(&evaluations, &steps)?.save("figures/long".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn long_training(evaluations: &DataFrame, steps: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(evaluations, "long_training", "the evaluations of runs")?;
    let task = columns.one_task()?;
    let mut panels = Vec::new();
    for (column, title, label) in MEASURES {
        panels.push(Panel::new(title, label, means(&columns, column)?));
    }
    let of_steps = Columns::of(steps, "long_training", "the steps of the same runs")?;
    let found = of_steps.one_task()?;
    ensure!(found == task, "long_training got the evaluations of {task} and the steps of {found}");
    let alpha = alphas(&of_steps)?;
    if !alpha.is_empty() {
        let y = Axis::padded("α (0: target, 1: policy)", 0.0, 1.0, 0.02, 5);
        panels.insert(2, Panel { y, ..Panel::new("α over tokens", "", alpha) });
    }
    let names: Vec<&str> = panels[0].lines.iter().map(|line| line.method.as_str()).collect();
    ensure!(
        names.len() <= TOGETHER,
        "long_training shows at most {TOGETHER} methods, and the frame has {}: filter it to some of {}",
        names.len(),
        names.join(", ")
    );
    let mut legend: Vec<Entry> =
        names.into_iter().map(|name| Entry::new(Key::Line(style::method(name)), name)).collect();
    let band = format!("{T_INTERVAL}; α: 5 % to 95 % of tokens");
    legend.extend(banded::band_entry(panels.iter().flat_map(|panel| &panel.lines), &band));
    let sheet = Sheet { legend, columns: Sheet::columns_for(3), panel_height: 220.0, panels: panels.len() };
    sheet.draw(|index, area| panels[index].draw(area))
}

struct Panel {
    title: &'static str,
    x: Axis,
    y: Axis,
    lines: Vec<Line>,
}

impl Panel {
    fn new(title: &'static str, label: &str, lines: Vec<Line>) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let (first, last) = span(points().map(|point| point.x));
        let (least, most) = span(points().map(|point| point.y));
        let (low, high) = span(lines.iter().flat_map(Line::heights));
        // As in the curves of rewards: bands of two seeds would leave no room for the lines.
        let height = most - least;
        let (low, high) = if height == 0.0 { (low, high) } else { (low.max(least - height), high.min(most + height)) };
        let x = Axis::padded("Training step", first, last, 0.02, 4);
        Self { title, x, y: Axis::padded(label, low, high, 0.05, 5), lines }
    }

    fn draw(&self, area: &super::canvas::Area) -> Result<()> {
        banded::draw(area, self.title, &self.lines, &self.x, &self.y)
    }
}

fn means(columns: &Columns, name: &str) -> Result<Vec<Line>> {
    let (steps, values) = (columns.required_integers("step")?, columns.required_numbers(name)?);
    let rows = columns.keys()?.into_iter().zip(steps.into_iter().zip(values));
    let rows = rows.map(|(key, (step, value))| {
        let row = (key.seed, step, value);
        (key, row)
    });
    let mut lines = Vec::new();
    for (method, rows) in by_task(rows).into_iter().flat_map(|task| task.methods) {
        let mut seeds = Seeds::default();
        for (seed, step, value) in rows {
            seeds.insert(seed, step, value).with_context(|| method.clone())?;
        }
        let point = |(x, values): (f64, Vec<f64>)| {
            let Mean { value: y, ends } = Mean::of(&values)?;
            Ok(Point { x, y, ends })
        };
        let points = seeds.common().with_context(|| method.clone())?.into_iter().map(point).collect::<Result<_>>()?;
        lines.push(Line { method, points, end: None });
    }
    Ok(lines)
}

/// The median of α with its range from 5 % to 95 %, of the methods that have one.
fn alphas(columns: &Columns) -> Result<Vec<Line>> {
    let steps = columns.required_integers("step")?;
    let quantiles = ["alpha_q05", "alpha_q50", "alpha_q95"].map(|name| columns.optional_numbers(name));
    let [low, middle, high] = quantiles;
    let (low, middle, high) = (low?, middle?, high?);
    let rows = columns.keys()?.into_iter().enumerate().filter_map(|(row, key)| {
        let found = (key.seed, steps[row], [low[row]?, middle[row]?, high[row]?]);
        Some((key, found))
    });
    let mut lines = Vec::new();
    for (method, rows) in by_task(rows).into_iter().flat_map(|task| task.methods) {
        let mut seeds = [Seeds::default(), Seeds::default(), Seeds::default()];
        for (seed, step, quantiles) in rows {
            for (seeds, quantile) in seeds.iter_mut().zip(quantiles) {
                seeds.insert(seed, step, quantile).with_context(|| method.clone())?;
            }
        }
        let [low, middle, high] = seeds.map(|seeds| seeds.common());
        let (low, middle, high) = (low?, middle?, high?);
        let together = middle.len().div_ceil(POINTS);
        let chunk = |of: &[(f64, Vec<f64>)], from: usize| {
            let part = &of[from..(from + together).min(of.len())];
            let of_steps: Vec<f64> = part.iter().map(|(_, of_seeds)| mean(of_seeds)).collect();
            mean(&of_steps)
        };
        let point = |from: usize| {
            let part: Vec<f64> =
                middle[from..(from + together).min(middle.len())].iter().map(|(step, _)| *step).collect();
            let ends = Some((chunk(&low, from), chunk(&high, from)));
            Point { x: mean(&part), y: chunk(&middle, from), ends }
        };
        let points = (0..middle.len()).step_by(together).map(point).collect();
        lines.push(Line { method, points, end: None });
    }
    Ok(lines)
}
