//! Figure 4: does the advantage, and does α*, change with the size of the model and with the samples?

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;
use std::collections::BTreeMap;

use super::axis::{Axis, count};
use super::banded_lines::Point;
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::multiples::TOGETHER;
use super::over_seeds::Seeds;
use super::runs::{Mean, T_INTERVAL, ends};
use super::style::MethodStyle;
use super::{Figure, fonts, style};
use crate::metrics::mean;

/// A line of α has at most about so many points.
const POINTS: usize = 60;

/// The advantage of `method` over `baseline` (the difference of their held-out rewards, paired by seed, with a 95 % t-interval
/// over the seeds) and the method's α (median over tokens, from the 5 % to the 95 % quantile): on the left at the end of
/// training and over all of it against the size of the model, on the right over the samples, for the largest model of
/// every task, with bands of up to four. A line a task or, where the evaluations have a column `family`, a family.
///
/// A row of `evaluations` is one evaluation. Columns: `task` and `method` (text), `parameters`, `seed`, `step`, `samples`
/// (integers), `reward` (number, in the task's unit), and perhaps `family` (text). A row of `steps` is one step. Columns: `task`,
/// `method`, `parameters`, `seed`, `step`, `samples`, `alpha_q05`, `alpha_q50`, `alpha_q95` (numbers in [0, 1]).
///
/// # Errors
/// No rows, a missing column or one of another type, no seed that both methods have on a task at a size, no row of `method` with
/// quantiles, more than eight tasks or families, two rows of one run at the same step, a task with rows of two `target` or
/// `setting`.
///
/// ```no_run
/// # fn of(evaluations: polars::prelude::DataFrame, steps: polars::prelude::DataFrame) -> anyhow::Result<()> {
/// qstar::plot::scalability(&evaluations, &steps, "qstar", "reinforce")?.save("figures/scalability".as_ref())?;
/// # Ok(())
/// # }
/// ```
pub fn scalability(evaluations: &DataFrame, steps: &DataFrame, method: &str, baseline: &str) -> Result<Figure> {
    let advantages = advantages(evaluations, method, baseline)?;
    let alphas = alphas(steps, method)?;
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in advantages.keys().chain(alphas.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    ensure!(
        names.len() <= style::SERIES.len(),
        "scalability can tell {} tasks and families apart, and the frames have {}: filter them by `task`",
        style::SERIES.len(),
        names.len()
    );
    let look =
        |name: &str| names.iter().position(|known| *known == name).map_or(style::SERIES[0], |at| style::SERIES[at]);
    let mut legend: Vec<Entry> = names.iter().map(|name| Entry::new(Key::Line(look(name)), *name)).collect();
    let band = format!("{T_INTERVAL}; α: 5 % to 95 % of tokens");
    legend.push(Entry::new(Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY), band));
    legend.push(Entry::new(Key::Dashes(style::REFERENCE), "no advantage"));
    let advantage = format!("Advantage over {}", fonts::clean(baseline));
    let alpha = "α (0: target, 1: policy)";
    let sheet = Sheet { legend, columns: Sheet::columns_for(4), panel_height: 250.0, panels: 4 };
    sheet.draw(|index, area| match index {
        0 => over_sizes(area, &advantage, &advantages, true, &look),
        1 => over_samples(area, &advantage, &advantages, true, &look),
        2 => over_sizes(area, alpha, &alphas, false, &look),
        _ => over_samples(area, alpha, &alphas, false, &look),
    })
}

/// Of one task or family at one size of the model.
struct Found {
    at_end: Point,
    over_samples: Vec<Point>,
}

/// By the name of the task or family, and the number of parameters.
type Series = BTreeMap<(String, i64), Found>;

/// Step, samples and reward of a run at every evaluation.
type Curve = Vec<(i64, i64, f64)>;

