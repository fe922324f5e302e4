//! BERTScore as frames.

use anyhow::Result;
use polars::prelude::{Column, DataFrame};

use super::{Options, Scores, SummaryRow};
use crate::metrics::{BertScore, BertScorer, Document, TokenWeights};

/// BERTScore. `documents` has the columns `id`, `precision`, `recall` and `f1`, of several references each the highest; the
/// first two are null where all weights are 0. `summary` has the means of those that are there, with bootstrap intervals, and
/// no row where none is.
///
/// # Errors
/// Those of [`BertScorer::score`]; no documents.
pub fn bertscore(
    documents: &[Document],
    scorer: &BertScorer,
    weights: TokenWeights,
    options: &Options,
) -> Result<Scores> {
    let predictions: Vec<&str> = documents.iter().map(|document| &document.prediction[..]).collect();
    let references: Vec<Vec<&str>> =
        documents.iter().map(|document| document.references.iter().map(String::as_str).collect()).collect();
    let scores = scorer.score(&predictions, &references, weights)?;
    let ids: Vec<&str> = documents.iter().map(|document| &document.id[..]).collect();
    let mut columns = vec![Column::new("id".into(), ids)];
    let mut rows = Vec::new();
    let column = |part: fn(&BertScore) -> Option<f64>| -> Vec<Option<f64>> { scores.iter().map(part).collect() };
    let parts =
        [("precision", column(|s| s.precision)), ("recall", column(|s| s.recall)), ("f1", column(|s| Some(s.f1)))];
    for (name, values) in parts {
        let there: Vec<f64> = values.iter().flatten().copied().collect();
        let count = there.len();
        if count > 0 {
            rows.push(SummaryRow::new(name, options.resampling.means(&[there])?[0], count));
        }
        columns.push(Column::new(name.into(), values));
    }
    Ok(Scores { documents: DataFrame::new(documents.len(), columns)?, summary: SummaryRow::frame(&rows)? })
}
