//! Pairs, verdicts, and the trait of whoever gives them.

use std::borrow::Cow;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

/// Two responses to one prompt, `a` by one model and `b` by the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub id: String,
    pub prompt: String,
    pub a: String,
    pub b: String,
    /// The right answer, where the task has one.
    pub reference: Option<String>,
}

/// What a judge sees of a pair: the responses in one order, and not whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    pub prompt: &'a str,
    pub first: &'a str,
    pub second: &'a str,
    pub reference: Option<&'a str>,
}

/// Which response is better. In a judge's answer `A` is the response shown first, in a [`Judgment`] it is the pair's `a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    A,
    B,
    #[serde(rename = "tie")]
    Tie,
    /// The judge answered, but no verdict could be read from it.
    #[serde(rename = "unreadable")]
    Unreadable,
    /// The judge did not answer: its server failed too often, or the cost limit was reached.
    #[serde(rename = "unjudged")]
    Unjudged,
}

/// A verdict, and why it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub note: Option<String>,
}

/// Whoever compares two responses.
pub trait Judge {
    /// What tables call it. Two judges that can differ have two names.
    fn name(&self) -> Cow<'_, str>;

    /// One answer a question, in their order; `progress` is told of each.
    ///
    /// # Errors
    /// What makes it useless to ask any further, for example a server that refuses the key.
    fn answers(&self, questions: &[Question], progress: &Progress) -> Result<Vec<Answer>>;
}

/// What a judge says of one pair in both orders. In both, `A` means the pair's `a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgment {
    pub id: String,
    /// With `a` shown first.
    pub ab: Answer,
    /// With `b` shown first.
    pub ba: Answer,
}

/// A pair's result over both orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    A,
    B,
    /// A tie in both orders.
    Tie,
    /// Two verdicts that are not the same. Counts as a tie, as in Zheng et al. 2023 (arXiv:2306.05685, section 3.4).
    Inconsistent,
    /// No verdict could be read in at least one order.
    Unreadable,
    /// Not asked or not answered in at least one order.
    Unjudged,
}

/// Asks for every pair in both orders. Equal responses are a tie that nobody is asked about; their note says so.
///
/// ```
/// use qstar::judge::{Outcome, Pair, Rule, judge_pairs};
/// let pair = Pair { id: "1".into(), prompt: "2 + 2?".into(), a: "4".into(), b: "It is four.".into(), reference: None };
/// let judged = judge_pairs(&Rule::shorter(), &[pair], &qstar::progress::Progress::new("judging", 2))?;
/// assert_eq!(judged[0].outcome(), Outcome::A);
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// Those of the judge; two pairs with one id.
pub fn judge_pairs(judge: &dyn Judge, pairs: &[Pair], progress: &Progress) -> Result<Vec<Judgment>> {
    let mut ids = std::collections::HashSet::new();
    for pair in pairs {
        ensure!(ids.insert(&pair.id), "two pairs have the id {:?}", pair.id);
    }
    // Both orders of a pair stand side by side, so that a judge that stops has judged whole pairs.
    let different: Vec<&Pair> = pairs.iter().filter(|pair| pair.a != pair.b).collect();
    let questions: Vec<Question> = different.iter().flat_map(|pair| [pair.in_order(), pair.swapped()]).collect();
    progress.inc(2 * (pairs.len() - different.len()) as u64);
    let answers = judge.answers(&questions, progress)?;
    ensure!(
        answers.len() == questions.len(),
        "{}: {} answers to {} questions",
        judge.name(),
        answers.len(),
        questions.len()
    );
    let mut answers = answers.into_iter();
    let judged = pairs.iter().map(|pair| {
        let (ab, ba) = if pair.a == pair.b {
            let equal = Answer { verdict: Verdict::Tie, note: Some("the responses are equal".into()) };
            (equal.clone(), equal)
        } else {
            let mut next = || answers.next().expect("two answers a pair, counted above");
            let (ab, ba) = (next(), next());
            (ab, Answer { verdict: ba.verdict.swapped(), ..ba })
        };
        Judgment { id: pair.id.clone(), ab, ba }
    });
    Ok(judged.collect())
}

impl Pair {
    /// With `a` first.
    pub fn in_order(&self) -> Question<'_> {
        Question { prompt: &self.prompt, first: &self.a, second: &self.b, reference: self.reference.as_deref() }
    }

    /// With `b` first.
    pub fn swapped(&self) -> Question<'_> {
        Question { first: &self.b, second: &self.a, ..self.in_order() }
    }
}

impl Verdict {
    /// The same verdict with A and B renamed into each other.
    pub fn swapped(self) -> Self {
        match self {
            Verdict::A => Verdict::B,
            Verdict::B => Verdict::A,
            same => same,
        }
    }

    /// 1 for A, 0 for B, 1/2 for a tie, none where there is no verdict.
    pub fn value(self) -> Option<f64> {
        match self {
            Verdict::A => Some(1.0),
            Verdict::B => Some(0.0),
            Verdict::Tie => Some(0.5),
            Verdict::Unreadable | Verdict::Unjudged => None,
        }
    }

    /// As tables and files have it: `A`, `B`, `tie`, `unreadable`, `unjudged`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::A => "A",
            Verdict::B => "B",
            Verdict::Tie => "tie",
            Verdict::Unreadable => "unreadable",
            Verdict::Unjudged => "unjudged",
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, note: None }
    }
}

impl Judgment {
    pub fn outcome(&self) -> Outcome {
        match (self.ab.verdict, self.ba.verdict) {
            (Verdict::Unjudged, _) | (_, Verdict::Unjudged) => Outcome::Unjudged,
            (Verdict::Unreadable, _) | (_, Verdict::Unreadable) => Outcome::Unreadable,
            (Verdict::A, Verdict::A) => Outcome::A,
            (Verdict::B, Verdict::B) => Outcome::B,
            (Verdict::Tie, Verdict::Tie) => Outcome::Tie,
            _ => Outcome::Inconsistent,
        }
    }
}

impl Outcome {
    /// As tables have it: `A`, `B`, `tie`, `inconsistent`, `unreadable`, `unjudged`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::A => "A",
            Outcome::B => "B",
            Outcome::Tie => "tie",
            Outcome::Inconsistent => "inconsistent",
            Outcome::Unreadable => "unreadable",
            Outcome::Unjudged => "unjudged",
        }
    }

    /// What the pair adds to the wins of `a`: 1, 0, 1/2 for a tie or an inconsistent pair, none where there is no verdict.
    pub fn value(self) -> Option<f64> {
        match self {
            Outcome::A => Some(1.0),
            Outcome::B => Some(0.0),
            Outcome::Tie | Outcome::Inconsistent => Some(0.5),
            Outcome::Unreadable | Outcome::Unjudged => None,
        }
    }
}
