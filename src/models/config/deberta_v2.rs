//! The configuration of DeBERTa-v2 and v3.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::strict::{self, Fields, Fixed, fixed};
use crate::nn::{Activation, Gelu, RelativePositions};

/// DeBERTa-v2 and v3 (He et al. 2021, arXiv:2006.03654, arXiv:2111.09543) with a sequence-classification head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DebertaV2Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    /// Absolute positions are added to the tokens.
    pub position_biased_input: bool,
    /// Every token is of the first type.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    /// Relative positions below this are distinguished; below 1 it means `max_position_embeddings`.
    pub max_relative_positions: i64,
    /// Rows of the table for each direction; below 1 every relative position has its own.
    pub position_buckets: i64,
    pub norm_rel_ebd: RelativeNorm,
    /// Positions go through the same maps as contents.
    pub share_att_key: bool,
    #[serde(deserialize_with = "terms")]
    pub pos_att_type: Vec<PositionTerm>,
    /// The positions that the convolution beside the first layer reads; 0 for none.
    pub conv_kernel_size: usize,
    pub conv_act: Activation,
    pub pooler_hidden_act: Activation,
    /// The standard deviation of fresh weights.
    pub initializer_range: f64,
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attention_probs_dropout_prob",
        "cls_dropout",
        "hidden_dropout_prob",
        // Which masked-language head.
        "legacy",
        "pooler_dropout",
        "tie_word_embeddings",
    ],
    fixed: &[fixed("conv_groups", &["1"]), RELATIVE],
};

const RELATIVE: Fixed = Fixed { name: "relative_attention", accepted: &["true"], may_be_absent: false };

pub(super) fn read(mut fields: Map<String, Value>) -> Result<DebertaV2Config> {
    let given: Vec<_> =
        ["embedding_size", "pooler_hidden_size", "attention_head_size"].map(|name| (name, fields.remove(name))).into();
    let config: DebertaV2Config = strict::read(&FIELDS, fields)?;
    config.check()?;
    let (width, head) = (config.hidden_size, config.hidden_size / config.num_attention_heads);
    for ((name, value), honoured) in given.into_iter().zip([width, width, head]) {
        ensure!(
            value.as_ref().is_none_or(|value| value.as_u64() == Some(honoured as u64)),
            "field {name} is {}; with hidden_size {width} only {honoured} is honoured",
            strict::short(&value.unwrap_or_default())
        );
    }
    Ok(config)
}

/// What the attention scores add to content times content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionTerm {
    /// Content to position.
    C2p,
    /// Position to content.
    P2c,
}

/// What normalises the table of relative positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelativeNorm {
    None,
    LayerNorm,
}

impl Default for DebertaV2Config {
    /// transformers' defaults, which no published model has in all fields.
    fn default() -> Self {
        Self {
            vocab_size: 128_100,
            hidden_size: 1536,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            intermediate_size: 6144,
            hidden_act: Activation::Gelu(Gelu::Erf),
            max_position_embeddings: 512,
            position_biased_input: true,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            max_relative_positions: -1,
            position_buckets: -1,
            norm_rel_ebd: RelativeNorm::None,
            share_att_key: false,
            pos_att_type: Vec::new(),
            conv_kernel_size: 0,
            conv_act: Activation::Tanh,
            pooler_hidden_act: Activation::Gelu(Gelu::Erf),
            initializer_range: 0.02,
        }
    }
}

impl DebertaV2Config {
    /// deberta-v3-large, 434M.
    pub fn v3_large() -> Self {
        Self {
            hidden_size: 1024,
            num_attention_heads: 16,
            intermediate_size: 4096,
            position_biased_input: false,
            position_buckets: 256,
            norm_rel_ebd: RelativeNorm::LayerNorm,
            share_att_key: true,
            pos_att_type: vec![PositionTerm::P2c, PositionTerm::C2p],
            ..Default::default()
        }
    }

