//! Files of generated text, code and judgments to frames of scores: what `qstar evaluate` does.
//!
//! [`read_documents`] and [`read_samples`] read JSON lines, [`judge::read_judgments`](crate::judge::read_judgments) those of judges; [`rouge`], [`bleu`], [`chrf`], [`bertscore`],
//! [`exact_match`], [`pass_at_k`] and [`win_rate`] score, [`HarmlessnessScorer`] classifies; [`write_frame`] writes a frame as parquet, CSV or JSON.

mod bertscore;
mod code;
mod harmlessness;
mod jsonl;
mod preference;
mod text;
mod write;

pub use bertscore::bertscore;
pub use code::{Sample, pass_at_k};
pub use harmlessness::{Harmlessness, HarmlessnessRow, HarmlessnessScorer, HarmlessnessSummaryRow, Meaning};
pub use jsonl::{Fields, read_documents, read_samples};
use polars::prelude::DataFrame;
pub use preference::{PairRow, win_rate};
pub use text::{bleu, chrf, exact_match, rouge};
pub use write::{Format, write_frame};

use crate::metrics::{Interval, Resampling};
use crate::record::record;

/// Scores as frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// A row for each document, task or pair, in the order of the input.
    pub documents: DataFrame,
    /// A row for each metric: [`SummaryRow`]; of a win rate, for each judge.
    pub summary: DataFrame,
}

record! {
    /// What a metric says of all documents.
    pub struct SummaryRow {
        /// As the column of `documents`, if it is the mean of one.
        pub metric: String,
        pub value: f64,
        /// The ends of the interval, where there is one: the bootstrap's over documents, Wilson's of a win rate.
        pub low: Option<f64>,
        pub high: Option<f64>,
        /// How many documents, tasks or pairs there are.
        pub documents: i64,
        /// sacrebleu's, of BLEU and chrF.
        pub signature: Option<String>,
    }
}

impl SummaryRow {
    fn new(metric: impl Into<String>, interval: Interval, documents: usize) -> Self {
        let Interval { mean, low, high } = interval;
        let (metric, documents) = (metric.into(), documents as i64);
        Self { metric, value: mean, low: Some(low), high: Some(high), documents, signature: None }
    }
}

/// How scores are computed, whichever they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    pub resampling: Resampling,
    /// Threads. Scores have the same bits with any number.
    pub workers: usize,
}

impl Default for Options {
    /// As many threads as there are cores.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { resampling: Resampling::default(), workers }
    }
}
