//! Classifiers of texts: the hub's `...ForSequenceClassification` with any number of labels.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use serde::Deserialize;

use super::names::{Architecture, Head, Purpose};
use super::{Config, RewardNetwork, Source, Stored, read_model};
use crate::nn::Params;

/// A classifier that is read, not trained.
pub struct Classifier {
    pub config: Config,
    /// The labels' names, in the order of the logits.
    pub labels: Vec<String>,
    /// Whether a text may have several labels.
    pub multi_label: bool,
    network: RewardNetwork,
}

/// What `config.json` says of the labels.
#[derive(Deserialize)]
struct Labels {
    id2label: Option<BTreeMap<String, String>>,
    problem_type: Option<String>,
}

/// Reads a classifier from a folder or from the hub, in f32.
///
/// # Errors
/// As [`read_model`]; a head that is missing; labels (`id2label`) that are not those of the head, a `problem_type` of
/// another kind than classification.
pub fn load_classifier(source: &Source) -> Result<Classifier> {
    let Stored { config, tensors, .. } =
        read_model(source, Purpose::RewardModel(Head::Stored), DType::F32, &Device::Cpu)?;
    let path = source.config()?;
    let head = Architecture::of(config.model_type())?.classifier();
    let count = tensors.get(head).with_context(|| format!("{source}: tensor {head} is missing"))?.dims()[0];
    let labels = Labels::read(&path).and_then(|labels| Ok((labels.names(count)?, labels.is_multi()?)));
    let (labels, multi_label) = labels.with_context(|| path.display().to_string())?;
    let params = Params::from_tensors(tensors)?;
    let network = RewardNetwork::new(&config, &params, count, false).with_context(|| source.to_string())?;
    Ok(Classifier { config, labels, multi_label, network })
}

impl Classifier {
    /// For each sequence the probability of every label, as transformers' pipeline for text classification computes it: a
    /// softmax, or a logistic function of each logit where a text may have several labels or there is one label.
    ///
    /// # Errors
    /// A sequence that the model cannot read; it is named by its number. Logits that are not finite.
    pub fn probabilities(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f64>>> {
        let mut rows = self.network.all_logits(sequences)?;
        for (i, row) in rows.iter_mut().enumerate() {
            ensure!(row.iter().all(|x| x.is_finite()), "the logits of sequence {i} are {row:?}");
            match self.multi_label || row.len() == 1 {
                true => row.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
                false => {
                    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    row.iter_mut().for_each(|x| *x = (*x - max).exp());
                    let sum: f64 = row.iter().sum();
                    row.iter_mut().for_each(|x| *x /= sum);
                }
            }
        }
        Ok(rows)
    }

    /// The place of a label, by its name.
    ///
    /// # Errors
    /// There is none of that name; those that there are are named.
    pub fn label(&self, name: &str) -> Result<usize> {
        let place = self.labels.iter().position(|label| label == name);
        place.with_context(|| format!("the classifier has no label {name:?}; it has {}", self.labels.join(", ")))
    }

    /// The tokens, shortened as [`RewardNetwork::keep_end`] does.
    pub fn keep_end(&self, tokens: &[u32]) -> Vec<u32> {
        self.network.keep_end(tokens)
    }
}

impl Labels {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("cannot be read")?;
        serde_json::from_str(&text).context("fields id2label and problem_type")
    }

    fn names(&self, count: usize) -> Result<Vec<String>> {
        let Some(names) = &self.id2label else {
            return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
        };
        ensure!(names.len() == count, "field id2label has {} labels, and the head {count}", names.len());
        let name = |i: usize| names.get(&i.to_string()).with_context(|| format!("field id2label has no label {i}"));
        (0..count).map(|i| name(i).cloned()).collect()
    }

    fn is_multi(&self) -> Result<bool> {
        match self.problem_type.as_deref() {
            None | Some("single_label_classification") => Ok(false),
            Some("multi_label_classification") => Ok(true),
            Some(other) => bail!("field problem_type is {other:?}, which is no classification"),
        }
    }
}
