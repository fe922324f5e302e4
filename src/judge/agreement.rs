//! How far raters, and judges with raters, agree.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::{Judgment, Ratings, Verdict};
use crate::metrics::wilson_interval;
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
    let counts: Vec<[usize; 3]> = (0..ratings.ids.len())
        .filter_map(|pair| ratings.verdicts.iter().map(|rater| rater[pair]).collect::<Option<Vec<Verdict>>>())
        .map(|verdicts| CATEGORIES.map(|wanted| verdicts.iter().filter(|&&verdict| verdict == wanted).count()))
        .collect();
    Ok((rows, fleiss_kappa(&counts)))
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
        kappa: cohen_kappa(verdicts),
        correlation: correlation(values),
    })
}

/// Cohen 1960, Educational and Psychological Measurement 20, 37-46.
fn cohen_kappa(verdicts: &[(Verdict, Verdict)]) -> Option<f64> {
    let n = verdicts.len() as f64;
    let share = |is: &dyn Fn(&(Verdict, Verdict)) -> bool| verdicts.iter().filter(|both| is(both)).count() as f64 / n;
    let observed = share(&|(a, b)| a == b);
    let expected: f64 = CATEGORIES.iter().map(|c| share(&|(a, _)| a == c) * share(&|(_, b)| b == c)).sum();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

/// Fleiss 1971, Psychological Bulletin 76, 378-382, of how many raters chose each category, pair by pair.
fn fleiss_kappa(counts: &[[usize; 3]]) -> Option<f64> {
    let raters = counts.first()?.iter().sum::<usize>() as f64;
    let pairs = counts.len() as f64;
    let squares = |counts: &[usize; 3]| counts.iter().map(|&count| (count * count) as f64).sum::<f64>();
    let observed = counts.iter().map(|pair| (squares(pair) - raters) / (raters * (raters - 1.0))).sum::<f64>() / pairs;
    let share = |c: usize| counts.iter().map(|pair| pair[c] as f64).sum::<f64>() / (pairs * raters);
    let expected: f64 = (0..3).map(|c| share(c).powi(2)).sum();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

fn correlation(values: &[(f64, f64)]) -> Option<f64> {
    let n = values.len() as f64;
    let (x, y) = (values.iter().map(|v| v.0).sum::<f64>() / n, values.iter().map(|v| v.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| values.iter().map(|v| f(v.0 - x, v.1 - y)).sum::<f64>();
    let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    (scale > 0.0).then(|| sum(&|a, b| a * b) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{A, B, Tie};

    /// Two raters and fifty proposals, as in textbooks: both A 20, both B 15, A/B 5, B/A 10: observed 0.7, expected 0.5.
    #[test]
    fn cohen() {
        let mut verdicts = vec![(A, A); 20];
        verdicts.extend(vec![(B, B); 15]);
        verdicts.extend(vec![(A, B); 5]);
        verdicts.extend(vec![(B, A); 10]);
        assert!((cohen_kappa(&verdicts).unwrap() - 0.4).abs() < 1e-15);
        assert_eq!(cohen_kappa(&[(A, A), (B, B), (Tie, Tie)]), Some(1.0));
        assert_eq!(cohen_kappa(&[(A, A), (A, A)]), None);
    }

    /// Four pairs, three raters, by hand: shares 6/12, 4/12, 2/12; agreement on pairs 1, 1/3, 1, 0.
    #[test]
    fn fleiss() {
        let counts = [[3, 0, 0], [2, 0, 1], [0, 3, 0], [1, 1, 1]];
        let expected = (36.0 + 16.0 + 4.0) / 144.0;
        let observed = (1.0 + 1.0 / 3.0 + 1.0) / 4.0;
        assert!((fleiss_kappa(&counts).unwrap() - (observed - expected) / (1.0 - expected)).abs() < 1e-15);
        assert_eq!(fleiss_kappa(&[[3, 0, 0], [3, 0, 0]]), None);
        assert_eq!(fleiss_kappa(&[]), None);
    }

    #[test]
    fn pearson() {
        assert!((correlation(&[(0.0, 0.1), (0.5, 0.6), (1.0, 1.1)]).unwrap() - 1.0).abs() < 1e-15);
        // Sums of squares 2 and 6, of products 3.
        assert!((correlation(&[(0.0, 0.0), (1.0, 3.0), (2.0, 3.0)]).unwrap() - 3.0 / 12f64.sqrt()).abs() < 1e-15);
        assert_eq!(correlation(&[(1.0, 0.0), (1.0, 1.0)]), None);
    }
}
