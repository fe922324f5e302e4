//! Methods compared over many runs, on one or several tasks: the frames of `plot`'s figures of that.
//!
//! They begin with the evaluations of runs ([`Results::evaluations`](super::Results::evaluations), several of them stacked
//! with [`record::stack`](crate::record::stack)). Intervals are of 95%, by the bootstrap over the runs of each task.

mod rows;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::{DataFrame, DataType};

use crate::metrics::{
    Aggregate, Interval, Reached, Reading, Resampled, probability_of_improvement, resampled_improvement,
    resampled_share_above, sample_efficiency, samples_to, share_above,
};

pub use rows::{AggregateRow, EfficiencyCurveRow, EfficiencyRow, ImprovementRow, ProfileRow};

const RESAMPLES: usize = 2_000;
const CONFIDENCE: f64 = 0.95;

/// The learning curves of runs: (samples, score), ascending, of every method on every task.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    methods: Vec<String>,
    tasks: Vec<String>,
    /// \[method\]\[task\]\[run\]
    runs: Vec<Vec<Vec<Curve>>>,
}

type Curve = Vec<(f64, f64)>;

impl Curves {
    /// From a row an evaluation: `task` and `method` (text), `seed` and `samples` (whole numbers), `reward` (number).
    ///
    /// # Errors
    /// No rows, a missing column or one of another type, a null, a reward that is not finite, two evaluations of a run after
    /// the same samples, a method that lacks a task that another has.
    pub fn of(evaluations: &DataFrame) -> Result<Self> {
        ensure!(evaluations.height() > 0, "a comparison of no evaluations");
        let [task, method] = ["task", "method"].map(|name| texts(evaluations, name));
        let [seed, samples, reward] = ["seed", "samples", "reward"].map(|name| numbers(evaluations, name));
        let (task, method, seed, samples, reward) = (task?, method?, seed?, samples?, reward?);
        let (methods, tasks) = (in_order(&method), in_order(&task));
        let place = |all: &[String], name: &String| all.iter().position(|known| known == name);
        let mut found = vec![vec![BTreeMap::<i64, Curve>::new(); tasks.len()]; methods.len()];
        for row in 0..evaluations.height() {
            ensure!(reward[row].is_finite(), "column `reward` is {} in row {row}", reward[row]);
            let (Some(m), Some(t)) = (place(&methods, &method[row]), place(&tasks, &task[row])) else { continue };
            found[m][t].entry(seed[row] as i64).or_default().push((samples[row], reward[row]));
        }
        let mut runs = Vec::new();
        for (method, of_method) in methods.iter().zip(found) {
            let mut of_tasks = Vec::new();
            for (task, of_seeds) in tasks.iter().zip(of_method) {
                ensure!(!of_seeds.is_empty(), "{method} has no runs on {task}: compare methods on the same tasks");
                let sorted = |(seed, mut curve): (i64, Curve)| {
                    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
                    match curve.windows(2).find(|ends| ends[0].0 == ends[1].0) {
                        Some(ends) => bail!(
                            "{method} on {task} has two evaluations of seed {seed} after {} samples: the frame mixes runs",
                            ends[0].0
                        ),
                        None => Ok(curve),
                    }
                };
                of_tasks.push(of_seeds.into_iter().map(sorted).collect::<Result<Vec<_>>>()?);
            }
            runs.push(of_tasks);
        }
        Ok(Self { methods, tasks, runs })
    }

    /// Scores on one scale: of a task named here, `zero` becomes 0 and `one` becomes 1. Rewards of different tasks cannot be
    /// aggregated without.
    ///
    /// # Errors
    /// A task that is not there; ends that are equal or not finite.
    pub fn scaled(mut self, ends: &[(&str, f64, f64)]) -> Result<Self> {
        for (name, zero, one) in ends {
            let task = self.tasks.iter().position(|task| task == name);
            let task = task.with_context(|| format!("no task {name}: there are {}", self.tasks.join(", ")))?;
            let width = one - zero;
            ensure!(width != 0.0 && width.is_finite(), "{name} cannot be scaled from {zero} to {one}");
            for curve in self.runs.iter_mut().flat_map(|tasks| &mut tasks[task]) {
                curve.iter_mut().for_each(|(_, score)| *score = (*score - zero) / width);
            }
        }
        Ok(self)
    }

