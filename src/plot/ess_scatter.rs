//! Figure 2: the effective sample sizes of the two sides of the mixture.

use anyhow::{Result, ensure};
use plotters::prelude::{Circle, Color};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Plot, Sheet, px};
use super::columns::{COMPARISON, Columns, Task, by_task, methods};
use super::fonts::indexed;
use super::{Figure, style};

/// The ratios of the two sizes that count as balanced.
const BALANCED: [f64; 2] = [0.9, 1.1];
/// Below this ratio of the smallest to the largest size the axes are logarithmic.
const DECADE: f64 = 0.1;

/// ESS_t over ESS_p: a point a step, light at the start of training and dark at its end, with the diagonal of equal
/// sizes and the band in which their ratio lies between 0.9 and 1.1; one panel a task, all on the same axes.
///
/// A row is one step. Columns: `task` and `method` (text), `seed` and `step` (integers), `ess_p` and `ess_t`
/// (numbers in (0, 1]: the effective share of samples drawn from q, for the policy and for the target; null for
/// methods without a mixture, whose rows are left out). The axes are logarithmic where the sizes differ by more
/// than a factor of ten.
///
/// # Errors
/// No rows, a missing column or one of another type, no row with both sizes, a size that is not in (0, 1].
///
/// ```
/// use polars::df;
///
/// let steps = df!(
///     "task" => ["summary", "summary"],
///     "method" => ["qstar", "reinforce"],
///     "seed" => [0i64, 0],
///     "step" => [1i64, 1],
///     "ess_p" => [Some(0.8), None],
///     "ess_t" => [Some(0.75), None],
/// )?;
/// let figure = qstar::plot::ess_scatter(&steps)?;
/// assert!(figure.svg.contains("qstar") && !figure.svg.contains("reinforce"));
/// # anyhow::Ok(())
/// ```
pub fn ess_scatter(steps: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(steps, "ess_scatter", "the steps of runs of a method with a mixture")?;
    columns.unmixed(&COMPARISON)?;
    let numbers = columns.required_integers("step")?;
    let sizes = columns.numbers("ess_p")?.into_iter().zip(columns.numbers("ess_t")?);
    let rows = columns.keys()?.into_iter().zip(numbers.into_iter().zip(sizes));
    let rows: Vec<_> = rows.filter_map(|(key, (step, (p, t)))| Some((key, Row { step, p: p?, t: t? }))).collect();
    ensure!(
        !rows.is_empty(),
        "columns `ess_p` and `ess_t` are never both there: pass the steps of runs of a method with a mixture"
    );
    for (key, row) in &rows {
        let possible = |size: f64| size > 0.0 && size <= 1.0 + 1e-9;
        ensure!(
            possible(row.p) && possible(row.t),
            "`ess_p` and `ess_t` are shares in (0, 1]: {} on {} has {} and {} at step {}",
            key.method,
            key.task,
            row.p,
            row.t,
            row.step
        );
    }
    let scale = Scale::of(rows.iter().flat_map(|(_, row)| [row.p, row.t]));
    let tasks = by_task(rows);
    let columns = Sheet::columns_for(tasks.len());
    let sheet = Sheet {
        legend: legend(&tasks),
        // Title and labels take 4 pixels more of the height than of the width: the diagonal has 45 degrees.
        panel_height: columns[0] + 4.0,
        columns,
        panels: tasks.len(),
    };
    sheet.draw(|index, area| panel(area, &tasks[index], &scale))
}

struct Row {
    step: i64,
    p: f64,
    t: f64,
}

/// One pair of axes for all panels.
struct Scale {
    logarithmic: bool,
    low: f64,
    high: f64,
}

impl Scale {
    fn of(sizes: impl Iterator<Item = f64>) -> Self {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        let (low, high) = sizes.fold(ends, |(low, high), x| (low.min(x), high.max(x)));
        if low < DECADE * high {
            return Self { logarithmic: true, low, high };
        }
        // Whole tenths, or finer ones where all sizes lie close together.
        let tenth = if high - low < 0.05 { 0.02 } else { 0.1 };
        let high = ((high / tenth).ceil() * tenth).min(1.0);
        let low = ((low / tenth).floor() * tenth).min(high - tenth).max(0.0);
        Self { logarithmic: false, low, high }
    }

    fn axis(&self, label: &str) -> Axis {
        if self.logarithmic {
            Axis::logarithmic(label, self.low, self.high)
        } else {
            Axis::spanning(label, self.low, self.high, 7)
        }
    }

    fn place(&self, size: f64) -> f64 {
        if self.logarithmic { size.log10() } else { size }
    }

    fn size(&self, place: f64) -> f64 {
        if self.logarithmic { 10f64.powf(place) } else { place }
    }
}

fn legend(tasks: &[Task<Row>]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = methods(tasks)
        .into_iter()
        .map(|name| {
            let key = Key::Ramp(style::method(name).color);
            Entry::new(key, format!("{name}, first to last step"))
        })
        .collect();
    let equal = indexed("ESS", "p", &indexed(" = ESS", "t", ""));
    entries.push(Entry::new(Key::Dashes(style::AXIS), equal));
    let [least, most] = BALANCED;
    let key = Key::Area(style::REFERENCE, style::BAND_OPACITY);
    entries.push(Entry::new(key, format!("ratio {least} to {most}")));
    entries
}

fn panel(area: &Area, task: &Task<Row>, scale: &Scale) -> Result<()> {
    let x = scale.axis(&indexed("ESS", "p", " (share of samples, policy)"));
    let y = scale.axis(&indexed("ESS", "t", " (share of samples, target)"));
    let mut plot = canvas::plot(area, &task.name, &x, &y)?;
    balanced(&mut plot, &x, scale)?;
    for (method, rows) in &task.methods {
        let color = style::method(method).color;
        let first = rows.iter().map(|row| row.step).min().unwrap_or(0);
        let last = rows.iter().map(|row| row.step).max().unwrap_or(0);
        let mut rows: Vec<&Row> = rows.iter().collect();
        // Late points are drawn over early ones.
        rows.sort_by_key(|row| row.step);
        let points = rows.into_iter().map(|row| {
            let progress = (row.step - first) as f64 / (last - first).max(1) as f64;
            let at = (scale.place(row.p.min(1.0)), scale.place(row.t.min(1.0)));
            Circle::new(at, px(3.0), style::ramp(color, progress).mix(0.8).filled())
        });
        plot.draw_series(points)?;
    }
    // Over the points, which lie on it when all is well.
    let ends = [(x.low, x.low), (x.high, x.high)];
    canvas::dashes(&mut plot, ends, style::AXIS, 1.25)
}

/// The band around the diagonal.
fn balanced(plot: &mut Plot, axis: &Axis, scale: &Scale) -> Result<()> {
    const PIECES: u32 = 200;
    let [least, most] = BALANCED;
    let bounds: Vec<_> = (0..=PIECES)
        .map(|i| {
            let place = axis.low + (axis.high - axis.low) * f64::from(i) / f64::from(PIECES);
            let p = scale.size(place);
            // The ratio is ESS_p / ESS_t.
            let t = |ratio: f64| scale.place((p / ratio).max(f64::MIN_POSITIVE));
            (place, t(most), t(least))
        })
        .collect();
    canvas::band(plot, &bounds, style::REFERENCE, style::BAND_OPACITY)
}
