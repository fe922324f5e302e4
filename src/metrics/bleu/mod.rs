//! BLEU: the geometric mean of n-gram precisions, with a penalty for brevity.
//!
//! K. Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002 (P02-1040); the numbers and
//! the signature of the Python package `sacrebleu` 2.6.0 (M. Post, arXiv:1804.08771).

mod tokenizer;

use std::fmt;
use std::iter::Sum;

use anyhow::{Result, ensure};
pub use tokenizer::Tokenizer;

use super::document::{Document, score_all};
use super::ngrams::{NgramTree, Vocabulary};
use super::white_space::{lower, without_trailing, words};

/// The version of sacrebleu that BLEU and chrF agree with.
pub(super) const SACREBLEU: &str = "2.6.0";

/// What is done with orders of which no n-gram matches (B. Chen, C. Cherry, WMT 2014, W14-3346).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Smoothing {
    /// The precision stays zero, and so is BLEU.
    None,
    /// This many matches instead of none; 0.1 as a rule.
    Floor(f64),
    /// This many more n-grams and matches of every order above 1; 1 as a rule.
    AddK(f64),
    /// Half a match, then a quarter, and so on with every such order: mteval's.
    #[default]
    Exp,
}

/// How BLEU is computed; sacrebleu's defaults.
///
/// ```
/// # use qstar::metrics::{Bleu, Document};
/// let document = Document {
///     id: "1".into(),
///     prediction: "The dog bit the man.".into(),
///     references: vec!["The dog bit the man in the park.".into(), "The dog had bit the man.".into()],
/// };
/// let bleu = Bleu::default();
/// let score = bleu.score(&bleu.statistics(&document)?);
/// assert_eq!(score.to_string(), "BLEU = 84.65 100.0/100.0/100.0/100.0 (BP = 0.846 ratio = 0.857 hyp_len = 6 ref_len = 7)");
/// assert_eq!(bleu.signature(&[document]), "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0");
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    pub tokenizer: Tokenizer,
    pub lowercase: bool,
    pub smoothing: Smoothing,
    /// Means over the orders that the texts are long enough for: for single sentences.
    pub effective_order: bool,
    /// n-grams up to this n; the signature does not name it.
    pub orders: usize,
}

impl Default for Bleu {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::V13a,
            lowercase: false,
            smoothing: Smoothing::Exp,
            effective_order: false,
            orders: 4,
        }
    }
}

/// What BLEU needs to know of texts. That of a corpus is the sum over its documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BleuStatistics {
    /// Tokens of the predictions.
    pub length: u64,
    /// Tokens of the references, for each document of the one that is closest in length; of two as close the shorter.
    pub reference_length: u64,
    /// n-grams of the predictions that a reference has too, n from 1.
    pub matches: Vec<u64>,
    /// n-grams of the predictions.
    pub totals: Vec<u64>,
}

impl<'a> Sum<&'a BleuStatistics> for BleuStatistics {
    fn sum<I: Iterator<Item = &'a BleuStatistics>>(all: I) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.length += one.length;
            sum.reference_length += one.reference_length;
            add(&mut sum.matches, &one.matches);
            add(&mut sum.totals, &one.totals);
        }
        sum
    }
}

/// Written as sacrebleu prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct BleuScore {
    /// 0 to 100.
    pub score: f64,
    /// Smoothed, in percent, n from 1.
    pub precisions: Vec<f64>,
    pub brevity_penalty: f64,
    pub length: u64,
    pub reference_length: u64,
}

impl fmt::Display for BleuScore {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let precisions: Vec<String> = self.precisions.iter().map(|p| format!("{p:.1}")).collect();
        let (length, reference) = (self.length, self.reference_length);
        let ratio = if reference > 0 { length as f64 / reference as f64 } else { 0.0 };
        write!(
            f,
            "BLEU = {:.2} {} (BP = {:.3} ratio = {ratio:.3} hyp_len = {length} ref_len = {reference})",
            self.score,
            precisions.join("/"),
            self.brevity_penalty
        )
    }
}

impl Bleu {
    /// # Errors
    /// No reference.
    pub fn statistics(&self, document: &Document) -> Result<BleuStatistics> {
        self.count(&mut NgramTree::new(self.orders), document)
    }

    /// Of every document, on `workers` threads.
    ///
    /// # Errors
    /// A document without a reference; it is named.
    pub fn statistics_all(&self, documents: &[Document], workers: usize) -> Result<Vec<BleuStatistics>> {
        score_all(documents, workers, || NgramTree::new(self.orders), |tree, document| self.count(tree, document))
    }

