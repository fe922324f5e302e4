//! A reward model as a judge.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use super::{Answer, Judge, Question, Verdict};
use crate::progress::Progress;
use crate::reward::TextReward;

type Score = dyn Fn(&[(&str, &str)]) -> Result<Vec<f64>> + Send + Sync;

/// Prefers the response of higher reward. It scores every response once, so both orders agree by construction.
pub struct RewardJudge {
    name: String,
    score: Box<Score>,
    tie_within: f64,
}

/// Responses that are scored between two signs of progress.
const AT_ONCE: usize = 256;

impl RewardJudge {
    /// Any function from `(prompt, response)` to a reward each. Rewards that are at most `tie_within` apart are a tie.
    ///
    /// # Errors
    /// A threshold that is negative or not a number.
    pub fn new(
        name: impl Into<String>,
        tie_within: f64,
        score: impl Fn(&[(&str, &str)]) -> Result<Vec<f64>> + Send + Sync + 'static,
    ) -> Result<Self> {
        ensure!(tie_within >= 0.0, "rewards cannot be within {tie_within} of each other: take a number from 0 up");
        Ok(Self { name: name.into(), score: Box::new(score), tie_within })
    }

    /// A reward model, which reads prompt and response one after the other, as it was trained to; what is too long keeps its
    /// end. The scale of `tie_within` is the model's.
    ///
    /// # Errors
    /// As [`RewardJudge::new`].
    pub fn of_model(name: impl Into<String>, tie_within: f64, reward: TextReward) -> Result<Self> {
        Self::new(name, tie_within, move |texts| {
            let whole: Vec<String> = texts.iter().map(|(prompt, response)| [*prompt, *response].concat()).collect();
            reward.scores(&whole)
        })
    }

    /// The reward of every `(prompt, response)`.
    ///
    /// # Errors
    /// Those of the model; another number of rewards than of texts, a reward that is not finite.
    pub fn scores(&self, texts: &[(&str, &str)]) -> Result<Vec<f64>> {
        let scores = (self.score)(texts).with_context(|| self.name.clone())?;
        ensure!(scores.len() == texts.len(), "{}: {} rewards for {} texts", self.name, scores.len(), texts.len());
        for (row, score) in scores.iter().enumerate() {
            ensure!(score.is_finite(), "{}: text {row} has the reward {score}", self.name);
        }
        Ok(scores)
    }
}

impl Judge for RewardJudge {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    fn answers(&self, questions: &[Question], progress: &Progress) -> Result<Vec<Answer>> {
        let mut texts: Vec<(&str, &str)> = Vec::new();
        let mut rows = HashMap::new();
        let mut row_of = |text| {
            *rows.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            })
        };
        let sides: Vec<_> =
            questions.iter().map(|q| (row_of((q.prompt, q.first)), row_of((q.prompt, q.second)))).collect();
        let mut scores = Vec::with_capacity(texts.len());
        for some in texts.chunks(AT_ONCE) {
            scores.extend(self.scores(some)?);
            progress.message(format!("{} of {} responses scored", scores.len(), texts.len()));
        }
        let answers = sides.into_iter().map(|(first, second)| {
            let difference = scores[first] - scores[second];
            progress.inc(1);
            let verdict = match difference {
                d if d.abs() <= self.tie_within => Verdict::Tie,
                d if d > 0.0 => Verdict::A,
                _ => Verdict::B,
            };
            verdict.into()
        });
        Ok(answers.collect())
    }
}
