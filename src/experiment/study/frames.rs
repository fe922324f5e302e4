//! The frames of many runs, read: which rows are one run's, which runs are one method's, which methods are compared.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::{Column, DataFrame, DataType, IdxCa};

/// What all methods of one comparison share. A label that the frame has no column for is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub task: String,
    /// Of π_init.
    pub parameters: Option<i64>,
    pub target: Option<String>,
    /// `common` or `tuned`.
    pub setting: Option<String>,
}

impl Place {
    /// Whether rows of `other` may be held against rows of this place: labels that both have agree.
    pub fn agrees_with(&self, other: &Place) -> bool {
        fn same<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.task == other.task
            && same(&self.parameters, &other.parameters)
            && same(&self.target, &other.target)
            && same(&self.setting, &other.setting)
    }

    /// For sentences and errors.
    pub fn in_words(&self) -> String {
        let parameters = self.parameters.map(|count| format!("{count} parameters"));
        let target = self.target.as_ref().map(|target| format!("target {target}"));
        let setting = self.setting.as_ref().map(|setting| format!("{setting} setting"));
        [Some(self.task.clone()), parameters, target, setting].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The runs of one method at one place, by seed.
#[derive(Debug, Clone)]
pub(super) struct Arm {
    pub place: Place,
    pub method: String,
    pub runs: Vec<OneRun>,
}

/// The rows of one run in one frame, in the order of their steps.
#[derive(Debug, Clone)]
pub(super) struct OneRun {
    pub seed: i64,
    pub rows: DataFrame,
}

/// The methods of one place.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub place: Place,
    pub methods: Vec<MethodRuns>,
}

/// One method's runs in the three frames; those of samples and steps are empty where the frame has none of it.
#[derive(Debug, Clone)]
pub(super) struct MethodRuns {
    pub method: String,
    pub evaluations: Vec<OneRun>,
    pub samples: Vec<OneRun>,
    pub steps: Vec<OneRun>,
}

impl Comparison {
    pub fn method(&self, name: &str) -> Option<&MethodRuns> {
        self.methods.iter().find(|runs| runs.method == name)
    }
}

/// Every place of the evaluations with its methods, in the order in which they appear.
///
/// # Errors
/// No evaluations; as [`arms`].
pub(super) fn comparisons(evaluations: &DataFrame, samples: &DataFrame, steps: &DataFrame) -> Result<Vec<Comparison>> {
    ensure!(evaluations.height() > 0, "there are no evaluations: pass those of runs that have written some");
    let mut samples = by_key(arms(samples).context("the frame of samples")?);
    let mut steps = by_key(arms(steps).context("the frame of steps")?);
    let mut found: Vec<Comparison> = Vec::new();
    for Arm { place, method, runs } in arms(evaluations).context("the frame of evaluations")? {
        check_steps(&runs).with_context(|| format!("{method} on {}", place.in_words()))?;
        let key = (place, method);
        let (samples, steps) = (samples.remove(&key).unwrap_or_default(), steps.remove(&key).unwrap_or_default());
        let (place, method) = key;
        let runs = MethodRuns { method, evaluations: runs, samples, steps };
        match found.iter_mut().find(|known| known.place == place) {
            Some(known) => known.methods.push(runs),
            None => found.push(Comparison { place, methods: vec![runs] }),
        }
    }
    Ok(found)
}

fn by_key(arms: Vec<Arm>) -> HashMap<(Place, String), Vec<OneRun>> {
    arms.into_iter().map(|arm| ((arm.place, arm.method), arm.runs)).collect()
}

/// An evaluation a step: more are those of several runs under one name.
fn check_steps(runs: &[OneRun]) -> Result<()> {
    for run in runs {
        let steps = run.all("step")?;
        if let Some(twice) = steps.windows(2).find(|two| two[0] == two[1]) {
            bail!("seed {} has two evaluations at step {}: the frame mixes runs", run.seed, twice[0]);
        }
    }
    Ok(())
}

/// The runs of a frame by place and method, in the order in which they appear; seeds ascend.
///
/// # Errors
/// A frame without the columns `task`, `method`, `seed` and `step`, or with a null in them.
pub(super) fn arms(frame: &DataFrame) -> Result<Vec<Arm>> {
    let step = integers(frame, "step")?;
    grouped(frame, &step)
}

/// The rows of a frame of gradient noise by θ, place and method: one row a seed.
///
/// # Errors
/// A frame without the columns `theta`, `task`, `method`, `seed` and `noise`; two rows of one seed.
pub(super) fn arms_of_noise(frame: &DataFrame) -> Result<Vec<(String, Arm)>> {
    frame.column("noise").context("there is no column `noise`: pass the frame of `gradient_noise`")?;
    let theta = texts(frame, "theta")?;
    let mut names: Vec<&String> = Vec::new();
    for name in &theta {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut found = Vec::new();
    for name in names {
        let rows: Vec<u32> = (0..frame.height()).filter(|row| theta[*row] == *name).map(|row| row as u32).collect();
        let frame = frame.take(&IdxCa::from_vec("".into(), rows))?;
        for arm in grouped(&frame, &vec![0; frame.height()])? {
            let twice = arm.runs.iter().find(|run| run.rows.height() > 1);
            ensure!(
                twice.is_none(),
                "{} on {} has two rows of one seed at {name}: label frames of several worlds before they are stacked",
                arm.method,
                arm.place.in_words()
            );
            found.push((name.clone(), arm));
        }
    }
    Ok(found)
}

/// The rows of a table by place, each for itself.
pub(super) fn rows_by_place(table: &DataFrame) -> Result<Vec<(Place, Vec<OneRun>)>> {
    let mut found: Vec<(Place, Vec<OneRun>)> = Vec::new();
    for (row, place) in places(table)?.into_iter().enumerate() {
        let rows = table.take(&IdxCa::from_vec("".into(), vec![row as u32]))?;
        let one = OneRun { seed: 0, rows };
        match found.iter_mut().find(|(known, _)| *known == place) {
            Some((_, rows)) => rows.push(one),
            None => found.push((place, vec![one])),
        }
    }
    Ok(found)
}

/// Where every row belongs.
fn places(frame: &DataFrame) -> Result<Vec<Place>> {
    let optional = |name: &str| frame.get_column_index(name).is_some();
    let task = texts(frame, "task")?;
    let parameters = optional("parameters").then(|| integers(frame, "parameters")).transpose()?;
    let target = optional("target").then(|| texts(frame, "target")).transpose()?;
    let setting = optional("setting").then(|| texts(frame, "setting")).transpose()?;
    let place = |(row, task): (usize, String)| {
        let text = |column: &Option<Vec<String>>| column.as_ref().map(|column| column[row].clone());
        let parameters = parameters.as_ref().map(|column| column[row]);
        Place { task, parameters, target: text(&target), setting: text(&setting) }
    };
    Ok(task.into_iter().enumerate().map(place).collect())
}

/// Which rows of a frame belong to each seed.
type RowsBySeed = Vec<(i64, Vec<u32>)>;

/// Runs by place and method; the rows of each ascend in `order`.
fn grouped(frame: &DataFrame, order: &[i64]) -> Result<Vec<Arm>> {
    let (method, seed) = (texts(frame, "method")?, integers(frame, "seed")?);
    let mut known: HashMap<(Place, String), usize> = HashMap::new();
    let mut found: Vec<(Place, String, RowsBySeed)> = Vec::new();
    for (row, key) in places(frame)?.into_iter().zip(method).enumerate() {
        let at = *known.entry(key.clone()).or_insert(found.len());
        if at == found.len() {
            found.push((key.0, key.1, Vec::new()));
        }
        let runs = &mut found[at].2;
        match runs.iter_mut().rev().find(|run| run.0 == seed[row]) {
            Some(run) => run.1.push(row as u32),
            None => runs.push((seed[row], vec![row as u32])),
        }
    }
    let run = |(seed, mut rows): (i64, Vec<u32>)| {
        rows.sort_by_key(|row| order[*row as usize]);
        let rows = frame.take(&IdxCa::from_vec("".into(), rows))?;
        Ok(OneRun { seed, rows })
    };
    let arm = |(place, method, mut runs): (Place, String, RowsBySeed)| {
        runs.sort_by_key(|run| run.0);
        Ok(Arm { place, method, runs: runs.into_iter().map(run).collect::<Result<_>>()? })
    };
    found.into_iter().map(arm).collect()
}

impl OneRun {
    /// A column's numbers, one a row; a number that is not finite stays what it is.
    pub fn series(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let column = self.column(name)?;
        if column.null_count() == column.len() {
            return Ok(vec![None; column.len()]);
        }
        ensure!(column.dtype().is_primitive_numeric(), "column `{name}` holds {}, not numbers", column.dtype());
        Ok(column.cast(&DataType::Float64)?.f64()?.iter().collect())
    }

    /// The numbers of a column that has no null.
    ///
    /// # Errors
    /// A null, or a number that is not finite: a statistic of it would hide it.
    pub fn all(&self, name: &str) -> Result<Vec<f64>> {
        let wrong = |row: usize, what: &str| {
            format!(
                "column `{name}` is {what} in row {row} of seed {}: leave this run out, and say so; `checklist` shows it",
                self.seed
            )
        };
        let series = self.series(name)?;
        let checked = series.iter().enumerate().map(|(row, value)| {
            let value = value.with_context(|| wrong(row, "null"))?;
            ensure!(value.is_finite(), wrong(row, &value.to_string()));
            Ok(value)
        });
        checked.collect()
    }

    /// The numbers that are there.
    ///
    /// # Errors
    /// A number that is NaN.
    pub fn some(&self, name: &str) -> Result<Vec<f64>> {
        let values: Vec<f64> = self.series(name)?.into_iter().flatten().collect();
        ensure!(
            !values.iter().any(|x| x.is_nan()),
            "column `{name}` of seed {} holds NaN: `checklist` shows it",
            self.seed
        );
        Ok(values)
    }

    /// Texts; a null is the empty text.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let column = self.column(name)?.str().with_context(|| format!("column `{name}` holds no text"))?;
        Ok(column.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
    }

    /// Truths; a null is false.
    pub fn flags(&self, name: &str) -> Result<Vec<bool>> {
        let column = self.column(name)?.bool().with_context(|| format!("column `{name}` holds no truths"))?;
        Ok(column.iter().map(|flag| flag.unwrap_or_default()).collect())
    }

    fn column(&self, name: &str) -> Result<&Column> {
        self.rows.column(name).with_context(|| format!("there is no column `{name}`"))
    }
}

/// The frame with the labels of its rows in front: `task`, `parameters`, `target`, `method`, `setting`, `seed`, those of
/// them that are there.
pub(super) fn labelled(frame: &DataFrame, labels: &[Labels]) -> Result<DataFrame> {
    let mut columns: Vec<Column> = Vec::new();
    let mut push = |column: Column| columns.push(column);
    push(Column::new("task".into(), labels.iter().map(|label| label.place.task.clone()).collect::<Vec<_>>()));
    let some = |of: &dyn Fn(&Labels) -> bool| labels.iter().any(of);
    if some(&|label| label.place.parameters.is_some()) {
        push(Column::new("parameters".into(), labels.iter().map(|label| label.place.parameters).collect::<Vec<_>>()));
    }
    if some(&|label| label.place.target.is_some()) {
        push(Column::new("target".into(), labels.iter().map(|label| label.place.target.clone()).collect::<Vec<_>>()));
    }
    if some(&|label| label.method.is_some()) {
        push(Column::new("method".into(), labels.iter().map(|label| label.method.clone()).collect::<Vec<_>>()));
    }
    if some(&|label| label.place.setting.is_some()) {
        push(Column::new("setting".into(), labels.iter().map(|label| label.place.setting.clone()).collect::<Vec<_>>()));
    }
    if some(&|label| label.seed.is_some()) {
        push(Column::new("seed".into(), labels.iter().map(|label| label.seed).collect::<Vec<_>>()));
    }
    columns.extend(frame.columns().iter().cloned());
    Ok(DataFrame::new(frame.height(), columns)?)
}

/// What a row of a table is about.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub place: Place,
    pub method: Option<String>,
    pub seed: Option<i64>,
}

impl Labels {
    pub fn of_place(place: &Place) -> Self {
        Self { place: place.clone(), method: None, seed: None }
    }

    pub fn of_method(place: &Place, method: &str) -> Self {
        Self { method: Some(method.to_owned()), ..Self::of_place(place) }
    }

    pub fn of_run(place: &Place, method: &str, seed: i64) -> Self {
        Self { seed: Some(seed), ..Self::of_method(place, method) }
    }
}

/// A column of texts, none of them null.
pub(super) fn texts(frame: &DataFrame, name: &str) -> Result<Vec<String>> {
    let column = frame.column(name).with_context(|| format!("there is no column `{name}`"))?;
    let column = column.str().with_context(|| format!("column `{name}` holds no text"))?;
    let texts: Option<Vec<String>> = column.iter().map(|text| text.map(str::to_owned)).collect();
    texts.with_context(|| format!("column `{name}` has a null"))
}

fn integers(frame: &DataFrame, name: &str) -> Result<Vec<i64>> {
    let column = frame.column(name).with_context(|| format!("there is no column `{name}`"))?;
    ensure!(column.dtype().is_integer(), "column `{name}` holds {}, not whole numbers", column.dtype());
    let integers: Option<Vec<i64>> = column.cast(&DataType::Int64)?.i64()?.iter().collect();
    integers.with_context(|| format!("column `{name}` has a null"))
}
