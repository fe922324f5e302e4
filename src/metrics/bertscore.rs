//! BERTScore (Zhang et al. 2020, arXiv:1904.09675): how well the contextual embeddings of two texts match, token by token, as the
//! package `bert-score` 0.3.13 computes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use crate::models::{Config, Source, TextEncoder, load_encoder};
use crate::progress::Progress;

/// Scores texts against references with one layer of one encoder.
///
/// ```no_run
/// use qstar::metrics::{BertScorer, TokenWeights};
/// use qstar::models::Source;
/// let scorer = BertScorer::load(&Source::parse("FacebookAI/roberta-large")?, None)?;
/// let scores = scorer.score(&["A cat sat there."], &[vec!["There sat a cat.", "A dog."]], TokenWeights::Equal)?;
/// println!("F1 {:.4}", scores[0].f1);
/// # anyhow::Ok(())
/// ```
pub struct BertScorer {
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    layer: usize,
    /// What the tokenizer puts around a text, in the order of a sequence.
    around: [u32; 2],
    baseline: Option<Baseline>,
}

/// The score of one candidate; of several references each number is the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BertScore {
    /// Over the candidate's tokens, the mean of each one's highest cosine similarity to a token of the reference. None
    /// where all weights are 0; 0 where either text is empty.
    pub precision: Option<f64>,
    /// The same over the reference's tokens.
    pub recall: Option<f64>,
    /// The harmonic mean of the two; 0 where there is none.
    pub f1: f64,
}

/// How much a token counts in precision and recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWeights {
    /// All tokens count alike, but for the two that the tokenizer puts around a text, which count nothing wherever they
    /// stand.
    Equal,
    /// log((n + 1) / (m + 1)) for a token that m of the n references have.
    InverseDocumentFrequency,
}

/// What unrelated texts score with a layer: precision, recall, F1. A score is rescaled to (score − baseline) / (1 − baseline).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline(pub [f64; 3]);

/// The layers that the package takes for a checkpoint where none is asked for: those whose scores agree best with people's on
/// WMT16. Some of them; the last parts of their names.
const LAYERS: [(&str, usize); 16] = [
    ("bert-base-uncased", 9),
    ("bert-large-uncased", 18),
    ("bert-base-multilingual-cased", 9),
    ("bert-base-chinese", 8),
    ("roberta-base", 10),
    ("roberta-large", 17),
    ("roberta-large-mnli", 19),
    ("distilroberta-base", 5),
    ("distilbert-base-uncased", 5),
    ("distilbert-base-multilingual-cased", 5),
    ("deberta-v3-xsmall", 10),
    ("deberta-v3-small", 4),
    ("deberta-v3-base", 9),
    ("deberta-v3-large", 12),
    ("mdeberta-v3-base", 10),
    ("scibert_scivocab_uncased", 8),
];

/// Pairs that the package compares at once, by default: see [`best`].
const PAIRS: usize = 64;

impl BertScorer {
    /// An encoder with its tokenizer (`tokenizer.json`), from a folder or from the hub. Without a `layer`, the one that the
    /// package takes for a checkpoint of this name; 0 is the embeddings.
    ///
    /// # Errors
    /// As [`load_encoder`]; a tokenizer that cannot be read or does not fit the encoder; a layer that the encoder does not
    /// have; no layer, and a checkpoint that the package does not know.
    pub fn load(source: &Source, layer: Option<usize>) -> Result<Self> {
        let encoder = load_encoder(source)?;
        let path = source.file("tokenizer.json")?;
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let layer = match layer {
            Some(layer) => layer,
            None => default_layer(&source.to_string()).with_context(|| {
                format!("{source}: which layer is best for it is not known; name one from 0 to {}", encoder.layers())
            })?,
        };
        Self::new(encoder, tokenizer, layer).with_context(|| source.to_string())
    }

