//! Scores of texts as frames: one row a text, and a summary with intervals.

mod bertscore;
mod harmlessness;

pub use bertscore::{BertScoreRow, BertScoreSummaryRow, bertscore, bertscore_summary};
pub use harmlessness::{Harmlessness, HarmlessnessRow, HarmlessnessScorer, HarmlessnessSummaryRow, Meaning};
