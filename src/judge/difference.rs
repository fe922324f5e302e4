//! On which pairs models differ: cheap scores for [`super::select`].

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::{Judgment, Pair};

/// How far apart the two responses are: 1 − F1 of their words, counted with repetition; 0 for the same words in any order,
/// 1 for none in common. Words are what white space separates, in lower case.
pub fn text_distance(pair: &Pair) -> f64 {
    let (a, b) = (words(&pair.a), words(&pair.b));
    let total = (a.values().sum::<usize>() + b.values().sum::<usize>()) as f64;
    if total == 0.0 {
        return 0.0;
    }
    let common: usize = a.iter().map(|(word, &count)| count.min(b.get(word).copied().unwrap_or(0))).sum();
    1.0 - 2.0 * common as f64 / total
}

/// How much cheap judges disagree on each pair: the variance of their values (1 for `a`, 0 for `b`, 1/2 for what is no clear
/// preference), times 4, so that an even split gives 1.
///
/// # Errors
/// Fewer than two judges, or judges that did not judge the same pairs in the same order.
pub fn disagreement(judges: &[Vec<Judgment>]) -> Result<Vec<f64>> {
    ensure!(judges.len() >= 2, "one judge has nobody to disagree with");
    let ids = |judgments: &[Judgment]| judgments.iter().map(|judgment| judgment.id.clone()).collect::<Vec<_>>();
    let first = ids(&judges[0]);
    ensure!(judges.iter().all(|judgments| ids(judgments) == first), "the judges judged different pairs");
    let spread = |pair: usize| {
        let values: Vec<f64> =
            judges.iter().map(|judgments| judgments[pair].outcome().value().unwrap_or(0.5)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        4.0 * values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
    };
    Ok((0..first.len()).map(spread).collect())
}

fn words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Answer, Verdict};

    fn distance(a: &str, b: &str) -> f64 {
        text_distance(&Pair { id: "1".into(), prompt: String::new(), a: a.into(), b: b.into(), reference: None })
    }

    #[test]
    fn distance_is_one_minus_f1() {
        assert_eq!(distance("the cat sat", "sat the CAT"), 0.0);
        assert_eq!(distance("one two", "three"), 1.0);
        assert_eq!((distance("", ""), distance("", "word")), (0.0, 1.0));
        // Common: a, b. Precision 2/3, recall 2/4, F1 = 4/7.
        assert!((distance("a b b", "a b c d") - 3.0 / 7.0).abs() < 1e-15);
    }

    #[test]
    fn an_even_split_disagrees_most() {
        let judge = |verdicts: [Verdict; 3]| {
            let one = |(pair, verdict): (usize, Verdict)| {
                let answer = Answer::from(verdict);
                Judgment { id: pair.to_string(), ab: answer.clone(), ba: answer }
            };
            verdicts.into_iter().enumerate().map(one).collect::<Vec<_>>()
        };
        use Verdict::{A, B, Tie};
        assert_eq!(disagreement(&[judge([A, A, Tie]), judge([A, B, B])]).unwrap(), [0.0, 1.0, 0.25]);
        assert!(disagreement(&[judge([A, A, A])]).is_err());
        assert!(disagreement(&[judge([A, A, A]), judge([A, A, A])[..2].to_vec()]).is_err());
    }
}
