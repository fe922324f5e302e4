//! RoBERTa's configuration.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BertConfig;
use super::strict::{self, Fields, fixed};
use crate::nn::Activation;

/// RoBERTa (Liu et al. 2019, arXiv:1907.11692) with a sequence-classification head: BERT's layers, with positions that are
/// counted from behind the padding token's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RobertaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    /// Rows of the table of positions; the first `pad_token_id + 1` are never a token's.
    pub max_position_embeddings: usize,
    /// Every token is of the first type.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    /// The standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The first token has the position `pad_token_id + 1`; this token has the position `pad_token_id` and is not counted.
    pub pad_token_id: u32,
}

impl Default for RobertaConfig {
    /// What transformers takes for absent fields.
    fn default() -> Self {
        let BertConfig { hidden_act, layer_norm_eps, initializer_range, .. } = BertConfig::default();
        Self {
            vocab_size: 50_265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps,
            initializer_range,
            pad_token_id: 1,
        }
    }
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "hidden_dropout_prob",
        // The masked-language head.
        "tie_word_embeddings",
    ],
    fixed: &[fixed("position_embedding_type", &["\"absolute\"", "null"])],
};

pub(super) fn read(mut fields: Map<String, Value>) -> Result<RobertaConfig> {
    // In every other architecture it changes nothing.
    let pad_token_id = fields.remove("pad_token_id");
    let mut config: RobertaConfig = strict::read(&FIELDS, fields)?;
    if let Some(id) = pad_token_id {
        let whole = id.as_u64().and_then(|id| u32::try_from(id).ok());
        config.pad_token_id =
            whole.with_context(|| format!("field pad_token_id is {}; it must be a token's id", strict::short(&id)))?;
    }
    config.check()?;
    Ok(config)
}

impl RobertaConfig {
    /// roberta-large, 355M.
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            ..Default::default()
        }
    }

    /// The layers, which are BERT's.
    pub(in crate::models) fn layers(&self) -> BertConfig {
        BertConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        }
    }

    /// The number of positions that tokens can have.
    pub(in crate::models) fn positions(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1)
    }

    pub(in crate::models) fn check(&self) -> Result<()> {
        self.layers().check()?;
        ensure!(
            self.positions() > 0,
            "fields max_position_embeddings and pad_token_id are {} and {}, which leaves no position",
            self.max_position_embeddings,
            self.pad_token_id
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<RobertaConfig> {
        let Value::Object(fields) = fields else { panic!("an object") };
        super::read(fields)
    }

    #[test]
    fn fields_are_honoured_inert_or_named() {
        // The fields of roberta-large's file.
        let large = json!({
            "architectures": ["RobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
            "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 1024,
            "initializer_range": 0.02, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 514, "num_attention_heads": 16, "num_hidden_layers": 24, "pad_token_id": 1,
            "type_vocab_size": 1, "vocab_size": 50265,
        });
        let config = read(large).unwrap();
        assert_eq!((&config, config.positions()), (&RobertaConfig::large(), 512));
        let Value::Object(fields) = serde_json::to_value(&config).unwrap() else { panic!("an object") };
        assert_eq!(super::read(fields).unwrap(), config);
        for (fields, told) in [
            (json!({"pad_token_id": null}), "field pad_token_id is null; it must be a token's id"),
            (json!({"pad_token_id": 511}), "fields max_position_embeddings and pad_token_id are 512 and 511"),
            (json!({"hidden_size": 100}), "fields hidden_size and num_attention_heads are 100 and 12"),
            (json!({"position_embedding_type": "relative_key"}), "field position_embedding_type is \"relative_key\""),
            (json!({"embedding_size": 128}), "field embedding_size with the value 128"),
        ] {
            let message = format!("{:#}", read(fields).unwrap_err());
            assert!(message.contains(told), "{message}");
        }
    }
}
