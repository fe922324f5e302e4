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
