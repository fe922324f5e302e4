//! GPT-2's configuration.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::strict::{self, Fields, fixed};
use crate::nn::Gelu;

/// GPT-2 (Radford et al. 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    pub vocab_size: usize,
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// The width inside the MLP; none means 4 · `n_embd`.
    #[serde(default)]
    pub n_inner: Option<usize>,
    #[serde(default = "default_norm_eps")]
    pub layer_norm_epsilon: f64,
    #[serde(default)]
    pub activation_function: Gelu,
    /// The standard deviation of fresh weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    /// Whether the output head is the token embedding.
    #[serde(default = "default_tie")]
    pub tie_word_embeddings: bool,
}

pub(super) const FIELDS: Fields = Fields {
    inert: &[
        "attn_pdrop",
        "embd_pdrop",
        // The size of the causal mask, which transformers no longer reads.
        "n_ctx",
        "n_special",
        "predict_special_tokens",
        // Another order of the same operations, in f32: the same numbers but for rounding.
        "reorder_and_upcast_attn",
        "resid_pdrop",
        // The head of the double-heads model alone.
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ],
    fixed: &[fixed("scale_attn_by_inverse_layer_idx", &["false"]), fixed("scale_attn_weights", &["true"])],
};

pub(super) fn read(fields: Map<String, Value>) -> Result<Gpt2Config> {
    let config: Gpt2Config = strict::read(&FIELDS, fields)?;
    for (name, value) in [
        ("vocab_size", config.vocab_size),
        ("n_positions", config.n_positions),
        ("n_embd", config.n_embd),
        ("n_head", config.n_head),
        ("n_inner", config.inner()),
    ] {
        ensure!(value > 0, "field {name} is 0");
    }
    ensure!(
        config.n_embd.is_multiple_of(config.n_head),
        "fields n_embd and n_head are {} and {}; the second must divide the first",
        config.n_embd,
        config.n_head
    );
    Ok(config)
}

impl Gpt2Config {
    /// The width inside the MLP.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}

impl Default for Gpt2Config {
    /// GPT-2 124M.
    fn default() -> Self {
        Self {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            layer_norm_epsilon: default_norm_eps(),
            activation_function: Gelu::Tanh,
            initializer_range: default_initializer_range(),
            tie_word_embeddings: default_tie(),
        }
    }
}

fn default_norm_eps() -> f64 {
    1e-5
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_tie() -> bool {
    true
}
