//! ROUGE: which n-grams, or which words in order, a text has in common with its reference.
//!
//! C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004 (W04-1013); the numbers of the Python package
//! `rouge-score` 0.1.2.

mod lcs;
mod porter;
mod words;

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
pub use porter::porter_stem;

use self::lcs::Lcs;
use self::words::{Tokens, Words};
use super::document::{Document, score_all};
use super::ngrams::NgramTree;

/// Which units are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RougeKind {
    /// n-grams, n from 1 to 9.
    N(usize),
    /// The longest common subsequence of the whole texts.
    L,
    /// Lines are sentences: the union, over the lines of the prediction, of longest common subsequences with each line of the
    /// reference.
    Lsum,
}

impl RougeKind {
    /// What is reported as a rule: ROUGE-1, 2, L and Lsum.
    pub const USUAL: [RougeKind; 4] = [RougeKind::N(1), RougeKind::N(2), RougeKind::L, RougeKind::Lsum];
}

impl fmt::Display for RougeKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            RougeKind::N(n) => write!(f, "rouge{n}"),
            RougeKind::L => f.write_str("rougeL"),
            RougeKind::Lsum => f.write_str("rougeLsum"),
        }
    }
}

impl FromStr for RougeKind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.strip_prefix("rouge") {
            Some("L") => Ok(Self::L),
            Some("Lsum") => Ok(Self::Lsum),
            Some(n) if n.len() == 1 && matches!(n.parse(), Ok(1..=9u8)) => Ok(Self::N(n.parse()?)),
            _ => bail!("unknown kind of ROUGE {name:?}; there are rouge1 to rouge9, rougeL, rougeLsum"),
        }
    }
}

/// All from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RougeScore {
    /// The share of the prediction that the reference has too.
    pub precision: f64,
    /// The share of the reference that the prediction has too.
    pub recall: f64,
    /// Their harmonic mean.
    pub f: f64,
}

/// The scores of `rouge_score.rouge_scorer.RougeScorer(kinds, use_stemmer=stemming)`.
///
/// ```
/// # use qstar::metrics::{Document, Rouge, RougeKind};
/// let rouge = Rouge::new(&[RougeKind::N(1), RougeKind::L], true)?;
/// let document = Document {
///     id: "1".into(),
///     prediction: "The quick brown dogs jump".into(),
///     references: vec!["the brown dog jumped over the quick cat".into()],
/// };
/// let scores = rouge.score(&document)?;
/// assert_eq!((scores[0].precision, scores[0].recall), (1.0, 0.625));
/// assert_eq!((scores[1].precision, scores[1].recall), (0.8, 0.5));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Rouge {
    kinds: Vec<RougeKind>,
    stemming: bool,
}

impl Rouge {
    /// # Errors
    /// No kinds, or n-grams of an order outside of 1 to 9.
    pub fn new(kinds: &[RougeKind], stemming: bool) -> Result<Self> {
        ensure!(!kinds.is_empty(), "ROUGE of no kind");
        for kind in kinds {
            ensure!(!matches!(kind, RougeKind::N(n) if !(1..=9).contains(n)), "ROUGE-N has n from 1 to 9, not {kind}");
        }
        Ok(Self { kinds: kinds.to_vec(), stemming })
    }

    pub fn kinds(&self) -> &[RougeKind] {
        &self.kinds
    }

    /// One score a kind, in the order of the kinds. Of several references each kind takes the first of those with the largest
    /// f, as `score_multi` does.
    ///
    /// # Errors
    /// No reference.
    pub fn score(&self, document: &Document) -> Result<Vec<RougeScore>> {
        Scorer::new(self).score(document)
    }

    /// The scores of all documents, on `workers` threads, `[document][kind]`; the same bits with any number of threads. ROUGE-Lsum
    /// keeps a bit for every pair of words of two lines that are compared, the others need memory for the texts only.
    ///
    /// # Errors
    /// A document without a reference; it is named.
    pub fn score_all(&self, documents: &[Document], workers: usize) -> Result<Vec<Vec<RougeScore>>> {
        score_all(documents, workers, || Scorer::new(self), |scorer, document| scorer.score(document))
    }
}

