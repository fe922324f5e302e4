//! Judgments as rows, and what they add up to.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Answer, Judgment, Outcome, Selection, Verdict};
use crate::metrics::wilson_interval;
use crate::record::record;

record! {
    /// One judgment: one judge, one pair, one order.
    #[derive(Serialize, Deserialize)]
    pub struct JudgmentRow {
        pub judge: String,
        /// The pair's id.
        pub id: String,
        /// Which response was shown first: `AB` or `BA`.
        pub order: String,
        /// `A` and `B` are the pair's, whatever the order; or `tie`, `unreadable`, `unjudged`.
        pub verdict: String,
        /// Why it is no verdict, or that nobody was asked.
        pub note: Option<String>,
    }
}

record! {
    /// What one judge says of all pairs.
    pub struct WinRateRow {
        pub judge: String,
        pub pairs: i64,
        /// Pairs of which `a` is better in both orders, of which both are equal in both, of which `b` is better in both.
        pub wins: i64,
        pub ties: i64,
        pub losses: i64,
        /// Pairs with two verdicts that are not the same; of these, those in which the response that was shown first won both
        /// times, and those in which the other one did.
        pub inconsistent: i64,
        pub first_place: i64,
        pub second_place: i64,
        /// Pairs that have no verdict in at least one order; they are not part of the rate.
        pub unreadable: i64,
        pub unjudged: i64,
        /// (wins + (ties + inconsistent)/2) over the pairs with a verdict, and Wilson's interval, which takes pairs
        /// for independent and a tie for half a win: with many ties it is too wide. Null where no pair has a verdict.
        pub win_rate: Option<f64>,
        pub low: Option<f64>,
        pub high: Option<f64>,
    }
}

record! {
    /// What the pairs that were drawn say of all pairs.
    pub struct EstimateRow {
        pub judge: String,
        /// All pairs, those that were drawn, those of them that have a verdict.
        pub pairs: i64,
        pub drawn: i64,
        pub judged: i64,
        /// With an interval of 95 %.
        pub win_rate: f64,
        pub low: f64,
        pub high: f64,
        /// How it was estimated.
        pub estimator: String,
    }
}

/// Two rows a pair.
pub fn judgment_rows(judge: &str, judgments: &[Judgment]) -> Vec<JudgmentRow> {
    let row = |judgment: &Judgment, order: &str, answer: &Answer| JudgmentRow {
        judge: judge.into(),
        id: judgment.id.clone(),
        order: order.into(),
        verdict: answer.verdict.name().into(),
        note: answer.note.clone(),
    };
    judgments
        .iter()
        .flat_map(|judgment| [row(judgment, "AB", &judgment.ab), row(judgment, "BA", &judgment.ba)])
        .collect()
}

/// The judgments of every judge, in the order in which they first stand in the rows.
///
/// # Errors
/// An unknown order or verdict, a judgment twice, an order that is missing; judge and pair are named.
pub fn judgments_of_rows(rows: &[JudgmentRow]) -> Result<Vec<(String, Vec<Judgment>)>> {
    type Orders = [Option<Answer>; 2];
    let mut judges: Vec<(String, Vec<(String, Orders)>)> = Vec::new();
    let mut places: HashMap<(&str, &str), (usize, usize)> = HashMap::new();
    let mut judge_places: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        let named = || format!("judge {:?}, pair {:?}", row.judge, row.id);
        let verdict = [Verdict::A, Verdict::B, Verdict::Tie, Verdict::Unreadable, Verdict::Unjudged]
            .into_iter()
            .find(|verdict| verdict.name() == row.verdict)
            .with_context(|| format!("{}: {:?} is no verdict", named(), row.verdict))?;
        let order = match row.order.as_str() {
            "AB" => 0,
            "BA" => 1,
            other => bail!("{}: {other:?} is no order; it is AB or BA", named()),
        };
        let judge = *judge_places.entry(&row.judge).or_insert_with(|| {
            judges.push((row.judge.clone(), Vec::new()));
            judges.len() - 1
        });
        let (judge, pair) = *places.entry((&row.judge, &row.id)).or_insert_with(|| {
            judges[judge].1.push((row.id.clone(), [None, None]));
            (judge, judges[judge].1.len() - 1)
        });
        let place = &mut judges[judge].1[pair].1[order];
        ensure!(place.is_none(), "{}: the order {} stands there twice", named(), row.order);
        *place = Some(Answer { verdict, note: row.note.clone() });
    }
    let whole = |(judge, pairs): (String, Vec<(String, Orders)>)| {
        let judgments = pairs.into_iter().map(|(id, orders)| match orders {
            [Some(ab), Some(ba)] => Ok(Judgment { id, ab, ba }),
            [Some(_), None] => bail!("judge {judge:?}, pair {id:?}: the order BA is missing"),
            _ => bail!("judge {judge:?}, pair {id:?}: the order AB is missing"),
        });
        let judgments = judgments.collect::<Result<Vec<_>>>()?;
        Ok((judge, judgments))
    };
    judges.into_iter().map(whole).collect()
}

