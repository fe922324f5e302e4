//! BERTScore as frames.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use crate::metrics::{BertScore, BertScorer, TokenWeights, t_interval};
use crate::record::record;

record! {
    /// The BERTScore of one candidate; of several references each number is the highest.
    pub struct BertScoreRow {
        /// Its place among the candidates, from 0.
        pub candidate: i64,
        /// Null where all weights are 0.
        pub precision: Option<f64>,
        pub recall: Option<f64>,
        pub f1: f64,
    }
}

record! {
    /// The mean of one number over the candidates, with Student's interval of 95 %.
    pub struct BertScoreSummaryRow {
        /// `precision`, `recall` or `f1`.
        pub score: String,
        /// The candidates that have the number.
        pub candidates: i64,
        pub mean: f64,
        pub low: f64,
        pub high: f64,
    }
}

/// One row a candidate.
///
/// # Errors
/// Those of [`BertScorer::score`].
pub fn bertscore<C: AsRef<str>, R: AsRef<str>>(
    scorer: &BertScorer,
    candidates: &[C],
    references: &[Vec<R>],
    weights: TokenWeights,
) -> Result<DataFrame> {
    let scores = scorer.score(candidates, references, weights)?;
    let row = |(candidate, &BertScore { precision, recall, f1 }): (usize, &BertScore)| BertScoreRow {
        candidate: candidate as i64,
        precision,
        recall,
        f1,
    };
    BertScoreRow::frame(&scores.iter().enumerate().map(row).collect::<Vec<_>>())
}

/// The means of a frame of [`bertscore`].
///
/// # Errors
/// A frame of another kind; no candidate has one of the numbers.
pub fn bertscore_summary(scores: &DataFrame) -> Result<DataFrame> {
    let row = |name: &str| {
        let values: Vec<f64> = scores.column(name)?.f64()?.iter().flatten().collect();
        let interval = t_interval(&values, 0.95).with_context(|| format!("no candidate has a {name}"))?;
        Ok(BertScoreSummaryRow {
            score: name.to_string(),
            candidates: values.len() as i64,
            mean: interval.mean,
            low: interval.low,
            high: interval.high,
        })
    };
    BertScoreSummaryRow::frame(&["precision", "recall", "f1"].map(row).into_iter().collect::<Result<Vec<_>>>()?)
}
