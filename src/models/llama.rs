//! LLaMA (Touvron et al. 2023, arXiv:2302.13971), under the hub's names: grouped-query attention,
//! rotary positions, RMS norm, SwiGLU.

use anyhow::Result;
use candle_core::Tensor;

use super::{CacheShape, LlamaConfig};
use crate::nn::{self, Heads, KvCache, Linear, Params, Rope, Weights};

const INIT_SD: f32 = 0.02;

pub struct Llama {
    embed_tokens: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    lm_head: Linear,
    rope: Rope,
    heads: Heads,
    eps: f64,
}

struct Block {
    input_layernorm: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: Tensor,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Llama {
    pub fn new(config: &LlamaConfig, weights: &Weights) -> Result<Self> {
        let width = config.hidden_size;
        let dim = width / config.num_attention_heads;
        let heads = Heads { query: config.num_attention_heads, kv: config.num_key_value_heads, dim };
        let embed_tokens = weights.get("model.embed_tokens.weight", &[config.vocab_size, width])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|i| Block::new(config, heads, weights, &format!("model.layers.{i}")))
            .collect::<Result<_>>()?;
        let norm = weights.get("model.norm.weight", &[width])?;
        let lm_head = if config.tie_word_embeddings {
            Linear::new(&embed_tokens, None)?
        } else {
            Linear::new(&weights.get("lm_head.weight", &[config.vocab_size, width])?, None)?
        };
        let rope = Rope::new(dim, config.max_position_embeddings, config.rope_theta);
        Ok(Self { embed_tokens, blocks, norm, lm_head, rope, heads, eps: config.rms_norm_eps })
    }

    pub fn hidden(&self, ids: &Tensor, mut cache: Option<&mut KvCache>) -> candle_core::Result<Tensor> {
        let starts = match &cache {
            None => vec![0; ids.dim(0)?],
            Some(cache) => cache.lengths().to_vec(),
        };
        let mut x = nn::embedding(&self.embed_tokens, ids)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normal = nn::rms_norm(&x, &block.input_layernorm, self.eps)?;
            let q = nn::rope(&block.q_proj.forward(&normal)?, &starts, &self.rope)?;
            let k = nn::rope(&block.k_proj.forward(&normal)?, &starts, &self.rope)?;
            let packed = Tensor::cat(&[q, k, block.v_proj.forward(&normal)?], 2)?;
            let attended = match cache.as_deref_mut() {
                None => nn::causal_attention(&packed, self.heads)?,
                Some(cache) => cache.attend(layer, &packed)?,
            };
            x = (x + block.o_proj.forward(&attended)?)?;
            let normal = nn::rms_norm(&x, &block.post_attention_layernorm, self.eps)?;
            let gated = nn::swiglu(&block.gate_proj.forward(&normal)?, &block.up_proj.forward(&normal)?)?;
            x = (x + block.down_proj.forward(&gated)?)?;
        }
        nn::rms_norm(&x, &self.norm, self.eps)
    }

    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        self.lm_head.forward(hidden)
    }

    pub fn shape(&self) -> CacheShape {
        (self.blocks.len(), self.heads)
    }
}

impl Block {
    fn new(config: &LlamaConfig, heads: Heads, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let kv_width = heads.kv * heads.dim;
        let linear = |part: &str, output: usize, input: usize| -> Result<Linear> {
            Ok(Linear::new(&weights.get(&format!("{name}.{part}.weight"), &[output, input])?, None)?)
        };
        Ok(Self {
            input_layernorm: weights.get(&format!("{name}.input_layernorm.weight"), &[width])?,
            q_proj: linear("self_attn.q_proj", width, width)?,
            k_proj: linear("self_attn.k_proj", kv_width, width)?,
            v_proj: linear("self_attn.v_proj", kv_width, width)?,
            o_proj: linear("self_attn.o_proj", width, width)?,
            post_attention_layernorm: weights.get(&format!("{name}.post_attention_layernorm.weight"), &[width])?,
            gate_proj: linear("mlp.gate_proj", inner, width)?,
            up_proj: linear("mlp.up_proj", inner, width)?,
            down_proj: linear("mlp.down_proj", width, inner)?,
        })
    }
}

/// Fresh weights: N(0, 0.02²), norms 1.
pub fn initialise(config: &LlamaConfig, seed: u64) -> Result<Params> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let kv_width = width / config.num_attention_heads * config.num_key_value_heads;
    let mut params = Params::default();
    params.add_normal("model.embed_tokens.weight", &[config.vocab_size, width], INIT_SD, seed)?;
    for i in 0..config.num_hidden_layers {
        let block = format!("model.layers.{i}");
        for (part, output, input) in [
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", kv_width, width),
            ("self_attn.v_proj", kv_width, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ] {
            params.add_normal(&format!("{block}.{part}.weight"), &[output, input], INIT_SD, seed)?;
        }
        params.add_constant(&format!("{block}.input_layernorm.weight"), &[width], 1.0)?;
        params.add_constant(&format!("{block}.post_attention_layernorm.weight"), &[width], 1.0)?;
    }
    params.add_constant("model.norm.weight", &[width], 1.0)?;
    if !config.tie_word_embeddings {
        params.add_normal("lm_head.weight", &[config.vocab_size, width], INIT_SD, seed)?;
    }
    Ok(params)
}