/// What is used again from document to document.
struct Scorer<'a> {
    kinds: &'a [RougeKind],
    words: Words,
    lcs: Lcs,
    ngrams: NgramTree,
}

impl<'a> Scorer<'a> {
    fn new(rouge: &'a Rouge) -> Self {
        let order = |kind: &RougeKind| if let RougeKind::N(n) = kind { *n } else { 0 };
        let orders = rouge.kinds.iter().map(order).max().unwrap_or(0);
        Self {
            kinds: &rouge.kinds,
            words: Words::new(rouge.stemming),
            lcs: Lcs::default(),
            ngrams: NgramTree::new(orders),
        }
    }

    fn score(&mut self, document: &Document) -> Result<Vec<RougeScore>> {
        let references = document.references()?;
        let prediction = self.words.tokens(&document.prediction);
        self.ngrams.clear();
        self.ngrams.add(&prediction.numbers);
        let mut best: Vec<RougeScore> = Vec::new();
        for reference in references {
            let reference = self.words.tokens(reference);
            let scores = self.compare(&prediction, &reference);
            if best.is_empty() {
                best = scores;
                continue;
            }
            for (best, score) in best.iter_mut().zip(scores) {
                if score.f > best.f {
                    *best = score;
                }
            }
        }
        Ok(best)
    }

    /// The n-grams of the prediction are in the tree.
    fn compare(&mut self, prediction: &Tokens, reference: &Tokens) -> Vec<RougeScore> {
        let shared = self.ngrams.matches(&reference.numbers, None);
        let (ours, theirs) = (prediction.numbers.len(), reference.numbers.len());
        let mut longest = None;
        let mut of_kind = |kind: &RougeKind| match *kind {
            RougeKind::N(n) => {
                ratio(shared[n - 1] as usize, (ours + 1).saturating_sub(n), (theirs + 1).saturating_sub(n))
            }
            // On one line the union is one subsequence.
            RougeKind::Lsum if prediction.lines.len() > 1 || reference.lines.len() > 1 => {
                ratio(union(&mut self.lcs, prediction, reference, self.words.len()), ours, theirs)
            }
            RougeKind::L | RougeKind::Lsum => {
                let length = *longest
                    .get_or_insert_with(|| self.lcs.length(&prediction.numbers, &reference.numbers, self.words.len()));
                ratio(length, ours, theirs)
            }
        };
        self.kinds.iter().map(&mut of_kind).collect()
    }
}

/// How many tokens of the reference's lines are in the union of longest common subsequences, no token more often than
/// either text has it.
fn union(lcs: &mut Lcs, prediction: &Tokens, reference: &Tokens, tokens: usize) -> usize {
    let mut left = vec![[0u32; 2]; tokens];
    for (text, side) in [(prediction, 0), (reference, 1)] {
        for &token in &text.numbers {
            left[token as usize][side] += 1;
        }
    }
    let mut hits = 0;
    let mut marked = Vec::new();
    for line in &reference.lines {
        let line = &reference.numbers[line.clone()];
        marked.clear();
        marked.resize(line.len(), false);
        for other in &prediction.lines {
            lcs.mark(line, &prediction.numbers[other.clone()], tokens, &mut marked);
        }
        for (&token, _) in line.iter().zip(&marked).filter(|(_, marked)| **marked) {
            let left = &mut left[token as usize];
            if left[0] > 0 && left[1] > 0 {
                *left = [left[0] - 1, left[1] - 1];
                hits += 1;
            }
        }
    }
    hits
}

fn ratio(hits: usize, ours: usize, theirs: usize) -> RougeScore {
    let precision = hits as f64 / ours.max(1) as f64;
    let recall = hits as f64 / theirs.max(1) as f64;
    let f = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    RougeScore { precision, recall, f }
}