fn advantages(evaluations: &DataFrame, method: &str, baseline: &str) -> Result<Series> {
    let columns = Columns::of(evaluations, "scalability", "the evaluations of runs")?;
    columns.unmixed(&["target", "setting"])?;
    let name = if evaluations.column("family").is_ok() { "family" } else { "task" };
    let (names, methods) = (columns.texts(name)?, columns.texts("method")?);
    let [parameters, seeds, steps, samples] =
        ["parameters", "seed", "step", "samples"].map(|name| columns.required_integers(name));
    let (parameters, seeds, steps, samples) = (parameters?, seeds?, steps?, samples?);
    let rewards = columns.required_numbers("reward")?;
    let mut runs: BTreeMap<(String, i64), [BTreeMap<i64, Curve>; 2]> = BTreeMap::new();
    for row in 0..evaluations.height() {
        let Some(side) = [method, baseline].iter().position(|name| *name == methods[row]) else { continue };
        let sides = runs.entry((fonts::clean(&names[row]), parameters[row])).or_default();
        sides[side].entry(seeds[row]).or_default().push((steps[row], samples[row], rewards[row]));
    }
    ensure!(!runs.is_empty(), "scalability found neither `{method}` nor `{baseline}` in the column `method`");
    let found = |((name, size), sides): ((String, i64), [BTreeMap<i64, Curve>; 2])| {
        let found = advantage(sides)
            .with_context(|| format!("{method} against {baseline} on {name} with {size} parameters"))?;
        Ok(((name, size), found))
    };
    runs.into_iter().map(found).collect()
}

fn advantage([method, baseline]: [BTreeMap<i64, Curve>; 2]) -> Result<Found> {
    let mut curves = Seeds::default();
    let mut at_end = Vec::new();
    let mut samples: f64 = 0.0;
    for (pair, (seed, of_method)) in method.iter().filter(|(seed, _)| baseline.contains_key(seed)).enumerate() {
        let of_baseline = &baseline[seed];
        for (side, curve) in [of_method, of_baseline].into_iter().enumerate() {
            for (_, samples, reward) in curve {
                curves.insert((2 * pair + side) as i64, *samples, *reward)?;
            }
        }
        let last = |curve: &Curve| {
            let steps: Vec<i64> = curve.iter().map(|row| row.0).collect();
            let rows = ends(&vec![(); steps.len()], &steps)?;
            anyhow::Ok(curve[rows[0].last])
        };
        let (own, other) = (last(of_method)?, last(of_baseline)?);
        samples = samples.max(own.1 as f64);
        at_end.push(own.2 - other.2);
    }
    ensure!(
        !at_end.is_empty(),
        "no seed has runs of both: the seeds of the one are {:?}, of the other {:?}",
        method.keys().collect::<Vec<_>>(),
        baseline.keys().collect::<Vec<_>>()
    );
    let point = |x: f64, differences: &[f64]| {
        let Mean { value: y, ends } = Mean::of(differences)?;
        anyhow::Ok(Point { x, y, ends })
    };
    let over_samples = curves
        .common()?
        .into_iter()
        .map(|(x, values)| point(x, &values.chunks(2).map(|pair| pair[0] - pair[1]).collect::<Vec<_>>()))
        .collect::<Result<_>>()?;
    Ok(Found { at_end: point(samples, &at_end)?, over_samples })
}