/// How often `a` wins by one judge.
///
/// # Errors
/// No pairs; a confidence that is not strictly between 0 and 1.
pub fn win_rate(judge: &str, judgments: &[Judgment], confidence: f64) -> Result<WinRateRow> {
    ensure!(!judgments.is_empty(), "there are no pairs");
    let outcomes: Vec<Outcome> = judgments.iter().map(Judgment::outcome).collect();
    let count = |wanted: Outcome| outcomes.iter().filter(|&&outcome| outcome == wanted).count() as i64;
    let both = |ab, ba| judgments.iter().filter(|j| (j.ab.verdict, j.ba.verdict) == (ab, ba)).count() as i64;
    let values: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.value()).collect();
    let interval = match values.len() {
        0 => None,
        judged => Some(wilson_interval(values.iter().sum(), judged, confidence)?),
    };
    Ok(WinRateRow {
        judge: judge.into(),
        pairs: judgments.len() as i64,
        wins: count(Outcome::A),
        ties: count(Outcome::Tie),
        losses: count(Outcome::B),
        inconsistent: count(Outcome::Inconsistent),
        first_place: both(Verdict::A, Verdict::B),
        second_place: both(Verdict::B, Verdict::A),
        unreadable: count(Outcome::Unreadable),
        unjudged: count(Outcome::Unjudged),
        win_rate: interval.map(|interval| interval.mean),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
    })
}

/// How often `a` wins over all pairs, from the judgments of those that were drawn, in the order of [`Selection::rows`].
///
/// Pairs drawn with one probability give Wilson's interval for a finite population; pairs with different ones the
/// Horvitz-Thompson estimate, or, where some have no verdict, Hájek's over those with one.
///
/// # Errors
/// Another number of judgments than of drawn pairs; none with a verdict.
pub fn estimate_win_rate(judge: &str, judgments: &[Judgment], selection: &Selection) -> Result<EstimateRow> {
    const CONFIDENCE: f64 = 0.95;
    let values: Vec<Option<f64>> = judgments.iter().map(|judgment| judgment.outcome().value()).collect();
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    let probabilities = selection.probabilities();
    let (interval, estimator) = if probabilities.iter().all(|&p| p == probabilities[0]) {
        (selection.proportion(&values, CONFIDENCE)?, "Wilson, finite population")
    } else if known.len() == values.len() {
        (selection.mean(&known, &vec![0.5; probabilities.len()], CONFIDENCE)?, "Horvitz-Thompson")
    } else {
        (selection.mean_of_known(&values, CONFIDENCE)?, "Hájek, of the pairs with a verdict")
    };
    Ok(EstimateRow {
        judge: judge.into(),
        pairs: probabilities.len() as i64,
        drawn: values.len() as i64,
        judged: known.len() as i64,
        win_rate: interval.mean,
        low: interval.low,
        high: interval.high,
        estimator: estimator.into(),
    })
}