    /// # Errors
    /// A layer that the encoder does not have; a tokenizer that puts anything but one token before and one behind a text,
    /// or tokens that the encoder does not know.
    pub fn new(encoder: TextEncoder, mut tokenizer: Tokenizer, layer: usize) -> Result<Self> {
        ensure!(layer <= encoder.layers(), "layer {layer} is asked for, and the encoder has {}", encoder.layers());
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: encoder.config.max_positions(), ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| anyhow::anyhow!("truncation: {error}"))?;
        let around = encode(&tokenizer, "")?;
        let Ok(around) = <[u32; 2]>::try_from(around) else {
            bail!("the tokenizer makes more or less of an empty text than one token before and one behind it")
        };
        Ok(Self { encoder, tokenizer, layer, around, baseline: None })
    }

    /// The same with scores that are rescaled.
    pub fn with_baseline(self, baseline: Baseline) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    pub fn layer(&self) -> usize {
        self.layer
    }

    /// The score of every candidate against its references. Texts are stripped; what exceeds the encoder's positions is
    /// cut off their ends.
    ///
    /// # Errors
    /// As many lists of references as candidates are missing, a candidate without a reference, an embedding that is not
    /// finite; the candidate is named by its number, from 0.
    pub fn score<C: AsRef<str>, R: AsRef<str>>(
        &self,
        candidates: &[C],
        references: &[Vec<R>],
        weights: TokenWeights,
    ) -> Result<Vec<BertScore>> {
        ensure!(
            candidates.len() == references.len(),
            "{} candidates and {} lists of references do not belong together",
            candidates.len(),
            references.len()
        );
        if let Some(row) = references.iter().position(Vec::is_empty) {
            bail!("candidate {row} has no reference");
        }
        let tokens = |text: &str| self.tokens(text);
        let candidates = candidates.iter().map(|text| tokens(text.as_ref())).collect::<Result<Vec<_>>>()?;
        let references = references
            .iter()
            .map(|texts| texts.iter().map(|text| tokens(text.as_ref())).collect::<Result<Vec<_>>>())
            .collect::<Result<Vec<_>>>()?;
        let weights = Weights::new(weights, self.around, references.iter().flatten());
        let pairs: Vec<TokenPair> = candidates
            .iter()
            .zip(&references)
            .enumerate()
            .flat_map(|(row, (candidate, references))| {
                references.iter().map(move |reference| TokenPair { row, candidate, reference })
            })
            .collect();
        let progress = Progress::new("BERTScore", pairs.len() as u64);
        let mut scores: Vec<Option<BertScore>> = vec![None; candidates.len()];
        for pairs in pairs.chunks(PAIRS) {
            for (&TokenPair { row, .. }, score) in pairs.iter().zip(self.compare(pairs, &weights)?) {
                scores[row] = Some(scores[row].map_or(score, |best| best.highest(&score)));
            }
            progress.inc(pairs.len() as u64);
        }
        progress.finish();
        let rescaled = |score: BertScore| self.baseline.map_or(score, |baseline| baseline.rescale(score));
        Ok(scores.into_iter().flatten().map(rescaled).collect())
    }

    /// A text's tokens, those around it included.
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        // As Python's strip has it.
        let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f'));
        // RoBERTa's first word is a word like the others.
        match self.encoder.config {
            Config::Roberta(_) if !text.is_empty() => encode(&self.tokenizer, &format!(" {text}")),
            _ => encode(&self.tokenizer, text),
        }
    }

    /// The scores of a batch of pairs of candidate and reference.
    fn compare(&self, pairs: &[TokenPair], weights: &Weights) -> Result<Vec<BertScore>> {
        let texts: BTreeSet<&[u32]> = pairs.iter().flat_map(|pair| [pair.candidate, pair.reference]).collect();
        let texts: Vec<&[u32]> = texts.into_iter().collect();
        let states = self.encoder.states(&texts, self.layer)?;
        let width = self.encoder.config.hidden_size();
        let states: Vec<Vec<f64>> = states.into_par_iter().map(|states| directions(&states, width)).collect();
        let states: BTreeMap<&[u32], &Vec<f64>> = texts.iter().copied().zip(&states).collect();
        let longest = |length: fn(&TokenPair) -> usize| pairs.iter().map(length).max().unwrap_or(0);
        let (longest_candidate, longest_reference) =
            (longest(|pair| pair.candidate.len()), longest(|pair| pair.reference.len()));
        let score = |&TokenPair { row, candidate, reference }: &TokenPair| {
            let (c, r) = (states[candidate], states[reference]);
            ensure!(
                c.iter().chain(r).all(|x| x.is_finite()),
                "candidate {row}: an embedding of it or of a reference is not finite or has no direction"
            );
            let precision = best(c, r, width, reference.len() < longest_reference);
            let recall = best(r, c, width, candidate.len() < longest_candidate);
            let is_empty = candidate.len() == 2 || reference.len() == 2;
            let (precision, recall) = (weights.mean(candidate, &precision), weights.mean(reference, &recall));
            Ok(BertScore::of(precision, recall, is_empty))
        };
        pairs.par_iter().map(score).collect()
    }
}

impl BertScore {
    fn of(precision: Option<f64>, recall: Option<f64>, is_empty: bool) -> Self {
        if is_empty {
            return Self { precision: Some(0.0), recall: Some(0.0), f1: 0.0 };
        }
        let f1 = precision.zip(recall).map(|(p, r)| 2.0 * p * r / (p + r));
        Self { precision, recall, f1: f1.filter(|f1| !f1.is_nan()).unwrap_or(0.0) }
    }

