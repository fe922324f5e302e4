//! Judgments of pairs.

use anyhow::Result;

use super::{Options, Scores, SummaryRow};
use crate::metrics::{self, Judgment, Verdict};
use crate::record::record;

/// A pair of texts and what was said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedPair {
    pub id: String,
    pub judgment: Judgment,
}

record! {
    /// One pair.
    pub struct PairRow {
        pub id: String,
        /// The system preferred when A was shown first: a, b, tie.
        pub a_first: Option<String>,
        pub b_first: Option<String>,
        /// Of A: win, loss, tie, inconsistent, failed.
        pub outcome: String,
    }
}

/// The win rate of A, with Wilson's interval, and what it is made of: wins, losses, ties (inconsistent pairs among them), pairs whose
/// two orders disagree, pairs in which the text shown first (or second) won both times, pairs that lack a verdict.
/// `documents` has the columns of [`PairRow`].
///
/// # Errors
/// No pair with two verdicts.
pub fn win_rate(pairs: &[JudgedPair], options: &Options) -> Result<Scores> {
    let judgments: Vec<Judgment> = pairs.iter().map(|pair| pair.judgment).collect();
    let found = metrics::win_rate(&judgments, options.resampling.confidence)?;
    let all = pairs.len();
    let summary = [
        SummaryRow::new("win_rate", found.rate, all - found.failed),
        SummaryRow::count("wins", found.wins, all),
        SummaryRow::count("losses", found.losses, all),
        SummaryRow::count("ties", found.ties, all),
        SummaryRow::count("inconsistent", found.inconsistent, all),
        SummaryRow::count("first_place", found.first_place, all),
        SummaryRow::count("second_place", found.second_place, all),
        SummaryRow::count("failed", found.failed, all),
    ];
    let name = |verdict: Option<Verdict>| {
        verdict.map(|verdict| match verdict {
            Verdict::A => "a".to_owned(),
            Verdict::B => "b".to_owned(),
            Verdict::Tie => "tie".to_owned(),
        })
    };
    let row = |pair: &JudgedPair| PairRow {
        id: pair.id.clone(),
        a_first: name(pair.judgment.a_first),
        b_first: name(pair.judgment.b_first),
        outcome: pair.judgment.outcome().to_string(),
    };
    let rows: Vec<PairRow> = pairs.iter().map(row).collect();
    Ok(Scores { documents: PairRow::frame(&rows)?, summary: SummaryRow::frame(&summary)? })
}