fn alphas(steps: &DataFrame, method: &str) -> Result<Series> {
    let columns = Columns::of(steps, "scalability", "the steps of the same runs")?;
    columns.unmixed(&["target", "setting"])?;
    let (tasks, methods) = (columns.texts("task")?, columns.texts("method")?);
    let (parameters, samples) = (columns.required_integers("parameters")?, columns.required_integers("samples")?);
    let seeds = columns.required_integers("seed")?;
    let quantiles = ["alpha_q05", "alpha_q50", "alpha_q95"].map(|name| columns.numbers(name));
    let [low, middle, high] = quantiles;
    let (low, middle, high) = (low?, middle?, high?);
    let mut runs: BTreeMap<(String, i64), [Seeds; 3]> = BTreeMap::new();
    for row in 0..steps.height() {
        let (Some(low), Some(middle), Some(high)) = (low[row], middle[row], high[row]) else { continue };
        if methods[row] != method {
            continue;
        }
        let found = runs.entry((fonts::clean(&tasks[row]), parameters[row])).or_default();
        for (of_seeds, quantile) in found.iter_mut().zip([low, middle, high]) {
            of_seeds.insert(seeds[row], samples[row], quantile).with_context(|| tasks[row].clone())?;
        }
    }
    ensure!(
        !runs.is_empty(),
        "`{method}` has no row with quantiles of α: scalability compares a method with a mixture"
    );
    let found = |(key, quantiles): ((String, i64), [Seeds; 3])| {
        let [low, middle, high] = quantiles.map(|of_seeds| of_seeds.common());
        let rows: Vec<[f64; 4]> = low?
            .iter()
            .zip(middle?.iter().zip(&high?))
            .map(|((x, low), ((_, middle), (_, high)))| [*x, mean(low), mean(middle), mean(high)])
            .collect();
        let together = |rows: &[[f64; 4]]| {
            let [x, low, middle, high] =
                [0, 1, 2, 3].map(|at| mean(&rows.iter().map(|row| row[at]).collect::<Vec<_>>()));
            Point { x, y: middle, ends: Some((low, high)) }
        };
        let over_samples = rows.chunks(rows.len().div_ceil(POINTS)).map(together).collect();
        Ok((key, Found { at_end: together(&rows), over_samples }))
    };
    runs.into_iter().map(found).collect()
}

fn over_sizes(
    area: &Area,
    label: &str,
    series: &Series,
    difference: bool,
    look: &impl Fn(&str) -> MethodStyle,
) -> Result<()> {
    let (least, most) = span(series.keys().map(|(_, size)| *size as f64));
    let x = Axis::logarithmic("Parameters of the policy (logarithmic)", 0.9 * least, 1.1 * most).counted();
    let y = heights(label, series.values().map(|found| &found.at_end), difference);
    let title = if difference { "At the end of training" } else { "Over all of training" };
    let mut plot = canvas::plot(area, title, &x, &y)?;
    if difference {
        canvas::dashes(&mut plot, [(x.low, 0.0), (x.high, 0.0)], style::REFERENCE, 1.25)?;
    }
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let places = apart(series);
    for (((name, _), found), x) in series.iter().zip(places) {
        let look = look(name);
        if let Some((low, high)) = found.at_end.ends {
            let inside = |at: f64| at.clamp(y.low, y.high);
            canvas::line(&mut plot, &[(x, inside(low)), (x, inside(high))], look.color, style::LINE_WIDTH)?;
        }
        lines.entry(name).or_default().push((x, found.at_end.y));
    }
    for (name, line) in lines {
        canvas::line(&mut plot, &line, look(name).color, 1.25)?;
        canvas::marks(&mut plot, &line, look(name))?;
    }
    Ok(())
}

/// The decimal logarithm of every size, those of one size side by side so that their intervals can be told apart.
fn apart(series: &Series) -> Vec<f64> {
    const STEP: f64 = 0.018;
    let (least, most) = span(series.keys().map(|(_, size)| (*size as f64).log10()));
    let step = STEP * (most - least).max(0.5);
    let place = |(at, (_, size)): (usize, &(String, i64))| {
        let same = |n: usize| series.keys().take(n).filter(|(_, other)| other == size).count() as f64;
        (*size as f64).log10() + step * (same(at) - 0.5 * (same(series.len()) - 1.0))
    };
    series.keys().enumerate().map(place).collect()
}

