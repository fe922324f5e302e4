//! Reading a frame: typed columns, rows by task and method, and errors that say what to do.

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::{AnyValue, DataFrame, DataType};
use std::collections::BTreeMap;

use super::{fonts, style};

/// The columns of the frame that one figure reads.
pub(super) struct Columns<'a> {
    frame: &'a DataFrame,
    figure: &'static str,
    /// Where such a frame comes from.
    source: &'static str,
}

/// What tells comparisons of one task apart, where a frame has it.
pub(super) const COMPARISON: [&str; 3] = ["parameters", "target", "setting"];

/// Which task, method and seed a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub task: String,
    pub method: String,
    pub seed: i64,
}

impl<'a> Columns<'a> {
    /// # Errors
    /// A frame without rows.
    pub fn of(frame: &'a DataFrame, figure: &'static str, source: &'static str) -> Result<Self> {
        ensure!(
            frame.height() > 0,
            "{figure} got a frame without rows: pass {source}, after at least one run has written some"
        );
        Ok(Self { frame, figure, source })
    }

    /// `task`, `method` and `seed` of every row; none may be null.
    pub fn keys(&self) -> Result<Vec<RowKey>> {
        let tasks = self.texts("task")?;
        let methods = self.texts("method")?;
        let seeds = self.required_integers("seed")?;
        let pairs = tasks.into_iter().zip(methods);
        Ok(pairs
            .zip(seeds)
            .map(|((task, method), seed)| RowKey { task: fonts::clean(&task), method: fonts::clean(&method), seed })
            .collect())
    }

    /// Makes sure that the rows of one task are those of one comparison: of each of these columns that the frame has, they
    /// have one value.
    ///
    /// # Errors
    /// Two values: means over them would mean nothing.
    pub fn unmixed(&self, names: &[&str]) -> Result<()> {
        let tasks = self.texts("task")?;
        for name in names {
            let Ok(column) = self.frame.column(name) else { continue };
            let mut known: BTreeMap<&str, AnyValue> = BTreeMap::new();
            for (row, task) in tasks.iter().enumerate() {
                let value = column.get(row)?;
                let first = known.entry(task).or_insert_with(|| value.clone());
                ensure!(
                    *first == value,
                    "{} got rows of {task} whose `{name}` is {first}, and others of {value}, which do not belong together: \
                     filter the frame to one, as by frames::only(&frame, \"{name}\", {first})",
                    self.figure
                );
            }
        }
        Ok(())
    }

    /// Makes sure that all rows are of one task and one comparison.
    pub fn one_task(&self) -> Result<String> {
        let tasks = self.texts("task")?;
        if let Some(other) = tasks.iter().find(|task| **task != tasks[0]) {
            bail!(
                "{} shows one task, and the frame has {} and {other}: filter it by `task`, as by \
                 frames::only(&frame, \"task\", \"{}\")",
                self.figure,
                tasks[0],
                tasks[0]
            );
        }
        self.unmixed(&COMPARISON)?;
        Ok(fonts::clean(&tasks[0]))
    }