    /// A row a method for each of mean, median, interquartile mean and optimality gap below `enough`, of the last scores.
    pub fn aggregates(&self, enough: f64, seed: u64) -> Result<DataFrame> {
        ensure!(enough.is_finite(), "an optimality gap below {enough}");
        let aggregates = [
            ("Median", Aggregate::Median),
            ("IQM", Aggregate::Iqm),
            ("Mean", Aggregate::Mean),
            ("Optimality gap (lower is better)", Aggregate::OptimalityGap(enough)),
        ];
        let mut rows = Vec::new();
        for (name, aggregate) in aggregates {
            for (method, scores) in self.methods.iter().zip(self.last()) {
                let (low, high) = interval(&[&scores], || aggregate.resampled(&scores, RESAMPLES, seed))?;
                let value = aggregate.of(&scores)?;
                rows.push(AggregateRow { aggregate: name.to_string(), method: method.clone(), value, low, high });
            }
        }
        AggregateRow::frame(&rows)
    }

    /// A row each other method: the probability that `method` is better, by the last scores.
    ///
    /// # Errors
    /// A method that is not there, or that is the only one.
    pub fn improvements(&self, method: &str, seed: u64) -> Result<DataFrame> {
        let at = self.place(method)?;
        ensure!(self.methods.len() > 1, "{method} is the only method: there is nothing to compare it with");
        let scores = self.last();
        let mut rows = Vec::new();
        for (other, found) in self.methods.iter().zip(&scores).filter(|(other, _)| *other != method) {
            let (x, y) = (&scores[at], found);
            let (low, high) = interval(&[x, y], || resampled_improvement(x, y, RESAMPLES, seed))?;
            let probability = probability_of_improvement(x, y)?;
            rows.push(ImprovementRow { method: method.to_string(), other: other.clone(), probability, low, high });
        }
        ImprovementRow::frame(&rows)
    }

    /// A row a method and threshold, `points` of them (two or more) evenly from the lowest to the highest last score.
    ///
    /// # Errors
    /// Fewer than two points.
    pub fn profiles(&self, points: usize, seed: u64) -> Result<DataFrame> {
        ensure!(points > 1, "a profile needs two thresholds: {points}");
        let all = self.last();
        let every = || all.iter().flatten().flatten().copied();
        let (low, high) = every().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let mut rows = Vec::new();
        for (method, scores) in self.methods.iter().zip(&all) {
            for point in 0..points {
                let threshold = low + (high - low) * point as f64 / (points - 1) as f64;
                let resampled = || resampled_share_above(scores, threshold, RESAMPLES, seed);
                let (low, high) = interval(&[scores], resampled)?;
                let share = share_above(scores, threshold)?;
                rows.push(ProfileRow { method: method.clone(), threshold, share, low, high });
            }
        }
        ProfileRow::frame(&rows)
    }

    /// A row a method and number of samples at which some run of it was evaluated, as far as all its runs go; between its
    /// evaluations a run is taken as straight.
    ///
    /// # Errors
    /// A method whose runs have no samples in common.
    pub fn efficiency_curves(&self, seed: u64) -> Result<DataFrame> {
        let mut rows = Vec::new();
        for (method, tasks) in self.methods.iter().zip(&self.runs) {
            let runs = || tasks.iter().flatten();
            let begin = runs().map(|curve| curve[0].0).fold(0.0, f64::max);
            let end = runs().map(|curve| curve[curve.len() - 1].0).fold(f64::INFINITY, f64::min);
            ensure!(
                begin <= end,
                "the runs of {method} have no samples in common: one begins at {begin}, one ends at {end}"
            );
            let mut grid: Vec<f64> = runs().flatten().map(|(samples, _)| *samples).collect();
            grid.retain(|samples| (begin..=end).contains(samples));
            grid.sort_by(f64::total_cmp);
            grid.dedup();
            for samples in grid {
                let of_task = |curves: &Vec<Curve>| curves.iter().map(|curve| at(curve, samples)).collect();
                let scores: Vec<Vec<f64>> = tasks.iter().map(of_task).collect();
                let (low, high) = interval(&[&scores], || Aggregate::Iqm.resampled(&scores, RESAMPLES, seed))?;
                rows.push(EfficiencyCurveRow {
                    method: method.clone(),
                    samples,
                    iqm: Aggregate::Iqm.of(&scores)?,
                    low,
                    high,
                });
            }
        }
        EfficiencyCurveRow::frame(&rows)
    }

