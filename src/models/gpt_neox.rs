//! GPT-NeoX (Black et al. 2022, arXiv:2204.06745), under the hub's names: a part of each head turns with the position,
//! attention and feed-forward may read the same input. Pythia (arXiv:2304.01373) is of this architecture.

use std::sync::Arc;

use anyhow::Result;

use super::GptNeoxConfig;
use super::network::{Block, Network, Norm, OutputHead, Sight};
use crate::nn::{self, Gelu, Heads, LayerNorm, Linear, Params, Rope, Traced, Weights};

struct GptNeoxBlock {
    input_layernorm: LayerNorm,
    query_key_value: Linear,
    dense: Linear,
    post_attention_layernorm: LayerNorm,
    dense_h_to_4h: Linear,
    dense_4h_to_h: Linear,
    heads: Heads,
    rope: Rope,
    gelu: Gelu,
    parallel: bool,
}

impl Block for GptNeoxBlock {
    fn forward(&self, x: &Traced, sight: &mut Sight) -> candle_core::Result<Traced> {
        let packed = self.query_key_value.forward(&self.input_layernorm.forward(x)?)?;
        let starts = sight.starts(x.tensor().dim(0)?);
        let turned = nn::rope(&packed, self.heads, &starts, &self.rope)?;
        let sum = x.add(&self.dense.forward(&sight.attend(&turned, self.heads)?)?)?;
        let read = if self.parallel { x } else { &sum };
        let up = self.dense_h_to_4h.forward_gelu(&self.post_attention_layernorm.forward(read)?, self.gelu)?;
        sum.add(&self.dense_4h_to_h.forward(&up)?)
    }
}

impl GptNeoxBlock {
    fn new(config: &GptNeoxConfig, rope: &Rope, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let linear = |part: &str, input: usize, output: usize, bias: bool| {
            weights.linear(&format!("{name}.{part}"), input, output, bias)
        };
        let norm = |part: &str| weights.layer_norm(&format!("{name}.{part}"), width, eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            query_key_value: linear("attention.query_key_value", width, 3 * width, config.attention_bias)?,
            dense: linear("attention.dense", width, width, config.attention_bias)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            dense_h_to_4h: linear("mlp.dense_h_to_4h", width, inner, true)?,
            dense_4h_to_h: linear("mlp.dense_4h_to_h", inner, width, true)?,
            heads: heads(config),
            rope: rope.clone(),
            gelu: config.hidden_act,
            parallel: config.use_parallel_residual,
        })
    }
}

fn heads(config: &GptNeoxConfig) -> Heads {
    let n = config.num_attention_heads;
    Heads { query: n, kv: n, dim: config.head_dim(), interleaved: true }
}

pub fn network(config: &GptNeoxConfig, weights: &Weights, head: OutputHead) -> Result<Network> {
    let (vocab_size, width) = (config.vocab_size, config.hidden_size);
    let heads = heads(config);
    let tokens = weights.embedding("gpt_neox.embed_in", vocab_size, width)?;
    let frequencies = config.rope_scaling.frequencies(config.turning(), config.rotary_emb_base);
    let rope = Rope::new(&frequencies, config.max_position_embeddings);
    let mut blocks: Vec<Arc<dyn Block>> = Vec::new();
    for i in 0..config.num_hidden_layers {
        blocks.push(Arc::new(GptNeoxBlock::new(config, &rope, weights, &format!("gpt_neox.layers.{i}"))?));
    }
    let norm = weights.layer_norm("gpt_neox.final_layer_norm", width, config.layer_norm_eps)?;
    let untied = (!config.tie_word_embeddings).then_some("embed_out");
    let head = head.linear(weights, &tokens, untied, vocab_size, width)?;
    Ok(Network::new(weights, tokens, None, blocks, Norm::Layer(norm), head, heads))
}

/// Fresh weights: N(0, initializer_range²), biases 0, norms 1.
pub fn initialise(config: &GptNeoxConfig, seed: u64) -> Result<Params> {
    let (width, inner, sd) = (config.hidden_size, config.intermediate_size, config.initializer_range as f32);
    let mut params = Params::default();
    params.add_normal("gpt_neox.embed_in.weight", &[config.vocab_size, width], sd, seed)?;
    let mut norms = vec!["gpt_neox.final_layer_norm".to_string()];
    for i in 0..config.num_hidden_layers {
        let block = format!("gpt_neox.layers.{i}");
        for (part, input, output, bias) in [
            ("attention.query_key_value", width, 3 * width, config.attention_bias),
            ("attention.dense", width, width, config.attention_bias),
            ("mlp.dense_h_to_4h", width, inner, true),
            ("mlp.dense_4h_to_h", inner, width, true),
        ] {
            params.add_normal(&format!("{block}.{part}.weight"), &[output, input], sd, seed)?;
            if bias {
                params.add_constant(&format!("{block}.{part}.bias"), &[output], 0.0)?;
            }
        }
        norms.extend([format!("{block}.input_layernorm"), format!("{block}.post_attention_layernorm")]);
    }
    for name in norms {
        params.add_constant(&format!("{name}.weight"), &[width], 1.0)?;
        params.add_constant(&format!("{name}.bias"), &[width], 0.0)?;
    }
    if !config.tie_word_embeddings {
        params.add_normal("embed_out.weight", &[config.vocab_size, width], sd, seed)?;
    }
    Ok(params)
}
