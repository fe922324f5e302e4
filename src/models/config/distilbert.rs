//! DistilBERT's configuration.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::strict::{self, Fields};
use crate::nn::{Activation, Gelu};

/// DistilBERT (Sanh et al. 2019, arXiv:1910.01108) with a sequence-classification head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistilBertConfig {
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub hidden_dim: usize,
    pub activation: Activation,
    /// The standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl Default for DistilBertConfig {
    /// distilbert-base-uncased, 66M.
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            max_position_embeddings: 512,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: Activation::Gelu(Gelu::Erf),
            initializer_range: 0.02,
        }
    }
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attention_dropout",
        "dropout",
        "qa_dropout",
        "seq_classif_dropout",
        // How the table of positions began; the file holds the table.
        "sinusoidal_pos_embds",
        // The masked-language head.
        "tie_weights_",
        "tie_word_embeddings",
    ],
    fixed: &[],
};

pub(super) fn read(fields: Map<String, Value>) -> Result<DistilBertConfig> {
    let config: DistilBertConfig = strict::read(&FIELDS, fields)?;
    config.check()?;
    Ok(config)
}

impl DistilBertConfig {
    pub(in crate::models) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("dim", self.dim),
            ("hidden_dim", self.hidden_dim),
            ("n_heads", self.n_heads),
        ] {
            ensure!(value > 0, "field {name} is 0");
        }
        ensure!(
            self.dim.is_multiple_of(self.n_heads),
            "fields dim and n_heads are {} and {}; the second must divide the first",
            self.dim,
            self.n_heads
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<DistilBertConfig> {
        let Value::Object(fields) = fields else { panic!("an object") };
        super::read(fields)
    }

    #[test]
    fn fields_are_honoured_inert_or_named() {
        let base = json!({"activation": "gelu", "dropout": 0.1, "tie_weights_": true, "qa_dropout": 0.1});
        assert_eq!(read(base).unwrap(), DistilBertConfig::default());
        assert_eq!(read(json!({"activation": "relu"})).unwrap().activation, Activation::Relu);
        for (fields, told) in [
            (json!({"dim": 100}), "fields dim and n_heads are 100 and 12"),
            (json!({"n_heads": 0}), "field n_heads is 0"),
            (json!({"activation": "swish"}), "field activation is \"swish\""),
            (json!({"layer_norm_eps": 1e-5}), "field layer_norm_eps with the value 0.00001"),
        ] {
            let message = format!("{:#}", read(fields).unwrap_err());
            assert!(message.contains(told), "{message}");
        }
    }
}