fn over_samples(
    area: &Area,
    label: &str,
    series: &Series,
    difference: bool,
    look: &impl Fn(&str) -> MethodStyle,
) -> Result<()> {
    // The keys ascend: the last of a name is its largest model.
    let largest: BTreeMap<&str, (i64, &Found)> =
        series.iter().map(|((name, size), found)| (name.as_str(), (*size, found))).collect();
    let points = || largest.values().flat_map(|(_, found)| &found.over_samples);
    let (first, last) = span(points().map(|point| point.x));
    let x = Axis::padded("Samples (responses used)", first, last, 0.02, 5);
    let y = heights(label, points(), difference);
    let mut sizes: Vec<i64> = largest.values().map(|(size, _)| *size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let sizes: Vec<String> = sizes.into_iter().map(|size| count(size as f64)).collect();
    let mut plot = canvas::plot(area, &format!("Over training, {} parameters", sizes.join(", ")), &x, &y)?;
    if difference {
        canvas::dashes(&mut plot, [(x.low, 0.0), (x.high, 0.0)], style::REFERENCE, 1.25)?;
    }
    // More bands could not be told apart.
    for (name, (_, found)) in largest.iter().filter(|_| largest.len() <= TOGETHER) {
        let bounds: Vec<_> =
            found.over_samples.iter().filter_map(|point| point.ends.map(|(low, high)| (point.x, low, high))).collect();
        if bounds.len() > 1 {
            canvas::band(&mut plot, &bounds, look(name).color, style::BAND_OPACITY)?;
        }
    }
    for (name, (_, found)) in &largest {
        let line: Vec<_> = found.over_samples.iter().map(|point| (point.x, point.y)).collect();
        canvas::line(&mut plot, &line, look(name).color, style::LINE_WIDTH)?;
        let every = line.len().div_ceil(10);
        canvas::marks(&mut plot, &line.into_iter().step_by(every).collect::<Vec<_>>(), look(name))?;
    }
    Ok(())
}

/// Of differences what holds the zero, and of wide intervals what lies near the values; of α all that there can be.
fn heights<'a>(label: &str, points: impl Iterator<Item = &'a Point> + Clone, difference: bool) -> Axis {
    if !difference {
        return Axis::padded(label, 0.0, 1.0, 0.03, 5);
    }
    let (least, most) = span(points.clone().map(|point| point.y).chain([0.0]));
    let ends = points.flat_map(|point| point.ends.map_or([point.y; 2], |(low, high)| [low, high]));
    let (low, high) = span(ends.chain([0.0]));
    let height = if most > least { most - least } else { high - low };
    Axis::padded(label, low.max(least - height), high.min(most + height), 0.06, 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_paired_by_seed() {
        let run = |seed: i64, rewards: [f64; 2]| (seed, vec![(10, 64, rewards[1]), (0, 0, rewards[0])]);
        let method = BTreeMap::from([run(0, [0.1, 0.6]), run(1, [0.2, 0.9]), run(7, [9.0, 9.0])]);
        let baseline = BTreeMap::from([run(0, [0.1, 0.5]), run(1, [0.2, 0.6]), run(8, [-9.0, -9.0])]);
        let found = advantage([method.clone(), baseline]).unwrap();
        assert!((found.at_end.y - 0.2).abs() < 1e-12 && found.at_end.x == 64.0);
        // Student's interval of 0.1 and 0.3: the mean with 12.7062 standard errors of 0.1.
        let (low, high) = found.at_end.ends.unwrap();
        assert!((low + 1.07062).abs() < 1e-5 && (high - 1.47062).abs() < 1e-5);
        let line: Vec<f64> = found.over_samples.iter().map(|point| point.y).collect();
        assert!(line[0].abs() < 1e-12 && (line[1] - 0.2).abs() < 1e-12);
        let apart = advantage([method, BTreeMap::from([run(5, [0.0, 0.0])])]).err().unwrap();
        assert!(apart.to_string().contains("no seed has runs of both"), "{apart}");
    }
}