    /// The score of one document or of a corpus.
    pub fn score(&self, statistics: &BleuStatistics) -> BleuScore {
        let BleuStatistics { length, reference_length, matches, totals } = statistics;
        let (length, reference_length) = (*length, *reference_length);
        let brevity_penalty = match length {
            0 if reference_length > 0 => 0.0,
            _ if length < reference_length => (1.0 - reference_length as f64 / length as f64).exp(),
            _ => 1.0,
        };
        let mut precisions = vec![0.0; self.orders];
        let mut score = 0.0;
        if matches.iter().any(|&matches| matches > 0) {
            let orders = self.precisions(matches, totals, &mut precisions);
            let mean = precisions[..orders].iter().map(|p| p.ln()).sum::<f64>() / orders as f64;
            score = brevity_penalty * mean.exp();
        }
        BleuScore { score, precisions, brevity_penalty, length, reference_length }
    }

    /// What was computed, as sacrebleu writes it.
    pub fn signature(&self, documents: &[Document]) -> String {
        let case = if self.lowercase { "lc" } else { "mixed" };
        let effective = if self.effective_order { "yes" } else { "no" };
        let smoothing = match self.smoothing {
            Smoothing::None => "none".to_owned(),
            Smoothing::Floor(value) => format!("floor[{value:.2}]"),
            Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
            Smoothing::Exp => "exp".to_owned(),
        };
        format!(
            "nrefs:{}|case:{case}|eff:{effective}|tok:{}|smooth:{smoothing}|version:{SACREBLEU}",
            references(documents),
            self.tokenizer
        )
    }

    /// The tokens of a text, with white space between them.
    pub(super) fn tokenize(&self, text: &str) -> String {
        let text = if self.lowercase { lower(text) } else { text.into() };
        self.tokenizer.tokenize(without_trailing(&text))
    }

    fn count(&self, tree: &mut NgramTree, document: &Document) -> Result<BleuStatistics> {
        ensure!(self.orders > 0, "BLEU needs n-grams of at least one word: orders is 0");
        let references: Vec<String> = document.references()?.iter().map(|text| self.tokenize(text)).collect();
        let prediction = self.tokenize(&document.prediction);
        let mut vocabulary = Vocabulary::new();
        tree.clear();
        let mut lengths = Vec::with_capacity(references.len());
        for text in &references {
            let tokens: Vec<u32> = words(text).map(|word| vocabulary.number(word)).collect();
            tree.add(&tokens);
            lengths.push(tokens.len());
        }
        let tokens: Vec<u32> = words(&prediction).map(|word| vocabulary.number(word)).collect();
        Ok(statistics(tree, &tokens, None, lengths.into_iter()))
    }

    /// Fills in the smoothed precisions, and says of how many orders the mean is taken.
    fn precisions(&self, matches: &[u64], totals: &[u64], precisions: &mut [f64]) -> usize {
        let mut orders = self.orders;
        let mut part = 1.0;
        for (index, precision) in precisions.iter_mut().enumerate() {
            let (mut matches, mut total) = (matches[index] as f64, totals[index] as f64);
            if let Smoothing::AddK(k) = self.smoothing
                && index > 0
            {
                (matches, total) = (matches + k, total + k);
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                orders = index + 1;
            }
            if matches == 0.0 {
                match self.smoothing {
                    Smoothing::Exp => {
                        part /= 2.0;
                        matches = part;
                    }
                    Smoothing::Floor(value) => matches = value,
                    Smoothing::None | Smoothing::AddK(_) => (),
                }
            }
            *precision = 100.0 * matches / total;
        }
        orders
    }
}

/// Compares tokens with the texts of the tree, of which `lengths` says how long they are.
pub(super) fn statistics(
    tree: &mut NgramTree,
    tokens: &[u32],
    except: Option<usize>,
    lengths: impl Iterator<Item = usize>,
) -> BleuStatistics {
    let matches = tree.matches(tokens, except);
    let totals = (1..=matches.len()).map(|n| (tokens.len() + 1).saturating_sub(n) as u64).collect();
    let closest = lengths.min_by_key(|&length| (length.abs_diff(tokens.len()), length));
    let reference_length = closest.unwrap_or(0) as u64;
    BleuStatistics { length: tokens.len() as u64, reference_length, matches, totals }
}

/// The number of references of each document, as it stands in a signature.
pub(super) fn references(documents: &[Document]) -> String {
    let first = documents.first().map_or(0, |document| document.references.len());
    if documents.iter().all(|document| document.references.len() == first) {
        first.to_string()
    } else {
        "var".to_owned()
    }
}

fn add(sum: &mut Vec<u64>, more: &[u64]) {
    if sum.len() < more.len() {
        sum.resize(more.len(), 0);
    }
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}
