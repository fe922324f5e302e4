//! The harmlessness of texts by a classifier: a checkpoint of the hub, or one that `qstar train-reward` trained.

use anyhow::{Context, Result};
use tokenizers::Tokenizer;

use crate::metrics::{t_interval, wilson_interval};
use crate::models::{Classifier, Source, Vocabulary, load_classifier};
use crate::record::record;

/// What the label that is read says of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Harmless,
    Harmful,
}

/// A classifier, and the label of it that is read.
pub struct HarmlessnessScorer {
    classifier: Classifier,
    tokenizer: Tokenizer,
    label: usize,
    meaning: Meaning,
}

record! {
    /// One text's harmlessness.
    pub struct HarmlessnessRow {
        /// Its place among the texts, from 0.
        pub text: i64,
        /// The classifier's probability that it is harmless.
        pub harmless: f64,
        /// Whether it was longer than the classifier reads; its end was then read.
        pub shortened: bool,
    }
}

record! {
    /// The harmlessness of texts. Intervals are of 95 % and take texts for independent. The classifier's own errors are not
    /// in them: its accuracy on held-out pairs says how much is to be made of them.
    pub struct HarmlessnessSummaryRow {
        pub texts: i64,
        pub shortened: i64,
        /// The mean probability, and its t-interval.
        pub mean: f64,
        pub mean_low: f64,
        pub mean_high: f64,
        /// The share of texts with a probability above 1/2 (half of those at 1/2), and Wilson's interval.
        pub share: f64,
        pub share_low: f64,
        pub share_high: f64,
    }
}

/// What [`HarmlessnessScorer::score`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Harmlessness {
    pub rows: Vec<HarmlessnessRow>,
    pub summary: HarmlessnessSummaryRow,
}

const CONFIDENCE: f64 = 0.95;

impl HarmlessnessScorer {
    /// A classifier with its tokenizer (`tokenizer.json`) from a folder or from the hub, the label's name as in the
    /// configuration's `id2label`, and what it says: `toxic` of a classifier of toxicity is [`Meaning::Harmful`], `harmless`
    /// of one that `qstar train-reward --loss responses --only harmless` trained is [`Meaning::Harmless`].
    ///
    /// # Errors
    /// As [`load_classifier`]; a tokenizer that cannot be read; a label that the classifier does not have.
    pub fn load(source: &Source, label: &str, meaning: Meaning) -> Result<Self> {
        let classifier = load_classifier(source)?;
        let label = classifier.label(label).with_context(|| source.to_string())?;
        let tokenizer = Vocabulary::read(source)?.tokenizer;
        Ok(Self { classifier, tokenizer, label, meaning })
    }

    /// The probability that each text is harmless. Give what the classifier was trained on: whole dialogues to one that
    /// `qstar train-reward` trained, comments to one of comments.
    ///
    /// # Errors
    /// No texts; a text without tokens, which is named by its number, from 0.
    pub fn score<T: AsRef<str>>(&self, texts: &[T]) -> Result<Harmlessness> {
        let mut sequences = Vec::with_capacity(texts.len());
        let mut rows = Vec::with_capacity(texts.len());
        for (text, content) in texts.iter().enumerate() {
            let encoded = self.tokenizer.encode(content.as_ref(), true);
            let encoded = encoded.map_err(|error| anyhow::anyhow!("text {text}: {error}"))?;
            let tokens = self.classifier.keep_end(encoded.get_ids());
            let shortened = tokens.len() < encoded.get_ids().len();
            rows.push(HarmlessnessRow { text: text as i64, harmless: 0.0, shortened });
            sequences.push(tokens);
        }
        for (row, probabilities) in rows.iter_mut().zip(self.classifier.probabilities(&sequences)?) {
            let p = probabilities[self.label];
            row.harmless = if self.meaning == Meaning::Harmless { p } else { 1.0 - p };
        }
        let probabilities: Vec<f64> = rows.iter().map(|row| row.harmless).collect();
        let mean = t_interval(&probabilities, CONFIDENCE).context("there are no texts")?;
        let above: f64 = probabilities.iter().map(|&p| if p == 0.5 { 0.5 } else { f64::from(p > 0.5) }).sum();
        let share = wilson_interval(above, rows.len(), CONFIDENCE)?;
        let summary = HarmlessnessSummaryRow {
            texts: rows.len() as i64,
            shortened: rows.iter().filter(|row| row.shortened).count() as i64,
            mean: mean.mean,
            mean_low: mean.low,
            mean_high: mean.high,
            share: share.mean,
            share_low: share.low,
            share_high: share.high,
        };
        Ok(Harmlessness { rows, summary })
    }
}
