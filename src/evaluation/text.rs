//! Texts beside their references.

use anyhow::{Result, ensure};
use polars::prelude::{Column, DataFrame};

use super::{Options, Scores, SummaryRow};
use crate::metrics::{AnswerScore, Bleu, Chrf, Document, Rouge, RougeScore, answer_score};
use crate::progress::Progress;

/// Documents between two signs of progress.
const SLAB: usize = 20_000;

/// ROUGE. `documents` has the columns `id` and, for each kind, for example `rouge1_precision`, `rouge1_recall` and `rouge1_f`;
/// `summary` their means with bootstrap intervals.
///
/// # Errors
/// No documents, or one without a reference; it is named.
pub fn rouge(documents: &[Document], rouge: &Rouge, options: &Options) -> Result<Scores> {
    let scores = in_slabs("ROUGE", documents, |slab| rouge.score_all(slab, options.workers))?;
    let mut columns = Vec::new();
    for (index, kind) in rouge.kinds().iter().enumerate() {
        let column = |part: fn(&RougeScore) -> f64| scores.iter().map(|kinds| part(&kinds[index])).collect();
        columns.push((format!("{kind}_precision"), column(|score| score.precision)));
        columns.push((format!("{kind}_recall"), column(|score| score.recall)));
        columns.push((format!("{kind}_f"), column(|score| score.f)));
    }
    of_means(documents, columns, options)
}

/// Exact match and F1 of answers. `documents` has the columns `id`, `exact_match`, `f1`; `summary` their means with
/// bootstrap intervals.
///
/// # Errors
/// No documents, or one without a reference; it is named.
pub fn exact_match(documents: &[Document], options: &Options) -> Result<Scores> {
    let scores = in_slabs("exact match", documents, |slab| slab.iter().map(answer_score).collect())?;
    let column = |part: fn(&AnswerScore) -> f64| scores.iter().map(part).collect();
    let columns = vec![("exact_match".to_owned(), column(|s| s.exact_match)), ("f1".to_owned(), column(|s| s.f1))];
    of_means(documents, columns, options)
}

/// BLEU of the corpus, with sacrebleu's signature and a bootstrap interval over documents. `documents` has the columns `id`, `bleu` (of
/// the document alone, with effective order), `brevity_penalty`, `length`, `reference_length`.
///
/// # Errors
/// No documents, or one without a reference; it is named.
pub fn bleu(documents: &[Document], bleu: &Bleu, options: &Options) -> Result<Scores> {
    let statistics = in_slabs("BLEU", documents, |slab| bleu.statistics_all(slab, options.workers))?;
    let of_sentence = Bleu { effective_order: true, ..*bleu };
    let sentences: Vec<_> = statistics.iter().map(|statistics| of_sentence.score(statistics)).collect();
    let corpus = options
        .resampling
        .intervals(documents.len(), |drawn| vec![bleu.score(&drawn.iter().map(|&at| &statistics[at]).sum()).score])?;
    let mut columns = vec![ids(documents)];
    columns.push(column("bleu", sentences.iter().map(|s| s.score)));
    columns.push(column("brevity_penalty", sentences.iter().map(|s| s.brevity_penalty)));
    columns.push(counts("length", statistics.iter().map(|s| s.length)));
    columns.push(counts("reference_length", statistics.iter().map(|s| s.reference_length)));
    let mut row = SummaryRow::new("bleu", corpus[0], documents.len());
    row.signature = Some(bleu.signature(documents));
    Ok(Scores { documents: DataFrame::new(documents.len(), columns)?, summary: SummaryRow::frame(&[row])? })
}

/// chrF of the corpus, with sacrebleu's signature and a bootstrap interval over documents. `documents` has the columns `id` and,
/// as the metric's name, for example `chrF2` (of the document alone).
///
/// # Errors
/// No documents, or one without a reference; it is named.
pub fn chrf(documents: &[Document], chrf: &Chrf, options: &Options) -> Result<Scores> {
    let statistics = in_slabs("chrF", documents, |slab| chrf.statistics_all(slab, options.workers))?;
    let corpus = options
        .resampling
        .intervals(documents.len(), |drawn| vec![chrf.score(&drawn.iter().map(|&at| &statistics[at]).sum())])?;
    let columns = vec![ids(documents), column(&chrf.name(), statistics.iter().map(|s| chrf.score(s)))];
    let mut row = SummaryRow::new(chrf.name(), corpus[0], documents.len());
    row.signature = Some(chrf.signature(documents));
    Ok(Scores { documents: DataFrame::new(documents.len(), columns)?, summary: SummaryRow::frame(&[row])? })
}

/// Scores slab after slab, with progress where there is more than one.
fn in_slabs<R>(
    label: &str,
    documents: &[Document],
    mut score: impl FnMut(&[Document]) -> Result<Vec<R>>,
) -> Result<Vec<R>> {
    ensure!(!documents.is_empty(), "{label} of no documents");
    if documents.len() <= SLAB {
        return score(documents);
    }
    let progress = Progress::new(label, documents.len() as u64);
    let mut scores = Vec::with_capacity(documents.len());
    for slab in documents.chunks(SLAB) {
        scores.extend(score(slab)?);
        progress.inc(slab.len() as u64);
    }
    progress.finish();
    Ok(scores)
}

fn of_means(documents: &[Document], columns: Vec<(String, Vec<f64>)>, options: &Options) -> Result<Scores> {
    let (names, values): (Vec<String>, Vec<Vec<f64>>) = columns.into_iter().unzip();
    let intervals = options.resampling.means(&values)?;
    let rows = names.iter().zip(intervals).map(|(name, interval)| SummaryRow::new(name, interval, documents.len()));
    let rows: Vec<SummaryRow> = rows.collect();
    let mut frame = vec![ids(documents)];
    frame.extend(names.iter().zip(values).map(|(name, values)| Column::new(name.as_str().into(), values)));
    Ok(Scores { documents: DataFrame::new(documents.len(), frame)?, summary: SummaryRow::frame(&rows)? })
}

fn ids(documents: &[Document]) -> Column {
    Column::new("id".into(), documents.iter().map(|document| document.id.as_str()).collect::<Vec<_>>())
}

fn column(name: &str, values: impl Iterator<Item = f64>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

fn counts(name: &str, values: impl Iterator<Item = u64>) -> Column {
    Column::new(name.into(), values.map(|count| count as i64).collect::<Vec<_>>())
}
