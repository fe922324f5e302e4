//! What a comparison of methods says, a row a number. Intervals are of 95%.

use crate::record::record;

record! {
    /// One number for all runs of a method; the interval is null where every task has one run.
    pub struct AggregateRow {
        pub aggregate: String,
        pub method: String,
        /// In the unit of the scores.
        pub value: f64,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

record! {
    /// How probable it is that a run of `method` scores above one of `other` on the same task, ties counted half.
    pub struct ImprovementRow {
        pub method: String,
        pub other: String,
        pub probability: f64,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

record! {
    /// The share of a method's runs that score above a threshold.
    pub struct ProfileRow {
        pub method: String,
        pub threshold: f64,
        pub share: f64,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

record! {
    /// The interquartile mean of a method's runs after so many samples.
    pub struct EfficiencyCurveRow {
        pub method: String,
        pub samples: f64,
        pub iqm: f64,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

record! {
    /// How many times fewer samples than the baseline a method needs to a score that was fixed ahead.
    pub struct EfficiencyRow {
        pub task: String,
        pub method: String,
        pub baseline: String,
        pub level: f64,
        pub runs: i64,
        /// Of these runs, so many got there.
        pub reached: i64,
        /// The baseline's restricted mean of samples over the method's; null where no run of either got there.
        pub ratio: Option<f64>,
        pub low: Option<f64>,
        pub high: Option<f64>,
        /// What the ratio says of that of the true means: `exact`, `at least`, `at most`, or `restricted` where runs of both
        /// never got there.
        pub reading: Option<String>,
    }
}
