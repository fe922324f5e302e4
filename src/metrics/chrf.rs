//! chrF: F-scores of character n-grams, and of a few word n-grams in chrF++.
//!
//! M. Popović, WMT 2015 (W15-3049) and 2017 (W17-4770); the numbers and the signature of the Python package `sacrebleu` 2.6.0.

use std::iter::Sum;

use anyhow::{Result, ensure};

use super::bleu::{SACREBLEU, references};
use super::document::{Document, score_all};
use super::ngrams::{NgramTree, Vocabulary};
use super::white_space::{is_space, lower, words};

/// How chrF is computed; sacrebleu's defaults.
///
/// ```
/// # use qstar::metrics::{Chrf, Document};
/// let document = Document {
///     id: "1".into(),
///     prediction: "The dog bit the man.".into(),
///     references: vec!["The dog had bit the man.".into()],
/// };
/// let chrf = Chrf { word_order: 2, ..Chrf::default() };
/// let score = chrf.score(&chrf.statistics(&document)?);
/// assert_eq!(format!("{} = {score:.2}", chrf.name()), "chrF2++ = 70.39");
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chrf {
    /// Character n-grams up to this n.
    pub char_order: usize,
    /// Word n-grams up to this n: 2 in chrF++. ASCII punctuation at one end of a word is a word of its own.
    pub word_order: usize,
    /// How many times as much recall counts as precision.
    pub beta: u32,
    pub lowercase: bool,
    /// Whether white space counts as characters.
    pub whitespace: bool,
    /// Orders without n-grams count as precision and recall 1e-16, as in chrF++.py, instead of being left out.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        Self { char_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false, eps_smoothing: false }
    }
}

/// What chrF needs to know of texts, one entry an order, characters first. That of a corpus is the sum over its documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChrfStatistics {
    pub orders: Vec<ChrfCounts>,
}

/// n-grams of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChrfCounts {
    /// Of the prediction; none where the reference has none of this order.
    pub prediction: u64,
    pub reference: u64,
    pub matches: u64,
}

impl<'a> Sum<&'a ChrfStatistics> for ChrfStatistics {
    fn sum<I: Iterator<Item = &'a ChrfStatistics>>(all: I) -> Self {
        let mut orders: Vec<ChrfCounts> = Vec::new();
        for one in all {
            orders.resize(one.orders.len().max(orders.len()), ChrfCounts::default());
            for (sum, one) in orders.iter_mut().zip(&one.orders) {
                sum.prediction += one.prediction;
                sum.reference += one.reference;
                sum.matches += one.matches;
            }
        }
        Self { orders }
    }
}

impl Chrf {
    /// Against the reference with the best score, of equals the first.
    ///
    /// # Errors
    /// No reference, or no characters in any n-gram.
    pub fn statistics(&self, document: &Document) -> Result<ChrfStatistics> {
        self.count(&mut self.trees(), document)
    }

    /// Of every document, on `workers` threads.
    ///
    /// # Errors
    /// A document without a reference; it is named. No characters in any n-gram.
    pub fn statistics_all(&self, documents: &[Document], workers: usize) -> Result<Vec<ChrfStatistics>> {
        score_all(documents, workers, || self.trees(), |trees, document| self.count(trees, document))
    }

    /// The score of one document or of a corpus, 0 to 100.
    pub fn score(&self, statistics: &ChrfStatistics) -> f64 {
        const EPS: f64 = 1e-16;
        let factor = f64::from(self.beta).powi(2);
        let f = |precision: f64, recall: f64| (1.0 + factor) * precision * recall / (factor * precision + recall);
        let (mut smoothed, mut precisions, mut recalls, mut orders) = (0.0, 0.0, 0.0, 0u32);
        for counts in &statistics.orders {
            let share = |of: u64| if of > 0 { counts.matches as f64 / of as f64 } else { EPS };
            let (precision, recall) = (share(counts.prediction), share(counts.reference));
            smoothed += if factor * precision + recall > 0.0 { f(precision, recall) } else { EPS };
            if counts.prediction > 0 && counts.reference > 0 {
                precisions += precision;
                recalls += recall;
                orders += 1;
            }
        }
        if self.eps_smoothing {
            return 100.0 * smoothed / (self.char_order + self.word_order) as f64;
        }
        let (precision, recall) = (precisions / f64::from(orders.max(1)), recalls / f64::from(orders.max(1)));
        if precision + recall > 0.0 { 100.0 * f(precision, recall) } else { 0.0 }
    }

