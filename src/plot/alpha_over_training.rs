//! Figure 3: the weight of the policy in the mixture.

use anyhow::{Context, Result, ensure};
use plotters::prelude::{Color, Rectangle};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::{COMPARISON, Columns, Task, by_task, methods};
use super::over_seeds::Seeds;
use super::{Figure, style};
use crate::metrics::mean;

/// Bins of the histograms, over [0, 1].
const BINS: usize = 20;

/// α over training: on the left its median over the tokens of a step, with the band from the 5 % to the 95 %
/// quantile (each a mean over seeds); on the right the histogram of α over all tokens, steps and seeds. One row of
/// panels a task.
///
/// A row is one step. Columns: `task` and `method` (text), `seed` and `step` (integers), `alpha_q05`, `alpha_q50`,
/// `alpha_q95` (numbers in [0, 1]; rows of methods without a mixture have nulls and are left out) and
/// `alpha_histogram` (lists of numbers: counts in 20 equal bins of [0, 1]; may be null in some rows).
///
/// # Errors
/// No rows, a missing column or one of another type, no row with all quantiles, a quantile outside of [0, 1] or
/// below a lower one, a histogram without 20 counts or without any token, two rows of one task, method and seed at
/// the same step, seeds whose ranges of steps do not meet.
///
/// ```no_run
/// # fn of(steps: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// let figure = qstar::plot::alpha_over_training(&steps)?;
/// figure.save("figures/alpha".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn alpha_over_training(steps: &DataFrame) -> Result<Figure> {
    let rows = read(steps)?;
    let summarise = |task: Task<Row>| {
        let summary = |(method, rows): (String, Vec<Row>)| {
            let summary = Summary::of(rows).with_context(|| format!("{method} on {}", task.name))?;
            Ok((method, vec![summary]))
        };
        let methods = task.methods.into_iter().map(summary).collect::<Result<_>>()?;
        Ok(Task { name: task.name, methods })
    };
    let tasks: Vec<Task<Summary>> = by_task(rows).into_iter().map(summarise).collect::<Result<_>>()?;
    let sheet = Sheet {
        legend: legend(&tasks),
        columns: vec![0.58 * style::WIDE, 0.42 * style::WIDE],
        panel_height: 250.0,
        panels: 2 * tasks.len(),
    };
    sheet.draw(|index, area| {
        let task = &tasks[index / 2];
        if index % 2 == 0 { over_steps(area, task) } else { histogram(area, task) }
    })
}

struct Row {
    seed: i64,
    step: i64,
    /// α at 5 %, 50 % and 95 %.
    quantiles: [f64; 3],
    counts: Option<Vec<f64>>,
}

fn read(steps: &DataFrame) -> Result<Vec<(super::columns::RowKey, Row)>> {
    let source = "the steps of runs of a method with a mixture";
    let columns = Columns::of(steps, "alpha_over_training", source)?;
    columns.unmixed(&COMPARISON)?;
    let numbers = columns.required_integers("step")?;
    let low = columns.numbers("alpha_q05")?;
    let middle = columns.numbers("alpha_q50")?;
    let high = columns.numbers("alpha_q95")?;
    let counts = columns.histograms("alpha_histogram", BINS)?;
    let mut rows = Vec::new();
    for (index, (key, counts)) in columns.keys()?.into_iter().zip(counts).enumerate() {
        let (Some(low), Some(middle), Some(high)) = (low[index], middle[index], high[index]) else {
            continue;
        };
        let quantiles = [low, middle, high];
        ensure!(
            0.0 <= low && low <= middle && middle <= high && high <= 1.0,
            "`alpha_q05`, `alpha_q50` and `alpha_q95` rise within [0, 1]: {} on {} has {quantiles:?} at step {}",
            key.method,
            key.task,
            numbers[index]
        );
        let row = Row { seed: key.seed, step: numbers[index], quantiles, counts };
        rows.push((key, row));
    }
    ensure!(!rows.is_empty(), "columns `alpha_q05`, `alpha_q50` and `alpha_q95` are never all there: pass {source}");
    Ok(rows)
}

/// One method on one task.
struct Summary {
    /// Step, then α at 5 %, 50 % and 95 %.
    curve: Vec<(f64, [f64; 3])>,
    /// The share of tokens in every bin.
    shares: Vec<f64>,
}

