//! Numbers about numbers, what a table or a figure says of many runs; and scores of generated text.

mod answer;
mod bertscore;
mod bleu;
mod calibration;
mod chrf;
mod diversity;
mod document;
mod ngrams;
mod pass_at_k;
mod proportion;
mod resample;
mod rouge;
mod statistics;
mod white_space;

pub use answer::{AnswerScore, answer_score, normalize_answer};
pub use bertscore::{Baseline, BertScore, BertScorer, TokenWeights};
pub use bleu::{Bleu, BleuScore, BleuStatistics, Smoothing, Tokenizer};
pub use calibration::{ReliabilityBin, calibration_error, reliability};
pub use chrf::{Chrf, ChrfCounts, ChrfStatistics};
pub use diversity::{distinct_n, self_bleu, tokenize};
pub use document::Document;
pub use pass_at_k::pass_at_k;
pub use proportion::{wilson_interval, wilson_interval_of_population};
pub use resample::Resampling;
pub use rouge::{Rouge, RougeKind, RougeScore, porter_stem};
pub use statistics::*;
