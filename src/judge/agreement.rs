//! How far raters, and judges with raters, agree.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::{Judgment, Ratings, Verdict};
use crate::metrics::{KappaWeights, cohen_kappa, fleiss_kappa, pearson, wilson_interval};
use crate::record::record;

record! {
    /// Two who judged the same pairs.
    pub struct AgreementRow {
        pub first: String,
        pub second: String,
        /// Pairs on which both have a verdict.
        pub pairs: i64,
        /// The share of them on which it is the same of A, B and tie, with Wilson's interval of 95 %.
        pub agreement: f64,
        pub low: f64,
        pub high: f64,
        /// Cohen's κ; null where both always say the same one thing.
        pub kappa: Option<f64>,
        /// Pearson's correlation of their values (1 for A, 1/2 for a tie, 0 for B); with people, of the judge's value over
        /// both orders and the mean over raters. Null where one of them never varies.
        pub correlation: Option<f64>,
    }
}

/// A row for every two raters with a pair in common, and Fleiss' κ of all raters on the pairs that all of them answered; null
/// where there is none, or where all say the same one thing.
///
/// # Errors
/// Fewer than two raters.
pub fn agreements_of_raters(ratings: &Ratings) -> Result<(Vec<AgreementRow>, Option<f64>)> {
    let raters = ratings.raters.len();
    ensure!(raters >= 2, "one rater has nobody to agree with");
    let mut rows = Vec::new();
    for first in 0..raters {
        for second in first + 1..raters {
            let both = ratings.verdicts[first].iter().zip(&ratings.verdicts[second]);
            let both: Vec<(Verdict, Verdict)> = both.filter_map(|(&a, &b)| Some((a?, b?))).collect();
            let values = both.iter().filter_map(|(a, b)| Some((a.value()?, b.value()?))).collect::<Vec<_>>();
            if !both.is_empty() {
                rows.push(row(&ratings.raters[first], &ratings.raters[second], &both, &values)?);
            }
        }
    }
    let counts: Vec<Vec<usize>> = (0..ratings.ids.len())
        .filter_map(|pair| ratings.verdicts.iter().map(|rater| rater[pair]).collect::<Option<Vec<Verdict>>>())
        .map(|verdicts| CATEGORIES.map(|wanted| verdicts.iter().filter(|&&verdict| verdict == wanted).count()).to_vec())
        .collect();
    Ok((rows, fleiss_kappa(&counts).ok()))
}

/// A judge beside the majority of people, on the pairs that both have a verdict on. An inconsistent pair is a tie.
///
/// # Errors
/// No such pair.
pub fn agreement_with_people(judge: &str, judgments: &[Judgment], ratings: &Ratings) -> Result<AgreementRow> {
    let outcomes: HashMap<&str, _> = judgments.iter().map(|judgment| (judgment.id.as_str(), judgment)).collect();
    let (mut verdicts, mut values) = (Vec::new(), Vec::new());
    for (pair, majority) in ratings.majority().into_iter().enumerate() {
        let judgment = outcomes.get(ratings.ids[pair].as_str());
        let Some((judgment, majority)) = judgment.zip(majority) else { continue };
        let Some(outcome) = judgment.outcome().value() else { continue };
        let verdict = match outcome {
            1.0 => Verdict::A,
            0.0 => Verdict::B,
            _ => Verdict::Tie,
        };
        let votes: Vec<f64> =
            ratings.verdicts.iter().filter_map(|rater| rater[pair].and_then(Verdict::value)).collect();
        let both_orders = judgment.ab.verdict.value().zip(judgment.ba.verdict.value());
        let value = both_orders.map_or(outcome, |(ab, ba)| (ab + ba) / 2.0);
        verdicts.push((verdict, majority));
        values.push((value, votes.iter().sum::<f64>() / votes.len() as f64));
    }
    ensure!(!verdicts.is_empty(), "judge {judge:?} and the raters have no pair in common on which both have a verdict");
    row(judge, "majority of people", &verdicts, &values)
}

const CATEGORIES: [Verdict; 3] = [Verdict::A, Verdict::B, Verdict::Tie];

fn row(first: &str, second: &str, verdicts: &[(Verdict, Verdict)], values: &[(f64, f64)]) -> Result<AgreementRow> {
    let same = verdicts.iter().filter(|(a, b)| a == b).count();
    let agreement = wilson_interval(same as f64, verdicts.len(), 0.95)?;
    Ok(AgreementRow {
        first: first.into(),
        second: second.into(),
        pairs: verdicts.len() as i64,
        agreement: agreement.mean,
        low: agreement.low,
        high: agreement.high,
        kappa: kappa(verdicts),
        correlation: correlation(values),
    })
}

/// None where both always say the same one thing.
fn kappa(verdicts: &[(Verdict, Verdict)]) -> Option<f64> {
    let category = |verdict: Verdict| CATEGORIES.iter().position(|c| *c == verdict);
    let pairs: Vec<(usize, usize)> =
        verdicts.iter().filter_map(|(a, b)| Some((category(*a)?, category(*b)?))).collect();
    let (a, b): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
    cohen_kappa(&a, &b, KappaWeights::Nominal, 0.95).ok().map(|kappa| kappa.mean)
}

/// None where one of them never varies, or there are too few.
fn correlation(values: &[(f64, f64)]) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = values.iter().copied().unzip();
    pearson(&x, &y, 0.95).ok().map(|correlation| correlation.interval.mean)
}
