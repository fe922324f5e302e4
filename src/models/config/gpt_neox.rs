//! GPT-NeoX's configuration.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rope::{self, OlderNames, RopeScaling};
use super::strict::{self, Fields};
use crate::nn::Gelu;

/// GPT-NeoX (Black et al. 2022, arXiv:2204.06745), of which Pythia is made (Biderman et al. 2023, arXiv:2304.01373).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GptNeoxConfig {
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    #[serde(default = "default_act")]
    pub hidden_act: Gelu,
    #[serde(default = "default_norm_eps")]
    pub layer_norm_eps: f64,
    /// The part of each head that turns with the position.
    pub rotary_pct: f64,
    pub rotary_emb_base: f64,
    pub rope_scaling: RopeScaling,
    /// Whether attention and MLP read the same input: x + attention(x) + mlp(x).
    #[serde(default = "default_parallel")]
    pub use_parallel_residual: bool,
    /// Biases on the two projections of the attention; those of the MLP always have them.
    #[serde(default = "default_attention_bias")]
    pub attention_bias: bool,
    /// Whether the output head is the token embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The standard deviation of fresh weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
}

pub(super) const FIELDS: Fields =
    Fields { inert: &["attention_dropout", "classifier_dropout", "hidden_dropout"], fixed: &[] };

const ROPE: OlderNames =
    OlderNames { theta: "rotary_emb_base", partial: "rotary_pct", default_theta: 10_000.0, default_partial: 0.25 };

pub(super) fn read(mut fields: Map<String, Value>) -> Result<GptNeoxConfig> {
    let rope = rope::take(&mut fields, &ROPE)?;
    fields.insert("rotary_emb_base".into(), json!(rope.theta));
    fields.insert("rotary_pct".into(), json!(rope.partial));
    fields.insert("rope_scaling".into(), json!(rope.scaling));
    let config: GptNeoxConfig = strict::read(&FIELDS, fields)?;
    for (name, value) in [
        ("vocab_size", config.vocab_size),
        ("max_position_embeddings", config.max_position_embeddings),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
    ] {
        ensure!(value > 0, "field {name} is 0");
    }
    ensure!(
        config.hidden_size.is_multiple_of(config.num_attention_heads),
        "fields hidden_size and num_attention_heads are {} and {}; the second must divide the first",
        config.hidden_size,
        config.num_attention_heads
    );
    let turning = config.turning();
    ensure!(
        turning.is_multiple_of(2),
        "field rotary_pct is {}: {turning} values of each head would turn; they must be even, since they turn in pairs",
        config.rotary_pct
    );
    Ok(config)
}

impl GptNeoxConfig {
    /// The width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// How many values of each head turn with the position.
    pub fn turning(&self) -> usize {
        (self.head_dim() as f64 * self.rotary_pct) as usize
    }
}

impl Default for GptNeoxConfig {
    /// Pythia 70M.
    fn default() -> Self {
        Self {
            vocab_size: 50_304,
            max_position_embeddings: 2048,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 6,
            num_attention_heads: 8,
            hidden_act: default_act(),
            layer_norm_eps: default_norm_eps(),
            rotary_pct: ROPE.default_partial,
            rotary_emb_base: ROPE.default_theta,
            rope_scaling: RopeScaling::None,
            use_parallel_residual: default_parallel(),
            attention_bias: default_attention_bias(),
            tie_word_embeddings: false,
            initializer_range: default_initializer_range(),
        }
    }
}

fn default_act() -> Gelu {
    Gelu::Erf
}

fn default_norm_eps() -> f64 {
    1e-5
}

fn default_parallel() -> bool {
    true
}

fn default_attention_bias() -> bool {
    true
}

fn default_initializer_range() -> f64 {
    0.02
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: Value) -> Result<GptNeoxConfig> {
        let fields = json!({
            "vocab_size": 50_304, "max_position_embeddings": 2048, "hidden_size": 512, "intermediate_size": 2048,
            "num_hidden_layers": 6, "num_attention_heads": 8, "attention_dropout": 0.1,
        });
        let Value::Object(fields) = fields else { panic!("an object") };
        let Value::Object(more) = more else { panic!("an object") };
        super::read(fields.into_iter().chain(more).collect())
    }

    fn error(more: Value) -> String {
        format!("{:#}", read(more).unwrap_err())
    }

    #[test]
    fn what_is_not_said_is_pythia() {
        assert_eq!(read(json!({})).unwrap(), GptNeoxConfig::default());
        let other = read(json!({
            "hidden_act": "gelu_fast", "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0,
            "partial_rotary_factor": 0.5}, "use_parallel_residual": false, "attention_bias": false,
        }));
        let other = other.unwrap();
        assert_eq!((other.hidden_act, other.rope_scaling), (Gelu::Tanh, RopeScaling::Linear { factor: 4.0 }));
        assert_eq!((other.rotary_emb_base, other.turning()), (500.0, 32));
        assert!(!other.use_parallel_residual && !other.attention_bias);
    }

    #[test]
    fn what_is_not_computed_is_named() {
        let message = error(json!({"hidden_act": "quick_gelu"}));
        assert!(message.contains("hidden_act is \"quick_gelu\""), "{message}");
        let message = error(json!({"rotary_pct": 0.05}));
        assert!(message.contains("rotary_pct is 0.05: 3 values"), "{message}");
        let message = error(json!({"num_attention_heads": 7}));
        assert!(message.contains("hidden_size and num_attention_heads are 512 and 7"), "{message}");
        let message = error(json!({"sliding_window": 128}));
        assert!(message.contains("sliding_window"), "{message}");
    }
}
