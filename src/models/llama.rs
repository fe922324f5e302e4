//! LLaMA (Touvron et al. 2023, arXiv:2302.13971), under the hub's names: grouped-query attention,
//! rotary positions, RMS norm, SwiGLU.

use std::sync::Arc;

use anyhow::Result;

use super::LlamaConfig;
use super::network::{Block, Network, Norm, OutputHead, Sight};
use crate::nn::{self, Heads, Linear, Params, RmsNorm, Rope, Traced, Weights};

struct LlamaBlock {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: Heads,
    rope: Rope,
}

impl Block for LlamaBlock {
    fn forward(&self, x: &Traced, sight: &mut Sight) -> candle_core::Result<Traced> {
        let normal = self.input_layernorm.forward(x)?;
        let packed =
            nn::pack(&self.q_proj.forward(&normal)?, &self.k_proj.forward(&normal)?, &self.v_proj.forward(&normal)?)?;
        let starts = sight.starts(x.tensor().dim(0)?);
        let turned = nn::rope(&packed, self.heads, &starts, &self.rope)?;
        let x = x.add(&self.o_proj.forward(&sight.attend(&turned, self.heads)?)?)?;
        let normal = self.post_attention_layernorm.forward(&x)?;
        let gated = nn::swiglu(&self.gate_proj.forward(&normal)?, &self.up_proj.forward(&normal)?)?;
        x.add(&self.down_proj.forward(&gated)?)
    }
}

impl LlamaBlock {
    fn new(config: &LlamaConfig, rope: &Rope, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let heads = heads(config);
        let kv_width = heads.kv * heads.dim;
        let linear = |part: &str, input: usize, output: usize, bias: bool| {
            weights.linear(&format!("{name}.{part}"), input, output, bias)
        };
        let (attention_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        Ok(Self {
            input_layernorm: weights.rms_norm(&format!("{name}.input_layernorm"), width, eps)?,
            q_proj: linear("self_attn.q_proj", width, heads.width(), attention_bias)?,
            k_proj: linear("self_attn.k_proj", width, kv_width, attention_bias)?,
            v_proj: linear("self_attn.v_proj", width, kv_width, attention_bias)?,
            o_proj: linear("self_attn.o_proj", heads.width(), width, attention_bias)?,
            post_attention_layernorm: weights.rms_norm(&format!("{name}.post_attention_layernorm"), width, eps)?,
            gate_proj: linear("mlp.gate_proj", width, inner, mlp_bias)?,
            up_proj: linear("mlp.up_proj", width, inner, mlp_bias)?,
            down_proj: linear("mlp.down_proj", inner, width, mlp_bias)?,
            heads,
            rope: rope.clone(),
        })
    }
}

fn heads(config: &LlamaConfig) -> Heads {
    let query = config.num_attention_heads;
    Heads { query, kv: config.num_key_value_heads, dim: config.head_dim(), interleaved: false }
}

pub fn network(config: &LlamaConfig, weights: &Weights, head: OutputHead) -> Result<Network> {
    let heads = heads(config);
    let tokens = weights.embedding("model.embed_tokens", config.vocab_size, config.hidden_size)?;
    let frequencies = config.rope_scaling.frequencies(heads.dim, config.rope_theta);
    let rope = Rope::new(&frequencies, config.max_position_embeddings);
    let mut blocks: Vec<Arc<dyn Block>> = Vec::new();
    for i in 0..config.num_hidden_layers {
        blocks.push(Arc::new(LlamaBlock::new(config, &rope, weights, &format!("model.layers.{i}"))?));
    }
    let norm = weights.rms_norm("model.norm", config.hidden_size, config.rms_norm_eps)?;
    let untied = (!config.tie_word_embeddings).then_some("lm_head");
    let head = head.linear(weights, &tokens, untied, config.vocab_size, config.hidden_size)?;
    Ok(Network::new(weights, tokens, None, blocks, Norm::Rms(norm), head, heads))
}

/// Fresh weights: N(0, initializer_range²), biases 0, norms 1.
pub fn initialise(config: &LlamaConfig, seed: u64) -> Result<Params> {
    let (width, inner, sd) = (config.hidden_size, config.intermediate_size, config.initializer_range as f32);
    let heads = heads(config);
    let (q_width, kv_width) = (heads.width(), heads.kv * heads.dim);
    let mut params = Params::default();
    params.add_normal("model.embed_tokens.weight", &[config.vocab_size, width], sd, seed)?;
    for i in 0..config.num_hidden_layers {
        let block = format!("model.layers.{i}");
        for (part, output, input, bias) in [
            ("self_attn.q_proj", q_width, width, config.attention_bias),
            ("self_attn.k_proj", kv_width, width, config.attention_bias),
            ("self_attn.v_proj", kv_width, width, config.attention_bias),
            ("self_attn.o_proj", width, q_width, config.attention_bias),
            ("mlp.gate_proj", inner, width, config.mlp_bias),
            ("mlp.up_proj", inner, width, config.mlp_bias),
            ("mlp.down_proj", width, inner, config.mlp_bias),
        ] {
            params.add_normal(&format!("{block}.{part}.weight"), &[output, input], sd, seed)?;
            if bias {
                params.add_constant(&format!("{block}.{part}.bias"), &[output], 0.0)?;
            }
        }
        params.add_constant(&format!("{block}.input_layernorm.weight"), &[width], 1.0)?;
        params.add_constant(&format!("{block}.post_attention_layernorm.weight"), &[width], 1.0)?;
    }
    params.add_constant("model.norm.weight", &[width], 1.0)?;
    if !config.tie_word_embeddings {
        params.add_normal("lm_head.weight", &[config.vocab_size, width], sd, seed)?;
    }
    Ok(params)
}