    /// Each number by itself; what is not there is not there in the highest either.
    fn highest(&self, other: &Self) -> Self {
        let highest = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.max(b));
        Self {
            precision: highest(self.precision, other.precision),
            recall: highest(self.recall, other.recall),
            f1: self.f1.max(other.f1),
        }
    }
}

impl Baseline {
    /// The row of a layer in a file as the package's: a header `LAYER,P,R,F`, and a row a layer from 0 up.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is not of that form, a layer that is not there; the line is named.
    pub fn read(path: &Path, layer: usize) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header = lines.next().map(|(_, line)| line.trim()).unwrap_or_default();
        ensure!(header == "LAYER,P,R,F", "{name}: the first line is {header:?}, not LAYER,P,R,F");
        for (row, (number, line)) in lines.enumerate() {
            let fields: Vec<Option<f64>> = line.split(',').map(|field| field.trim().parse().ok()).collect();
            let &[Some(of), Some(p), Some(r), Some(f)] = &fields[..] else {
                bail!("{name}, line {}: {line:?} is not a layer and three numbers", number + 1)
            };
            ensure!(of == row as f64, "{name}, line {}: layer {row} is expected, not {of}", number + 1);
            if row == layer {
                ensure!([p, r, f].iter().all(|b| *b < 1.0), "{name}, line {}: a baseline is below 1", number + 1);
                return Ok(Self([p, r, f]));
            }
        }
        bail!("{name}: layer {layer} is not there")
    }

    fn rescale(&self, score: BertScore) -> BertScore {
        let Self([p, r, f]) = *self;
        let rescaled = |score: f64, baseline: f64| (score - baseline) / (1.0 - baseline);
        BertScore {
            precision: score.precision.map(|x| rescaled(x, p)),
            recall: score.recall.map(|x| rescaled(x, r)),
            f1: rescaled(score.f1, f),
        }
    }
}

/// A candidate, by its number, and one of its references, as tokens.
struct TokenPair<'a> {
    row: usize,
    candidate: &'a [u32],
    reference: &'a [u32],
}

/// What each token counts.
struct Weights {
    of: BTreeMap<u32, f64>,
    /// Of a token that is not in the map.
    other: f64,
}

impl Weights {
    fn new<'a>(kind: TokenWeights, around: [u32; 2], references: impl Iterator<Item = &'a Vec<u32>>) -> Self {
        if kind == TokenWeights::Equal {
            return Self { of: around.map(|token| (token, 0.0)).into(), other: 1.0 };
        }
        let (mut counts, mut n) = (BTreeMap::<u32, usize>::new(), 0);
        for reference in references {
            n += 1;
            for token in reference.iter().collect::<BTreeSet<_>>() {
                *counts.entry(*token).or_default() += 1;
            }
        }
        let weight = |count: usize| ((n + 1) as f64 / (count + 1) as f64).ln();
        Self { of: counts.into_iter().map(|(token, count)| (token, weight(count))).collect(), other: weight(0) }
    }

    /// The weighted mean over a text's tokens; none where all weights are 0.
    fn mean(&self, tokens: &[u32], values: &[f64]) -> Option<f64> {
        let weight = |token: &u32| self.of.get(token).copied().unwrap_or(self.other);
        let total: f64 = tokens.iter().map(weight).sum();
        let sum: f64 = tokens.iter().zip(values).map(|(token, value)| weight(token) * value).sum();
        (total != 0.0).then(|| sum / total)
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode(text, true).map_err(|error| anyhow::anyhow!("tokenizing {text:?}: {error}"))?;
    Ok(encoding.get_ids().to_vec())
}

/// By the last part of a repository's name.
fn default_layer(source: &str) -> Option<usize> {
    let source = source.split('@').next().unwrap_or_default();
    let name = source.rsplit('/').next();
    LAYERS.iter().find(|(known, _)| name == Some(known)).map(|(_, layer)| *layer)
}

/// Every token's state divided by its norm.
fn directions(states: &[f32], width: usize) -> Vec<f64> {
    let direction = |state: &[f32]| {
        let norm = state.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        state.iter().map(|x| f64::from(*x) / norm).collect::<Vec<_>>()
    };
    states.chunks_exact(width).flat_map(direction).collect()
}

/// For each token of `a` its highest similarity to a token of `b`.
///
/// The package pads a batch of 64 pairs to its longest texts, and padding is similar by 0. So a token that is unlike every
/// token of a padded text gets 0 and not the negative number that it would get alone. With trained encoders there is hardly
/// such a token.
fn best(a: &[f64], b: &[f64], width: usize, is_padded: bool) -> Vec<f64> {
    let least = if is_padded { 0.0 } else { f64::NEG_INFINITY };
    let similarity = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.chunks_exact(width).map(|x| b.chunks_exact(width).map(|y| similarity(x, y)).fold(least, f64::max)).collect()
}