    /// `chrF2`, `chrF2++` and so on.
    pub fn name(&self) -> String {
        format!("chrF{}{}", self.beta, "+".repeat(self.word_order))
    }

    /// What was computed, as sacrebleu writes it.
    pub fn signature(&self, documents: &[Document]) -> String {
        let yes = |is: bool| if is { "yes" } else { "no" };
        format!(
            "nrefs:{}|case:{}|eff:{}|nc:{}|nw:{}|space:{}|version:{SACREBLEU}",
            references(documents),
            if self.lowercase { "lc" } else { "mixed" },
            yes(!self.eps_smoothing),
            self.char_order,
            self.word_order,
            yes(self.whitespace)
        )
    }

    fn trees(&self) -> [NgramTree; 2] {
        [self.char_order, self.word_order].map(NgramTree::new)
    }

    fn count(&self, trees: &mut [NgramTree; 2], document: &Document) -> Result<ChrfStatistics> {
        ensure!(self.char_order > 0, "chrF needs n-grams of at least one character: the order is 0");
        let mut vocabulary = Vocabulary::new();
        let prediction = self.units(&document.prediction, &mut vocabulary);
        for (tree, units) in trees.iter_mut().zip(&prediction) {
            tree.clear();
            tree.add(units);
        }
        let mut best: Option<(f64, ChrfStatistics)> = None;
        for reference in document.references()? {
            let reference = self.units(reference, &mut vocabulary);
            let mut orders = Vec::with_capacity(self.char_order + self.word_order);
            for (tree, (ours, theirs)) in trees.iter_mut().zip(prediction.iter().zip(&reference)) {
                orders.extend(tree.matches(theirs, None).into_iter().enumerate().map(|(index, matches)| {
                    let count = |units: &[u32]| units.len().saturating_sub(index) as u64;
                    let reference = count(theirs);
                    let prediction = if reference > 0 { count(ours) } else { 0 };
                    ChrfCounts { prediction, reference, matches }
                }));
            }
            let statistics = ChrfStatistics { orders };
            let score = self.score(&statistics);
            if best.as_ref().is_none_or(|(best, _)| score > *best) {
                best = Some((score, statistics));
            }
        }
        Ok(best.expect("there is at least one reference").1)
    }

    /// Characters and words as numbers.
    fn units(&self, text: &str, vocabulary: &mut Vocabulary<String>) -> [Vec<u32>; 2] {
        let text = if self.lowercase { lower(text) } else { text.into() };
        let chars = text.chars().filter(|&c| self.whitespace || !is_space(c)).map(u32::from).collect();
        let mut tokens = Vec::new();
        if self.word_order > 0 {
            for word in words(&text) {
                let (first, last) = cut_punctuation(word);
                tokens.extend(
                    [first, last]
                        .into_iter()
                        .filter(|part| !part.is_empty())
                        .map(|part| vocabulary.number(part.to_owned())),
                );
            }
        }
        [chars, tokens]
    }
}

/// The word without ASCII punctuation at its end, and that; if there is none, the punctuation at its start and the rest.
fn cut_punctuation(word: &str) -> (&str, &str) {
    let is_punctuation = |c: char| c.is_ascii_punctuation();
    if word.chars().nth(1).is_none() {
        (word, "")
    } else if word.ends_with(is_punctuation) {
        word.split_at(word.len() - 1)
    } else if word.starts_with(is_punctuation) {
        word.split_at(1)
    } else {
        (word, "")
    }
}
