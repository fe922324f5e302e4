//! GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), under the hub's names.

use anyhow::Result;
use candle_core::Tensor;

use super::{CacheShape, Gpt2Config};
use crate::nn::{self, Heads, KvCache, Linear, Params, Weights};

pub struct Gpt2 {
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
    /// The output head is the token embedding.
    head: Linear,
    heads: Heads,
}

struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_proj: Linear,
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Gpt2 {
    pub fn new(config: &Gpt2Config, weights: &Weights) -> Result<Self> {
        let width = config.n_embd;
        let wte = weights.get("transformer.wte.weight", &[config.vocab_size, width])?;
        let wpe = weights.get("transformer.wpe.weight", &[config.n_positions, width])?;
        let blocks = (0..config.n_layer)
            .map(|i| Block::new(config, weights, &format!("transformer.h.{i}")))
            .collect::<Result<_>>()?;
        let ln_f = LayerNorm::new(config, weights, "transformer.ln_f")?;
        let head = Linear::new(&wte, None)?;
        let heads = Heads { query: config.n_head, kv: config.n_head, dim: width / config.n_head };
        Ok(Self { wte, wpe, blocks, ln_f, head, heads })
    }

    pub fn hidden(&self, ids: &Tensor, mut cache: Option<&mut KvCache>) -> candle_core::Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        let tokens = nn::embedding(&self.wte, ids)?;
        let mut x = match &cache {
            None => tokens.broadcast_add(&self.wpe.narrow(0, 0, time)?)?,
            Some(cache) => {
                let last = self.wpe.dim(0)? as u32 - 1;
                let positions: Vec<u32> =
                    // Only padding can lie beyond the last position.
                    cache.lengths().iter().flat_map(|&n| (0..time).map(move |t| ((n + t) as u32).min(last))).collect();
                let positions = Tensor::from_vec(positions, (batch, time), ids.device())?;
                (tokens + nn::embedding(&self.wpe, &positions)?)?
            }
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            let packed = block.c_attn.forward(&block.ln_1.forward(&x)?)?;
            let attended = match cache.as_deref_mut() {
                None => nn::causal_attention(&packed, self.heads)?,
                Some(cache) => cache.attend(layer, &packed)?,
            };
            x = (x + block.attn_proj.forward(&attended)?)?;
            let up = block.c_fc.product(&block.ln_2.forward(&x)?)?;
            let bias = block.c_fc.bias().expect("c_fc has a bias");
            x = (x + block.mlp_proj.forward(&nn::bias_gelu(&up, bias)?)?)?;
        }
        self.ln_f.forward(&x)
    }

    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        self.head.forward(hidden)
    }

    pub fn shape(&self) -> CacheShape {
        (self.blocks.len(), self.heads)
    }
}

impl Block {
    fn new(config: &Gpt2Config, weights: &Weights, name: &str) -> Result<Self> {
        let width = config.n_embd;
        let conv1d = |part: &str, input: usize, output: usize| -> Result<Linear> {
            let weight = weights.get(&format!("{name}.{part}.weight"), &[input, output])?;
            let bias = weights.get(&format!("{name}.{part}.bias"), &[output])?;
            Ok(Linear::conv1d(&weight, Some(&bias)))
        };
        Ok(Self {
            ln_1: LayerNorm::new(config, weights, &format!("{name}.ln_1"))?,
            c_attn: conv1d("attn.c_attn", width, 3 * width)?,
            attn_proj: conv1d("attn.c_proj", width, width)?,
            ln_2: LayerNorm::new(config, weights, &format!("{name}.ln_2"))?,
            c_fc: conv1d("mlp.c_fc", width, 4 * width)?,
            mlp_proj: conv1d("mlp.c_proj", 4 * width, width)?,
        })
    }
}

impl LayerNorm {
    fn new(config: &Gpt2Config, weights: &Weights, name: &str) -> Result<Self> {
        let weight = weights.get(&format!("{name}.weight"), &[config.n_embd])?;
        let bias = weights.get(&format!("{name}.bias"), &[config.n_embd])?;
        Ok(Self { weight, bias, eps: config.layer_norm_epsilon })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        nn::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Fresh weights: N(0, initializer_range²), the two projections into the residual stream divided by sqrt(2·layers).
pub fn initialise(config: &Gpt2Config, seed: u64) -> Result<Params> {
    let (width, sd) = (config.n_embd, config.initializer_range as f32);
    let mut params = Params::default();
    params.add_normal("transformer.wte.weight", &[config.vocab_size, width], sd, seed)?;
    params.add_normal("transformer.wpe.weight", &[config.n_positions, width], sd, seed)?;
    let residual_sd = sd / (2.0 * config.n_layer as f32).sqrt();
    let mut norms = vec!["transformer.ln_f".to_string()];
    for i in 0..config.n_layer {
        let block = format!("transformer.h.{i}");
        for (part, input, output, sd) in [
            ("attn.c_attn", width, 3 * width, sd),
            ("attn.c_proj", width, width, residual_sd),
            ("mlp.c_fc", width, 4 * width, sd),
            ("mlp.c_proj", 4 * width, width, residual_sd),
        ] {
            params.add_normal(&format!("{block}.{part}.weight"), &[input, output], sd, seed)?;
            params.add_constant(&format!("{block}.{part}.bias"), &[output], 0.0)?;
        }
        norms.extend([format!("{block}.ln_1"), format!("{block}.ln_2")]);
    }
    for name in norms {
        params.add_constant(&format!("{name}.weight"), &[width], 1.0)?;
        params.add_constant(&format!("{name}.bias"), &[width], 0.0)?;
    }
    Ok(params)
}