    /// A row a task and method: how many times fewer samples it needs than `baseline` to the first evaluation at or above
    /// `level`. The level must be fixed before the runs are seen.
    ///
    /// # Errors
    /// A baseline that is not there; a level at which all runs of a method begin.
    pub fn efficiency(&self, baseline: &str, level: f64, seed: u64) -> Result<DataFrame> {
        let base = self.place(baseline)?;
        let mut rows = Vec::new();
        for (t, task) in self.tasks.iter().enumerate() {
            let reached = |m: usize| -> Result<Vec<Reached>> {
                self.runs[m][t].iter().map(|curve| samples_to(curve, level)).collect()
            };
            let of_baseline = reached(base)?;
            for (m, method) in self.methods.iter().enumerate().filter(|(m, _)| *m != base) {
                let runs = reached(m)?;
                let there = |runs: &[Reached]| runs.iter().filter(|run| matches!(run, Reached::At(_))).count();
                let found = match there(&runs) + there(&of_baseline) {
                    0 => None,
                    _ => {
                        let found = sample_efficiency(&of_baseline, &runs, CONFIDENCE, RESAMPLES, seed);
                        Some(found.with_context(|| format!("{method} against {baseline} on {task}"))?)
                    }
                };
                let reading = found.map(|found| match found.reading {
                    Reading::Exact => "exact",
                    Reading::AtLeast => "at least",
                    Reading::AtMost => "at most",
                    Reading::Restricted => "restricted",
                });
                rows.push(EfficiencyRow {
                    task: task.clone(),
                    method: method.clone(),
                    baseline: baseline.to_string(),
                    level,
                    runs: runs.len() as i64,
                    reached: there(&runs) as i64,
                    ratio: found.map(|found| found.ratio.mean),
                    low: found.map(|found| found.ratio.low),
                    high: found.map(|found| found.ratio.high),
                    reading: reading.map(str::to_string),
                });
            }
        }
        EfficiencyRow::frame(&rows)
    }

    fn place(&self, method: &str) -> Result<usize> {
        let found = self.methods.iter().position(|known| known == method);
        found.with_context(|| format!("no method {method}: there are {}", self.methods.join(", ")))
    }

    /// The last score of every run, \[method\]\[task\]\[run\].
    fn last(&self) -> Vec<Vec<Vec<f64>>> {
        let last = |curve: &Curve| curve[curve.len() - 1].1;
        let of_task = |curves: &Vec<Curve>| curves.iter().map(last).collect();
        self.runs.iter().map(|tasks| tasks.iter().map(of_task).collect()).collect()
    }
}

/// None where no task has a second run.
fn interval(
    scores: &[&Vec<Vec<f64>>],
    resampled: impl FnOnce() -> Result<Resampled>,
) -> Result<(Option<f64>, Option<f64>)> {
    if scores.iter().all(|tasks| tasks.iter().all(|runs| runs.len() == 1)) {
        return Ok((None, None));
    }
    let Interval { low, high, .. } = resampled()?.percentile(CONFIDENCE)?;
    Ok((Some(low), Some(high)))
}

/// A curve's height between its ends.
fn at(curve: &Curve, samples: f64) -> f64 {
    let after = curve.partition_point(|(x, _)| *x < samples);
    let (x1, y1) = curve[after];
    if x1 == samples {
        return y1;
    }
    let (x0, y0) = curve[after - 1];
    y0 + (y1 - y0) * (samples - x0) / (x1 - x0)
}

fn in_order(names: &[String]) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for name in names {
        if !known.contains(name) {
            known.push(name.clone());
        }
    }
    known
}

fn texts(frame: &DataFrame, name: &str) -> Result<Vec<String>> {
    let column = frame.column(name).with_context(|| format!("a comparison needs a column `{name}`"))?;
    let column = column.str().with_context(|| format!("column `{name}` holds no text"))?;
    let texts: Option<Vec<String>> = column.iter().map(|text| text.map(str::to_owned)).collect();
    texts.with_context(|| format!("column `{name}` has a null"))
}

fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<f64>> {
    let column = frame.column(name).with_context(|| format!("a comparison needs a column `{name}`"))?;
    ensure!(column.dtype().is_primitive_numeric(), "column `{name}` holds {}, not numbers", column.dtype());
    let column = column.cast(&DataType::Float64)?;
    let numbers: Option<Vec<f64>> = column.f64()?.iter().collect();
    numbers.with_context(|| format!("column `{name}` has a null"))
}

#[cfg(test)]
mod tests {
    use polars::df;

    use super::*;

    /// Two tasks, three seeds, three evaluations; `fast` gains 3/8 an evaluation, `slow` 1/8. All sums are exact.
    fn evaluations() -> DataFrame {
        let (mut task, mut method, mut seed, mut samples, mut reward) = (vec![], vec![], vec![], vec![], vec![]);
        for t in ["a", "b"] {
            for (name, slope) in [("slow", 0.125), ("fast", 0.375)] {
                for s in 0..3i64 {
                    for k in 0..3i64 {
                        task.push(t);
                        method.push(name);
                        seed.push(s);
                        samples.push(100 * k);
                        let start = if t == "a" { 0.0 } else { 16.0 };
                        reward.push(start + slope * k as f64 + s as f64 / 64.0);
                    }
                }
            }
        }
        df!("task" => task, "method" => method, "seed" => seed, "samples" => samples, "reward" => reward).unwrap()
    }