    pub(in crate::models) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            ensure!(value > 0, "field {name} is 0");
        }
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "fields hidden_size and num_attention_heads are {} and {}; the second must divide the first",
            self.hidden_size,
            self.num_attention_heads
        );
        ensure!(
            !self.pos_att_type.is_empty(),
            "field pos_att_type is empty; c2p, p2c or both must be there, or relative positions have no use"
        );
        ensure!(
            self.conv_kernel_size == 0 || !self.conv_kernel_size.is_multiple_of(2),
            "field conv_kernel_size is {}; it must be odd, so that there is a middle, or 0 for no convolution",
            self.conv_kernel_size
        );
        self.relative_positions().map(|_| ())
    }

    pub(in crate::models) fn has(&self, term: PositionTerm) -> bool {
        self.pos_att_type.contains(&term)
    }

    pub(in crate::models) fn relative_positions(&self) -> Result<RelativePositions> {
        let max = match self.max_relative_positions {
            n if n >= 1 => n as usize,
            _ => self.max_position_embeddings,
        };
        let buckets = (self.position_buckets >= 1).then_some(self.position_buckets as usize);
        RelativePositions::new(buckets, max).context("fields position_buckets and max_relative_positions")
    }
}

/// A list of names, or one text with `|` between them.
fn terms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PositionTerm>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        Text(String),
        List(Vec<String>),
    }
    let names = match Names::deserialize(deserializer)? {
        Names::Text(text) => text.split('|').map(str::to_string).collect(),
        Names::List(list) => list,
    };
    let term = |name: &String| match name.trim().to_lowercase().as_str() {
        "c2p" => Ok(PositionTerm::C2p),
        "p2c" => Ok(PositionTerm::P2c),
        other => Err(serde::de::Error::custom(format!("pos_att_type {other:?}: known are c2p and p2c"))),
    };
    names.iter().map(term).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<DebertaV2Config> {
        let fields = json!({
            "attention_probs_dropout_prob": 0.1, "hidden_size": 1024, "num_attention_heads": 16,
            "intermediate_size": 4096, "relative_attention": true, "position_buckets": 256,
            "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": "p2c|c2p",
            "position_biased_input": false,
        });
        let Value::Object(fields) = fields else { panic!("an object") };
        let Value::Object(more) = more else { panic!("an object") };
        super::read(fields.into_iter().chain(more).collect())
    }

    fn error(more: Value) -> String {
        format!("{:#}", read(more).unwrap_err())
    }

    #[test]
    fn what_is_not_said_is_transformers_default() {
        assert_eq!(read(json!({})).unwrap(), DebertaV2Config::v3_large());
        let v2 = read(json!({
            "pos_att_type": ["c2p", "P2C"], "conv_kernel_size": 3, "conv_act": "gelu", "hidden_act": "relu",
            "attention_head_size": 64, "embedding_size": 1024, "pooler_hidden_size": 1024, "conv_groups": 1,
        }));
        let v2 = v2.unwrap();
        assert_eq!((v2.conv_kernel_size, v2.conv_act), (3, Activation::Gelu(Gelu::Erf)));
        assert_eq!((v2.hidden_act, v2.pos_att_type), (Activation::Relu, vec![PositionTerm::C2p, PositionTerm::P2c]));
    }

    #[test]
    fn what_is_not_computed_is_named() {
        for (field, value, told) in [
            ("embedding_size", json!(128), "field embedding_size is 128; with hidden_size 1024 only 1024"),
            ("pooler_hidden_size", json!(7), "field pooler_hidden_size is 7"),
            ("attention_head_size", json!(32), "field attention_head_size is 32; with hidden_size 1024 only 64"),
            ("relative_attention", json!(false), "field relative_attention is false; only true"),
            ("pos_att_type", json!("p2p|c2p"), "pos_att_type \"p2p\": known are c2p and p2c"),
            ("pos_att_type", json!([]), "field pos_att_type is empty"),
            ("conv_groups", json!(2), "field conv_groups is 2; only 1"),
            ("conv_kernel_size", json!(4), "field conv_kernel_size is 4"),
            ("num_attention_heads", json!(7), "fields hidden_size and num_attention_heads are 1024 and 7"),
            ("hidden_act", json!("quick_gelu"), "field hidden_act is \"quick_gelu\""),
            ("norm_rel_ebd", json!("batch_norm"), "field norm_rel_ebd is \"batch_norm\""),
            ("max_relative_positions", json!(100), "fields position_buckets and max_relative_positions"),
            ("z_steps", json!(2), "field z_steps with the value 2"),
        ] {
            let message = error(json!({ field: value }));
            assert!(message.contains(told), "{message}");
        }
    }
}