impl Summary {
    fn of(rows: Vec<Row>) -> Result<Self> {
        let mut seeds = [Seeds::default(), Seeds::default(), Seeds::default()];
        let mut totals = vec![0.0; BINS];
        for row in rows {
            for (seeds, quantile) in seeds.iter_mut().zip(row.quantiles) {
                seeds.insert(row.seed, row.step, quantile)?;
            }
            for (total, count) in totals.iter_mut().zip(row.counts.iter().flatten()) {
                *total += count;
            }
        }
        let tokens: f64 = totals.iter().sum();
        ensure!(tokens > 0.0, "column `alpha_histogram` counts no token: record the histogram of α with every step");
        let [low, middle, high] = seeds;
        let (low, middle, high) = (low.common()?, middle.common()?, high.common()?);
        let curve = low
            .iter()
            .zip(middle.iter().zip(&high))
            .map(|((step, low), ((_, middle), (_, high)))| (*step, [mean(low), mean(middle), mean(high)]))
            .collect();
        let shares = totals.into_iter().map(|total| total / tokens).collect();
        Ok(Self { curve, shares })
    }
}

fn legend(tasks: &[Task<Summary>]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = methods(tasks)
        .into_iter()
        .map(|name| Entry::new(Key::Stroke(style::method(name).color), format!("{name}, median")))
        .collect();
    let key = Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY);
    entries.push(Entry::new(key, "5 % to 95 % of tokens"));
    entries
}

fn over_steps(area: &Area, task: &Task<Summary>) -> Result<()> {
    let curves = || task.methods.iter().flat_map(|(_, summary)| &summary[0].curve);
    let ends = (f64::INFINITY, f64::NEG_INFINITY);
    let (first, last) = curves().fold(ends, |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let x = Axis::padded("Training step", first, last, 0.02, 6);
    let y = Axis::spanning("α (0: target, 1: policy)", 0.0, 1.0, 5);
    let mut plot = canvas::plot(area, &task.name, &x, &y)?;
    for (method, summary) in &task.methods {
        let bounds: Vec<_> = summary[0].curve.iter().map(|(x, [low, _, high])| (*x, *low, *high)).collect();
        canvas::band(&mut plot, &bounds, style::method(method).color, style::BAND_OPACITY)?;
    }
    for (method, summary) in &task.methods {
        let median: Vec<_> = summary[0].curve.iter().map(|(x, [_, middle, _])| (*x, *middle)).collect();
        let look = style::method(method);
        canvas::line(&mut plot, &median, look.color, style::LINE_WIDTH)?;
        if median.len() == 1 {
            canvas::marks(&mut plot, &median, look)?;
        }
    }
    Ok(())
}

fn histogram(area: &Area, task: &Task<Summary>) -> Result<()> {
    let shares = task.methods.iter().flat_map(|(_, summary)| &summary[0].shares);
    let most = shares.fold(0.0, |most: f64, share| most.max(*share));
    let x = Axis::spanning("α", 0.0, 1.0, 5);
    let y = Axis::spanning("Share of tokens", 0.0, 1.05 * most, 5);
    let mut plot = canvas::plot(area, "all steps and seeds", &x, &y)?;
    let edge = |bin: usize| bin as f64 / BINS as f64;
    for (method, summary) in &task.methods {
        let color = style::method(method).color;
        let bars = summary[0].shares.iter().enumerate().map(|(bin, share)| {
            let corners = [(edge(bin), *share), (edge(bin + 1), 0.0)];
            Rectangle::new(corners, color.mix(2.0 * style::BAND_OPACITY).filled())
        });
        plot.draw_series(bars)?;
    }
    // Outlines, so that the bars of several methods can be told apart.
    for (method, summary) in &task.methods {
        let steps = summary[0].shares.iter().enumerate();
        let tops = steps.flat_map(|(bin, share)| [(edge(bin), *share), (edge(bin + 1), *share)]);
        let outline: Vec<_> = [(0.0, 0.0)].into_iter().chain(tops).chain([(1.0, 0.0)]).collect();
        canvas::line(&mut plot, &outline, style::method(method).color, 1.25)?;
    }
    Ok(())
}