    fn column(frame: &DataFrame, name: &str) -> Vec<f64> {
        numbers(frame, name).unwrap()
    }

    #[test]
    fn frames_are_those_of_a_hand_computation() {
        let curves = Curves::of(&evaluations()).unwrap().scaled(&[("b", 16.0, 17.0)]).unwrap();
        let aggregates = curves.aggregates(1.0, 0).unwrap();
        let values = column(&aggregates, "value");
        assert_eq!(aggregates.height(), 8);
        // Slow ends at 1/4 with its first seed and 1/64 higher with each other one, fast at 3/4, on both tasks.
        for (row, expected) in [17.0, 49.0, 17.0, 49.0, 17.0, 49.0, 47.0, 15.0].into_iter().enumerate() {
            assert!((values[row] - expected / 64.0).abs() < 1e-12, "{row}: {values:?}");
            assert!(column(&aggregates, "low")[row] <= values[row] && values[row] <= column(&aggregates, "high")[row]);
        }
        let improvements = curves.improvements("fast", 0).unwrap();
        assert_eq!(texts(&improvements, "other").unwrap(), ["slow"]);
        assert_eq!((column(&improvements, "probability"), column(&improvements, "low")), (vec![1.0], vec![1.0]));
        let profiles = curves.profiles(5, 0).unwrap();
        assert_eq!(profiles.height(), 10);
        // At the lowest score one of slow's three is not above it; of fast all are, but at the highest.
        assert!((column(&profiles, "share")[0] - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(column(&profiles, "share")[5..], [1.0, 1.0, 1.0, 1.0, 0.0]);
        let over_samples = curves.efficiency_curves(0).unwrap();
        assert_eq!(column(&over_samples, "samples"), [0.0, 100.0, 200.0, 0.0, 100.0, 200.0]);
        assert!((column(&over_samples, "iqm")[1] - 9.0 / 64.0).abs() < 1e-12);
    }

    #[test]
    fn efficiency_says_who_never_got_there() {
        let curves = Curves::of(&evaluations()).unwrap().scaled(&[("b", 16.0, 17.0)]).unwrap();
        // Of slow, the seeds 1 and 2 reach 0.26 with 200 samples; fast reaches it with 100.
        let found = curves.efficiency("slow", 0.26, 0).unwrap();
        assert_eq!(texts(&found, "task").unwrap(), ["a", "b"]);
        assert_eq!((column(&found, "ratio"), column(&found, "reached")), (vec![2.0, 2.0], vec![3.0, 3.0]));
        assert_eq!(texts(&found, "reading").unwrap(), ["at least", "at least"]);
        let exact = curves.efficiency("slow", 0.2, 0).unwrap();
        assert_eq!(texts(&exact, "reading").unwrap(), ["exact", "exact"]);
        let never = curves.efficiency("slow", 0.9, 0).unwrap();
        assert_eq!((never.column("ratio").unwrap().null_count(), column(&never, "reached")), (2, vec![0.0, 0.0]));
        let error = |frame: Result<DataFrame>| format!("{:#}", frame.unwrap_err());
        assert!(error(curves.efficiency("none", 0.2, 0)).contains("there are slow, fast"));
        assert!(error(curves.efficiency("slow", -1.0, 0)).contains("fast against slow on a"));
    }

    #[test]
    fn one_run_has_no_interval_and_nonsense_is_named() {
        let frame = evaluations();
        let one = Curves::of(&frame.head(Some(3))).unwrap();
        let aggregates = one.aggregates(1.0, 0).unwrap();
        assert_eq!(aggregates.column("low").unwrap().null_count(), 4);
        let error = |frame: DataFrame| format!("{:#}", Curves::of(&frame).unwrap_err());
        assert!(error(frame.head(Some(0))).contains("no evaluations"));
        assert!(error(frame.head(Some(27))).contains("fast has no runs on b"));
        assert!(error(frame.drop("seed").unwrap()).contains("`seed`"));
        let twice = crate::record::stack([frame.clone(), frame.head(Some(1))]).unwrap();
        assert!(error(twice).contains("slow on a has two evaluations of seed 0 after 0 samples"));
        let mut gone = frame.clone();
        gone.with_column(polars::prelude::Column::new("reward".into(), vec![f64::NAN; 36])).unwrap();
        assert!(error(gone).contains("NaN in row 0"));
        assert!(one.improvements("slow", 0).is_err() && one.profiles(1, 0).is_err());
        assert!(one.clone().scaled(&[("c", 0.0, 1.0)]).is_err() && one.scaled(&[("a", 1.0, 1.0)]).is_err());
    }
}