    /// Texts, none of them null.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let column = self.column(name)?;
        let texts = column.str().with_context(|| self.wrong_type(name, "text"))?;
        let texts: Option<Vec<String>> = texts.iter().map(|text| text.map(str::to_owned)).collect();
        texts.with_context(|| self.null_key(name))
    }

    /// Whole numbers, none of them null.
    pub fn required_integers(&self, name: &str) -> Result<Vec<i64>> {
        let column = self.column(name)?;
        ensure!(column.dtype().is_integer(), self.wrong_type(name, "whole numbers"));
        let column = column.strict_cast(&DataType::Int64)?;
        let integers: Option<Vec<i64>> = column.i64()?.iter().collect();
        integers.with_context(|| self.null_key(name))
    }

    /// Numbers, of which at least one is there and every one is finite.
    pub fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        self.not_all_null(name)?;
        self.optional_numbers(name)
    }

    /// Finite numbers, or nulls, all of them if need be.
    pub fn optional_numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let column = self.column(name)?;
        if column.null_count() == self.frame.height() {
            return Ok(vec![None; self.frame.height()]);
        }
        ensure!(column.dtype().is_primitive_numeric(), self.wrong_type(name, "numbers"));
        let column = column.cast(&DataType::Float64)?;
        let numbers: Vec<Option<f64>> = column.f64()?.iter().collect();
        if let Some(row) = numbers.iter().position(|x| x.is_some_and(|x| !x.is_finite())) {
            bail!("column `{name}` is not finite in row {row}: that run has gone wrong; filter it out, and say so");
        }
        Ok(numbers)
    }

    /// Finite numbers, none of them null.
    pub fn required_numbers(&self, name: &str) -> Result<Vec<f64>> {
        let numbers: Option<Vec<f64>> = self.numbers(name)?.into_iter().collect();
        numbers.with_context(|| self.null_key(name))
    }

    /// Lists of `length` counts that are finite and not negative; at least one list is there.
    pub fn histograms(&self, name: &str, length: usize) -> Result<Vec<Option<Vec<f64>>>> {
        let column = self.column(name)?;
        self.not_all_null(name)?;
        let lists = column.list().with_context(|| self.wrong_type(name, "lists of numbers"))?;
        let read = |(row, list): (usize, Option<polars::prelude::Series>)| {
            let Some(list) = list else { return Ok(None) };
            ensure!(list.dtype().is_primitive_numeric(), self.wrong_type(name, "lists of numbers"));
            let list = list.cast(&DataType::Float64)?;
            let counts: Vec<f64> = list.f64()?.iter().flatten().collect();
            ensure!(
                counts.len() == length && counts.iter().all(|x| x.is_finite() && *x >= 0.0),
                "column `{name}` has no histogram in row {row}: expected {length} counts from 0 up, found {} values",
                counts.len()
            );
            Ok(Some(counts))
        };
        (0..lists.len()).map(|row| read((row, lists.get_as_series(row)))).collect()
    }

    fn column(&self, name: &str) -> Result<&'a polars::prelude::Column> {
        self.frame.column(name).ok().with_context(|| {
            let names: Vec<_> = self.frame.get_column_names().iter().map(|n| n.as_str()).collect();
            format!(
                "{} needs a column `{name}`, and the frame has only {}: pass {}",
                self.figure,
                names.join(", "),
                self.source
            )
        })
    }

    fn not_all_null(&self, name: &str) -> Result<()> {
        ensure!(
            self.column(name)?.null_count() < self.frame.height(),
            "column `{name}` is null in every row, so that {} has nothing to draw: pass {}",
            self.figure,
            self.source
        );
        Ok(())
    }

    fn wrong_type(&self, name: &str, expected: &str) -> String {
        let found = self.frame.column(name).map_or(&DataType::Null, |column| column.dtype());
        format!("column `{name}` holds {found}, and {} needs {expected}", self.figure)
    }

    fn null_key(&self, name: &str) -> String {
        format!("column `{name}` has a null: every row of {} needs its {name}", self.source)
    }
}

/// All rows of one task, by method.
pub(super) struct Task<T> {
    pub name: String,
    pub methods: Vec<(String, Vec<T>)>,
}

/// Sorts rows by task, in the order in which tasks appear, and by method, in the order of every legend.
pub(super) fn by_task<T>(rows: impl IntoIterator<Item = (RowKey, T)>) -> Vec<Task<T>> {
    let mut tasks: Vec<Task<T>> = Vec::new();
    for (key, row) in rows {
        let task = match tasks.iter().position(|task| task.name == key.task) {
            Some(at) => &mut tasks[at],
            None => {
                tasks.push(Task { name: key.task, methods: Vec::new() });
                tasks.last_mut().expect("a task was pushed just now")
            }
        };
        match task.methods.iter_mut().find(|(name, _)| *name == key.method) {
            Some((_, rows)) => rows.push(row),
            None => task.methods.push((key.method, vec![row])),
        }
    }
    for task in &mut tasks {
        task.methods.sort_by(|(a, _), (b, _)| style::order(a).cmp(&style::order(b)));
    }
    tasks
}

/// Every method of all tasks once, in the order of every legend.
pub(super) fn methods<T>(tasks: &[Task<T>]) -> Vec<&str> {
    let mut names: Vec<&str> =
        tasks.iter().flat_map(|task| task.methods.iter().map(|(name, _)| name.as_str())).collect();
    names.sort_by_key(|name| style::order(name));
    names.dedup();
    names
}
