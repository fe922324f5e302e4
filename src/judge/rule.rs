//! A judge that is a function.

use std::borrow::Cow;

use anyhow::{Context, Result};

use super::{Answer, Judge, Question, Verdict};
use crate::progress::Progress;

type Compare = dyn Fn(&Question) -> Result<Verdict> + Send + Sync;

/// A verdict by a rule: cheap, and a check of what an expensive judge really looks at.
pub struct Rule {
    name: String,
    compare: Box<Compare>,
}

impl Rule {
    /// Any function of a question; in its verdict `A` is the response shown first.
    pub fn new(
        name: impl Into<String>,
        compare: impl Fn(&Question) -> Result<Verdict> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), compare: Box::new(compare) }
    }

    /// The response with more characters. Judges are known to lean this way.
    pub fn longer() -> Self {
        Self::new("longer", |q| Ok(higher(q.first.chars().count(), q.second.chars().count())))
    }

    /// The response with fewer characters.
    pub fn shorter() -> Self {
        Self::new("shorter", |q| Ok(higher(q.second.chars().count(), q.first.chars().count())))
    }

    /// The response that equals the reference, but for white space at both ends.
    pub fn reference() -> Self {
        Self::new("reference", |q| {
            let reference = q.reference.context("the pair has no reference to compare with")?.trim();
            Ok(higher(q.first.trim() == reference, q.second.trim() == reference))
        })
    }
}

impl Judge for Rule {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    /// # Errors
    /// Those of the function, with the prompt's beginning.
    fn answers(&self, questions: &[Question], progress: &Progress) -> Result<Vec<Answer>> {
        let answers = questions.iter().map(|question| {
            let beginning: String = question.prompt.chars().take(60).collect();
            let verdict = (self.compare)(question).with_context(|| format!("{}: prompt {beginning:?}", self.name))?;
            progress.inc(1);
            Ok(verdict.into())
        });
        answers.collect()
    }
}

fn higher<T: PartialOrd>(first: T, second: T) -> Verdict {
    match first.partial_cmp(&second) {
        Some(std::cmp::Ordering::Greater) => Verdict::A,
        Some(std::cmp::Ordering::Less) => Verdict::B,
        _ => Verdict::Tie,
    }
}
