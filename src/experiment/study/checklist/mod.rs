//! What is checked after every run: data, stability, theory, performance. A check that fails is shown.

mod data;
mod performance;
mod stability;
mod theory;

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame};

use super::frames::{Comparison, Labels, OneRun, comparisons, labelled, texts};
use crate::record::record;

record! {
    /// One check of one run.
    pub struct CheckRow {
        /// `data quality`, `training stability`, `theoretical consistency`, `performance`.
        pub group: String,
        pub check: String,
        /// `passed`, `FAILED`, `not applicable`.
        pub result: String,
        /// What was looked at; it passes from `least` to `most`.
        pub value: Option<f64>,
        pub least: Option<f64>,
        pub most: Option<f64>,
        pub reason: String,
    }
}

impl CheckRow {
    pub const PASSED: &str = "passed";
    pub const FAILED: &str = "FAILED";
    pub const NOT_APPLICABLE: &str = "not applicable";
}

/// A run as the checks see it.
struct Subject<'a> {
    comparison: &'a Comparison,
    method: &'a str,
    seed: i64,
    evaluations: &'a OneRun,
    steps: Option<&'a OneRun>,
    samples: Option<&'a OneRun>,
}

impl<'a> Subject<'a> {
    /// The run of another method with the same seed.
    fn of(comparison: &'a Comparison, method: &str, seed: i64) -> Option<Self> {
        let runs = comparison.method(method)?;
        let find = |runs: &'a [OneRun]| runs.iter().find(|run| run.seed == seed);
        Some(Self {
            comparison,
            method: &runs.method,
            seed,
            evaluations: find(&runs.evaluations)?,
            steps: find(&runs.steps),
            samples: find(&runs.samples),
        })
    }
}

/// What a check found.
struct Found {
    /// None: it does not apply, or nothing can be said.
    value: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
    reason: String,
}

impl Found {
    fn not_applicable(reason: impl Into<String>) -> Self {
        Self { value: None, least: None, most: None, reason: reason.into() }
    }

    fn at_most(value: f64, most: f64, reason: impl Into<String>) -> Self {
        Self { value: Some(value), least: None, most: Some(most), reason: reason.into() }
    }

    fn at_least(value: f64, least: f64, reason: impl Into<String>) -> Self {
        Self { value: Some(value), least: Some(least), most: None, reason: reason.into() }
    }

    fn within(value: f64, (least, most): (f64, f64), reason: impl Into<String>) -> Self {
        Self { value: Some(value), least: Some(least), most: Some(most), reason: reason.into() }
    }

    /// What is not a number lies within no bounds.
    fn result(&self) -> &'static str {
        let Some(value) = self.value else { return CheckRow::NOT_APPLICABLE };
        let inside = self.least.is_none_or(|least| value >= least) && self.most.is_none_or(|most| value <= most);
        if inside && !value.is_nan() { CheckRow::PASSED } else { CheckRow::FAILED }
    }
}

/// The name of a check, its group, and how it looks.
struct Check {
    group: &'static str,
    name: &'static str,
    look: fn(&Subject) -> Result<Found>,
}

const fn check(group: &'static str, name: &'static str, look: fn(&Subject) -> Result<Found>) -> Check {
    Check { group, name, look }
}

const DATA: &str = "data quality";
const STABILITY: &str = "training stability";
const THEORY: &str = "theoretical consistency";
const PERFORMANCE: &str = "performance";

const CHECKS: [Check; 14] = [
    check(DATA, "no NaN or Inf", data::finite),
    check(DATA, "no outliers", data::outliers),
    check(DATA, "diverse samples", data::diverse),
    check(STABILITY, "loss falls", stability::loss),
    check(STABILITY, "gradient does not explode", stability::explosion),
    check(STABILITY, "gradient does not vanish", stability::vanishing),
    check(STABILITY, "KL in bounds", stability::divergence),
    check(STABILITY, "does not starve", stability::starving),
    check(THEORY, "ESS ratio near 1", theory::balance),
    check(THEORY, "α* in [0.2, 0.8]", theory::alpha),
    check(THEORY, "weights not extreme", theory::weights),
    check(PERFORMANCE, "a metric above the baseline", performance::above_baseline),
    check(PERFORMANCE, "p < 0.05", performance::significant),
    check(PERFORMANCE, "small variance over seeds", performance::spread),
];

/// The checklist: a row for every check of every run that has evaluations.
///
/// # Errors
/// Frames without the labels of runs, or without a column that a check reads. What is wrong with the numbers of a run is no
/// error here: it is what the checks are for.
pub fn checklist(steps: &DataFrame, evaluations: &DataFrame, samples: &DataFrame) -> Result<DataFrame> {
    let (mut labels, mut rows) = (Vec::new(), Vec::new());
    for comparison in comparisons(evaluations, samples, steps)? {
        for runs in &comparison.methods {
            for run in &runs.evaluations {
                let Some(subject) = Subject::of(&comparison, &runs.method, run.seed) else { continue };
                for check in &CHECKS {
                    let about = || format!("{} of {}, seed {}", check.name, subject.method, subject.seed);
                    let found = (check.look)(&subject).with_context(about)?;
                    labels.push(Labels::of_run(&comparison.place, subject.method, subject.seed));
                    rows.push(CheckRow {
                        group: check.group.to_owned(),
                        check: check.name.to_owned(),
                        result: found.result().to_owned(),
                        value: found.value,
                        least: found.least,
                        most: found.most,
                        reason: found.reason,
                    });
                }
            }
        }
    }
    labelled(&CheckRow::frame(&rows)?, &labels)
}

/// How many runs of each method failed each check: a row a method, a column a check (null where it never applied), with the
/// number of runs and of all failures in front.
///
/// # Errors
/// A frame that is not of [`checklist`].
pub fn checklist_summary(checklist: &DataFrame) -> Result<DataFrame> {
    let [methods, checks, results] = ["method", "check", "result"].map(|name| texts(checklist, name));
    let (methods, checks, results) = (methods?, checks?, results?);
    let rows = || methods.iter().zip(&checks).zip(&results);
    let in_order = |names: &[String]| {
        let mut known: Vec<String> = Vec::new();
        names.iter().for_each(|name| {
            if !known.contains(name) {
                known.push(name.clone());
            }
        });
        known
    };
    let (names, columns) = (in_order(&methods), in_order(&checks));
    let count = |method: &String, check: &String, result: &str| {
        rows().filter(|((m, c), r)| *m == method && *c == check && **r == result).count() as i64
    };
    let failed = |method: &String, check: &String| {
        let failed = count(method, check, CheckRow::FAILED);
        (failed + count(method, check, CheckRow::PASSED) > 0).then_some(failed)
    };
    // Every run has every check once.
    let runs: Vec<i64> = names
        .iter()
        .map(|method| rows().filter(|((m, c), _)| *m == method && Some(*c) == columns.first()).count() as i64)
        .collect();
    let all: Vec<i64> =
        names.iter().map(|method| columns.iter().filter_map(|check| failed(method, check)).sum()).collect();
    let mut table = vec![
        Column::new("method".into(), names.clone()),
        Column::new("runs".into(), runs),
        Column::new("failures".into(), all),
    ];
    for check in &columns {
        let counts: Vec<Option<i64>> = names.iter().map(|method| failed(method, check)).collect();
        table.push(Column::new(check.as_str().into(), counts));
    }
    Ok(DataFrame::new(names.len(), table)?)
}
