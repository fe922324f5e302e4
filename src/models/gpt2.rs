//! GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), under the hub's names.

use std::sync::Arc;

use anyhow::Result;

use super::Gpt2Config;
use super::network::{Block, Network, Norm, OutputHead, Sight};
use crate::nn::{Gelu, Heads, LayerNorm, Linear, Params, Traced, Weights};

struct Gpt2Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_proj: Linear,
    heads: Heads,
    gelu: Gelu,
}

impl Block for Gpt2Block {
    fn forward(&self, x: &Traced, sight: &mut Sight) -> candle_core::Result<Traced> {
        let packed = self.c_attn.forward(&self.ln_1.forward(x)?)?;
        let x = x.add(&self.attn_proj.forward(&sight.attend(&packed, self.heads)?)?)?;
        let up = self.c_fc.forward_gelu(&self.ln_2.forward(&x)?, self.gelu)?;
        x.add(&self.mlp_proj.forward(&up)?)
    }
}

impl Gpt2Block {
    fn new(config: &Gpt2Config, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner, eps) = (config.n_embd, config.inner(), config.layer_norm_epsilon);
        Ok(Self {
            ln_1: weights.layer_norm(&format!("{name}.ln_1"), width, eps)?,
            c_attn: weights.conv1d(&format!("{name}.attn.c_attn"), width, 3 * width)?,
            attn_proj: weights.conv1d(&format!("{name}.attn.c_proj"), width, width)?,
            ln_2: weights.layer_norm(&format!("{name}.ln_2"), width, eps)?,
            c_fc: weights.conv1d(&format!("{name}.mlp.c_fc"), width, inner)?,
            mlp_proj: weights.conv1d(&format!("{name}.mlp.c_proj"), inner, width)?,
            heads: heads(config),
            gelu: config.activation_function,
        })
    }
}

fn heads(config: &Gpt2Config) -> Heads {
    let n = config.n_head;
    Heads { query: n, kv: n, dim: config.n_embd / n, interleaved: false }
}

pub fn network(config: &Gpt2Config, weights: &Weights, head: OutputHead) -> Result<Network> {
    let tokens = weights.embedding("transformer.wte", config.vocab_size, config.n_embd)?;
    let positions = weights.embedding("transformer.wpe", config.n_positions, config.n_embd)?;
    let mut blocks: Vec<Arc<dyn Block>> = Vec::new();
    for i in 0..config.n_layer {
        blocks.push(Arc::new(Gpt2Block::new(config, weights, &format!("transformer.h.{i}"))?));
    }
    let norm = weights.layer_norm("transformer.ln_f", config.n_embd, config.layer_norm_epsilon)?;
    let untied = (!config.tie_word_embeddings).then_some("lm_head");
    let head = head.linear(weights, &tokens, untied, config.vocab_size, config.n_embd)?;
    let positions = Some((positions, config.n_positions));
    Ok(Network::new(weights, tokens, positions, blocks, Norm::Layer(norm), head, heads(config)))
}

/// Fresh weights: N(0, initializer_range²), the two projections into the residual stream divided by sqrt(2·layers).
pub fn initialise(config: &Gpt2Config, seed: u64) -> Result<Params> {
    let (width, inner, sd) = (config.n_embd, config.inner(), config.initializer_range as f32);
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
            ("mlp.c_fc", width, inner, sd),
            ("mlp.c_proj", inner, width, residual_sd),
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
    if !config.tie_word_embeddings {
        params.add_normal("lm_head.weight", &[config.vocab_size, width], sd, seed)?;
    }
    Ok(params)
}
