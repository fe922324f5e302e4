//! Configurations, in the fields of the hub's `config.json`. To add an architecture: a file beside this one with its
//! struct, its table of fields and its reader; a variant of [`Config`]; a row of `READERS`.

mod bert;
mod deberta_v2;
mod distilbert;
mod gpt2;
mod gpt_neox;
mod llama;
mod roberta;
mod rope;
mod strict;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

pub use bert::BertConfig;
pub use deberta_v2::{DebertaV2Config, PositionTerm, RelativeNorm};
pub use distilbert::DistilBertConfig;
pub use gpt_neox::GptNeoxConfig;
pub use gpt2::Gpt2Config;
pub use llama::LlamaConfig;
pub use roberta::RobertaConfig;
pub use rope::RopeScaling;
use strict::Fields;

/// The configuration of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    Gpt2(Gpt2Config),
    GptNeox(GptNeoxConfig),
    Llama(LlamaConfig),
    Bert(BertConfig),
    Roberta(RobertaConfig),
    DistilBert(DistilBertConfig),
    DebertaV2(DebertaV2Config),
}

type Reader = fn(Map<String, Value>) -> Result<Config>;

/// For each `model_type`: what is known of its fields, and its reader.
const READERS: [(&str, Fields, Reader); 7] = [
    ("gpt2", gpt2::FIELDS, |fields| Ok(Config::Gpt2(gpt2::read(fields)?))),
    ("gpt_neox", gpt_neox::FIELDS, |fields| Ok(Config::GptNeox(gpt_neox::read(fields)?))),
    ("llama", llama::FIELDS, |fields| Ok(Config::Llama(llama::read(fields)?))),
    ("bert", bert::FIELDS, |fields| Ok(Config::Bert(bert::read(fields)?))),
    ("roberta", roberta::FIELDS, |fields| Ok(Config::Roberta(roberta::read(fields)?))),
    ("distilbert", distilbert::FIELDS, |fields| Ok(Config::DistilBert(distilbert::read(fields)?))),
    ("deberta-v2", deberta_v2::FIELDS, |fields| Ok(Config::DebertaV2(deberta_v2::read(fields)?))),
];

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Not a JSON object, an architecture that is not known, a field that is missing, wrong, not known or not
    /// honoured: the file, the field and its value are named.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_fields(read_fields(path)?).with_context(|| path.display().to_string())
    }

    /// From the fields of a `config.json`.
    ///
    /// # Errors
    /// As [`Config::read`], without the file's name.
    pub fn from_fields(mut fields: Map<String, Value>) -> Result<Self> {
        let model_type = fields.remove("model_type").context("field model_type is missing")?;
        let Some((_, _, read)) = READERS.iter().find(|(name, ..)| model_type == *name) else {
            let known: Vec<_> = READERS.iter().map(|(name, ..)| *name).collect();
            bail!("model_type is {}; known are {}", strict::short(&model_type), known.join(", "))
        };
        read(fields)
    }

    /// The fields of a `config.json`, which [`Config::from_fields`] and transformers 4 and 5 read.
    pub fn to_fields(&self) -> Result<Map<String, Value>> {
        let value = match self {
            Config::Gpt2(c) => serde_json::to_value(c)?,
            Config::GptNeox(c) => serde_json::to_value(c)?,
            Config::Llama(c) => serde_json::to_value(c)?,
            Config::Bert(c) => serde_json::to_value(c)?,
            Config::Roberta(c) => serde_json::to_value(c)?,
            Config::DistilBert(c) => serde_json::to_value(c)?,
            Config::DebertaV2(c) => serde_json::to_value(c)?,
        };
        let Value::Object(mut fields) = value else { bail!("a configuration that is no object") };
        if fields.get("rope_scaling").is_some_and(|scaling| scaling["rope_type"] == "default") {
            fields.insert("rope_scaling".into(), Value::Null);
        }
        if let Config::DebertaV2(_) = self {
            fields.insert("relative_attention".into(), true.into());
        }
        fields.insert("model_type".into(), self.model_type().into());
        Ok(fields)
    }

    /// The fields of a `config.json` of this architecture that change nothing here: token ids, dropout and the like.
    /// A model that was trained further keeps them.
    ///
    /// # Errors
    /// Not a JSON object; the file is named.
    pub fn inert_fields(&self, path: &Path) -> Result<Map<String, Value>> {
        let mut fields = read_fields(path)?;
        let known = READERS.iter().find(|(name, ..)| *name == self.model_type()).map(|(_, known, _)| known);
        fields.retain(|name, _| known.is_some_and(|known| known.is_inert(name)));
        Ok(fields)
    }

    /// The architecture's name on the hub.
    pub fn model_type(&self) -> &'static str {
        match self {
            Config::Gpt2(_) => "gpt2",
            Config::GptNeox(_) => "gpt_neox",
            Config::Llama(_) => "llama",
            Config::Bert(_) => "bert",
            Config::Roberta(_) => "roberta",
            Config::DistilBert(_) => "distilbert",
            Config::DebertaV2(_) => "deberta-v2",
        }
    }

    pub fn vocab_size(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.vocab_size,
            Config::GptNeox(c) => c.vocab_size,
            Config::Llama(c) => c.vocab_size,
            Config::Bert(c) => c.vocab_size,
            Config::Roberta(c) => c.vocab_size,
            Config::DistilBert(c) => c.vocab_size,
            Config::DebertaV2(c) => c.vocab_size,
        }
    }

    /// The same with another size of the vocabulary.
    pub fn with_vocab_size(&self, size: usize) -> Self {
        let mut config = self.clone();
        match &mut config {
            Config::Gpt2(c) => c.vocab_size = size,
            Config::GptNeox(c) => c.vocab_size = size,
            Config::Llama(c) => c.vocab_size = size,
            Config::Bert(c) => c.vocab_size = size,
            Config::Roberta(c) => c.vocab_size = size,
            Config::DistilBert(c) => c.vocab_size = size,
            Config::DebertaV2(c) => c.vocab_size = size,
        }
        config
    }

    /// The width C of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.n_embd,
            Config::GptNeox(c) => c.hidden_size,
            Config::Llama(c) => c.hidden_size,
            Config::Bert(c) => c.hidden_size,
            Config::Roberta(c) => c.hidden_size,
            Config::DistilBert(c) => c.dim,
            Config::DebertaV2(c) => c.hidden_size,
        }
    }

    /// The number of positions that the model can read.
    pub fn max_positions(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.n_positions,
            Config::GptNeox(c) => c.max_position_embeddings,
            Config::Llama(c) => c.max_position_embeddings,
            Config::Bert(c) => c.max_position_embeddings,
            Config::Roberta(c) => c.positions(),
            Config::DistilBert(c) => c.max_position_embeddings,
            Config::DebertaV2(c) => c.max_position_embeddings,
        }
    }

    /// Whether the output head over the vocabulary is the token embedding.
    pub fn is_tied(&self) -> bool {
        match self {
            Config::Gpt2(c) => c.tie_word_embeddings,
            Config::GptNeox(c) => c.tie_word_embeddings,
            Config::Llama(c) => c.tie_word_embeddings,
            Config::Bert(_) | Config::Roberta(_) | Config::DistilBert(_) | Config::DebertaV2(_) => false,
        }
    }

    /// A tensor that checkpoints hold and this configuration does not use.
    pub(super) fn switched_off(&self) -> Option<&'static str> {
        match self {
            Config::DebertaV2(c) if !c.position_biased_input => Some("deberta.embeddings.position_embeddings.weight"),
            _ => None,
        }
    }

    /// The standard deviation of fresh weights.
    pub fn initializer_range(&self) -> f64 {
        match self {
            Config::Gpt2(c) => c.initializer_range,
            Config::GptNeox(c) => c.initializer_range,
            Config::Llama(c) => c.initializer_range,
            Config::Bert(c) => c.initializer_range,
            Config::Roberta(c) => c.initializer_range,
            Config::DistilBert(c) => c.initializer_range,
            Config::DebertaV2(c) => c.initializer_range,
        }
    }
}

fn read_fields(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a JSON object", path.display()))
}
