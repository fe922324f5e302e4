//! Judgments of pairs.

use anyhow::Result;

use super::{Options, Scores};
use crate::judge::{self, JudgmentRow, WinRateRow, judgments_of_rows};
use crate::record::record;

record! {
    /// What one judge said of one pair.
    pub struct PairRow {
        pub judge: String,
        pub id: String,
        /// The verdicts when the first file's response was shown first, and when it was shown second: `A` (the first file's),
        /// `B`, `tie`, `unreadable`, `unjudged`.
        pub ab: String,
        pub ba: String,
        /// `A`, `B`, `tie`, `inconsistent`, `unreadable`, `unjudged`.
        pub outcome: String,
    }
}

/// Win rates: `documents` has the columns of [`PairRow`], `summary` those of [`WinRateRow`], a row a judge.
///
/// # Errors
/// Those of [`judgments_of_rows`]; a confidence that is not strictly between 0 and 1.
pub fn win_rate(rows: &[JudgmentRow], options: &Options) -> Result<Scores> {
    let judges = judgments_of_rows(rows)?;
    let (mut pairs, mut summary) = (Vec::new(), Vec::new());
    for (judge, judgments) in &judges {
        pairs.extend(judgments.iter().map(|judgment| PairRow {
            judge: judge.clone(),
            id: judgment.id.clone(),
            ab: judgment.ab.verdict.name().into(),
            ba: judgment.ba.verdict.name().into(),
            outcome: judgment.outcome().name().into(),
        }));
        summary.push(judge::win_rate(judge, judgments, options.resampling.confidence)?);
    }
    Ok(Scores { documents: PairRow::frame(&pairs)?, summary: WinRateRow::frame(&summary)? })
}
