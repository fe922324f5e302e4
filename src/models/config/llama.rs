//! LLaMA's configuration.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rope::{self, OlderNames, RopeScaling};
use super::strict::{self, Fields, fixed};

/// LLaMA (Touvron et al. 2023, arXiv:2302.13971, arXiv:2307.09288; LLaMA 3, arXiv:2407.21783).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// The number of key and value heads.
    pub num_key_value_heads: usize,
    /// The width of one head; none means `hidden_size` / `num_attention_heads`.
    #[serde(default)]
    pub head_dim: Option<usize>,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Biases on the four projections of the attention.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases on the three projections of the MLP.
    #[serde(default)]
    pub mlp_bias: bool,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The standard deviation of fresh weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attention_dropout",
        // Early conversions of LLaMA 1 wrote it beside the defaults; transformers does not read it.
        "max_sequence_length",
    ],
    fixed: &[fixed("hidden_act", &["\"silu\"", "\"swish\""]), fixed("pretraining_tp", &["1", "null"])],
};

const ROPE: OlderNames =
    OlderNames { theta: "rope_theta", partial: "partial_rotary_factor", default_theta: 10_000.0, default_partial: 1.0 };

/// What transformers takes where a file does not say.
const DEFAULT_POSITIONS: usize = 2048;

pub(super) fn read(mut fields: Map<String, Value>) -> Result<LlamaConfig> {
    let rope = rope::take(&mut fields, &ROPE)?;
    ensure!(
        rope.partial == 1.0,
        "field partial_rotary_factor is {}; a LLaMA whose heads turn in part is not computed",
        rope.partial
    );
    fields.insert("rope_theta".into(), json!(rope.theta));
    fields.insert("rope_scaling".into(), json!(rope.scaling));
    fields.entry("max_position_embeddings").or_insert(json!(DEFAULT_POSITIONS));
    if fields.get("num_key_value_heads").is_none_or(Value::is_null)
        && let Some(heads) = fields.get("num_attention_heads").cloned()
    {
        fields.insert("num_key_value_heads".into(), heads);
    }
    let config: LlamaConfig = strict::read(&FIELDS, fields)?;
    for (name, value) in [
        ("vocab_size", config.vocab_size),
        ("max_position_embeddings", config.max_position_embeddings),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
    ] {
        ensure!(value > 0, "field {name} is 0");
    }
    let (heads, kv, width) = (config.num_attention_heads, config.num_key_value_heads, config.hidden_size);
    ensure!(
        config.head_dim.is_some() || width.is_multiple_of(heads),
        "fields hidden_size and num_attention_heads are {width} and {heads}; the second must divide the first where \
         head_dim is not there"
    );
    let dim = config.head_dim();
    ensure!(
        heads.is_multiple_of(kv),
        "fields num_attention_heads and num_key_value_heads are {heads} and {kv}; the second must divide the first"
    );
    ensure!(
        dim > 0 && dim.is_multiple_of(2),
        "field head_dim is {dim}; it must be positive and even, since a head's values turn in pairs"
    );
    Ok(config)
}

impl LlamaConfig {
    /// The width of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

impl Default for LlamaConfig {
    /// LLaMA 2, 7B.
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            max_position_embeddings: 4096,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: None,
            rms_norm_eps: 1e-5,
            rope_theta: ROPE.default_theta,
            rope_scaling: RopeScaling::None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            initializer_range: default_initializer_range(),
        }
    }
}

fn default_initializer_range() -> f64 {
    0.02
}
