//! BERT's configuration.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::strict::{self, Fields, fixed};
use crate::nn::{Activation, Gelu};

/// BERT (Devlin et al. 2018, arXiv:1810.04805) with a sequence-classification head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    /// Every token is of the first type.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    /// The standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl Default for BertConfig {
    /// bert-base-uncased, 109M.
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu(Gelu::Erf),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
        }
    }
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attention_probs_dropout_prob",
        "classifier_dropout",
        // Which way the first TensorFlow files read.
        "directionality",
        "hidden_dropout_prob",
        // Of another pooler, in the files of the multilingual models.
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        // The masked-language head.
        "tie_word_embeddings",
    ],
    fixed: &[fixed("position_embedding_type", &["\"absolute\"", "null"])],
};

pub(super) fn read(fields: Map<String, Value>) -> Result<BertConfig> {
    let config: BertConfig = strict::read(&FIELDS, fields)?;
    config.check()?;
    Ok(config)
}

impl BertConfig {
    pub(in crate::models) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            ensure!(value > 0, "field {name} is 0");
        }
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "fields hidden_size and num_attention_heads are {} and {}; the second must divide the first",
            self.hidden_size,
            self.num_attention_heads
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<BertConfig> {
        let Value::Object(fields) = fields else { panic!("an object") };
        super::read(fields)
    }

    #[test]
    fn fields_are_honoured_inert_or_named() {
        // The fields of the files of bert-base-uncased and of bert-base-multilingual-cased, but for the vocabulary's size.
        let base = json!({
            "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": false,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
            "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
            "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
            "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": true, "directionality": "bidi",
            "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
            "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
        });
        assert_eq!(read(base).unwrap(), BertConfig::default());
        for (fields, told) in [
            (json!({"hidden_size": 100}), "fields hidden_size and num_attention_heads are 100 and 12"),
            (json!({"type_vocab_size": 0}), "field type_vocab_size is 0"),
            (json!({"hidden_act": "swish"}), "field hidden_act is \"swish\""),
            (json!({"position_embedding_type": "relative_key"}), "field position_embedding_type is \"relative_key\""),
            (json!({"is_decoder": true}), "field is_decoder is true"),
            (json!({"embedding_size": 128}), "field embedding_size with the value 128"),
        ] {
            let message = format!("{:#}", read(fields).unwrap_err());
            assert!(message.contains(told), "{message}");
        }
    }
}
