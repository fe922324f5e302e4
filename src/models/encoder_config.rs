//! Configurations of encoders with one reward as their output, in the fields of the hub's `config.json`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};

use crate::nn::{Activation, Gelu, RelativePositions};

/// DistilBERT (Sanh et al. 2019, arXiv:1910.01108) with a sequence-classification head.
// The other fields of its config.json.
// Without effect here: attention_dropout, dropout, qa_dropout, seq_classif_dropout (nothing is dropped),
// sinusoidal_pos_embds (the file holds the table), pad_token_id, bos_token_id, eos_token_id, tie_word_embeddings,
// tie_weights_, problem_type, output_past, is_decoder: false.
// Fixed: one label (num_labels 1, id2label and label2id of one entry).
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

impl DistilBertConfig {
    pub(super) fn check(&self) -> Result<()> {
        divides("n_heads", self.n_heads, "dim", self.dim)
    }
}

/// DeBERTa-v2 and v3 (He et al. 2021, arXiv:2006.03654, arXiv:2111.09543) with a sequence-classification head.
// The other fields of its config.json.
// Without effect here: attention_probs_dropout_prob, hidden_dropout_prob, pooler_dropout, cls_dropout (nothing is
// dropped), legacy (the masked-language head), pad_token_id, bos_token_id, eos_token_id, tie_word_embeddings,
// problem_type.
// Fixed: embedding_size and pooler_hidden_size = hidden_size, attention_head_size = hidden_size / num_attention_heads,
// conv_groups 1, one label (num_labels 1, id2label and label2id of one entry).
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
    /// It must be true.
    pub relative_attention: bool,
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
            relative_attention: false,
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
            relative_attention: true,
            position_buckets: 256,
            norm_rel_ebd: RelativeNorm::LayerNorm,
            share_att_key: true,
            pos_att_type: vec![PositionTerm::P2c, PositionTerm::C2p],
            ..Default::default()
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        ensure!(
            self.relative_attention,
            "relative_attention is false: only DeBERTa with relative positions is built here"
        );
        ensure!(
            !self.pos_att_type.is_empty(),
            "pos_att_type is empty: the table of relative positions would have no use; expected c2p, p2c or both"
        );
        ensure!(
            self.conv_kernel_size == 0 || !self.conv_kernel_size.is_multiple_of(2),
            "conv_kernel_size {} is even: a convolution has a middle",
            self.conv_kernel_size
        );
        self.relative_positions().map(|_| ())
    }

    pub(super) fn has(&self, term: PositionTerm) -> bool {
        self.pos_att_type.contains(&term)
    }

    pub(super) fn relative_positions(&self) -> Result<RelativePositions> {
        let max = match self.max_relative_positions {
            n if n >= 1 => n as usize,
            _ => self.max_position_embeddings,
        };
        let buckets = (self.position_buckets >= 1).then_some(self.position_buckets as usize);
        Ok(RelativePositions::new(buckets, max)?)
    }
}

fn divides(part_name: &str, part: usize, whole_name: &str, whole: usize) -> Result<()> {
    ensure!(part > 0 && whole.is_multiple_of(part), "{whole_name} {whole} is not a multiple of {part_name} {part}");
    Ok(())
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
