//! Configurations, in the fields of the hub's `config.json`.

use serde::{Deserialize, Serialize};

use crate::nn::Gelu;

/// The configuration of a causal language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum Config {
    Gpt2(Gpt2Config),
    Llama(LlamaConfig),
}

impl Config {
    pub fn vocab_size(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.vocab_size,
            Config::Llama(c) => c.vocab_size,
        }
    }

    /// The width C of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.n_embd,
            Config::Llama(c) => c.hidden_size,
        }
    }

    /// The number of positions that the model can read.
    pub fn max_positions(&self) -> usize {
        match self {
            Config::Gpt2(c) => c.n_positions,
            Config::Llama(c) => c.max_position_embeddings,
        }
    }
}

/// GPT-2 (Radford et al. 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    pub vocab_size: usize,
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    #[serde(default = "default_norm_eps")]
    pub layer_norm_epsilon: f64,
    #[serde(default)]
    pub activation_function: Gelu,
    /// The standard deviation of fresh weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
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
            layer_norm_epsilon: default_norm_eps(),
            activation_function: Gelu::Tanh,
            initializer_range: default_initializer_range(),
        }
    }
}

/// LLaMA (Touvron et al. 2023, arXiv:2302.13971, arXiv:2307.09288).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub rms_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

fn default_norm_eps() -> f64 {
    1e-5
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_rope_theta() -> f64 {
    10_000.0
}
