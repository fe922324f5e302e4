//! DistilBERT (Sanh et al. 2019, arXiv:1910.01108) with a sequence-classification head, under the hub's names.

use std::sync::Arc;

use anyhow::Result;

use super::DistilBertConfig;
use super::encoder::{Encoder, EncoderBlock, EncoderHead, FirstPosition, Parts};
use crate::nn::{self, Activation, Heads, LayerNorm, Linear, Mask, Params, Traced, Weights};

const NORM_EPS: f64 = 1e-12;

struct DistilBertBlock {
    q_lin: Linear,
    k_lin: Linear,
    v_lin: Linear,
    out_lin: Linear,
    sa_layer_norm: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    output_layer_norm: LayerNorm,
    heads: Heads,
    activation: Activation,
}

impl EncoderBlock for DistilBertBlock {
    fn forward(&self, x: &Traced, lengths: &Arc<[usize]>) -> candle_core::Result<Traced> {
        let packed = nn::pack(&self.q_lin.forward(x)?, &self.k_lin.forward(x)?, &self.v_lin.forward(x)?)?;
        let seen = nn::attention(&packed, self.heads, &Mask::Lengths(lengths.clone()))?;
        let x = self.sa_layer_norm.forward(&self.out_lin.forward(&seen)?.add(x)?)?;
        let up = nn::activated(&self.lin1, &x, self.activation)?;
        self.output_layer_norm.forward(&self.lin2.forward(&up)?.add(&x)?)
    }
}

impl DistilBertBlock {
    fn new(config: &DistilBertConfig, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner) = (config.dim, config.hidden_dim);
        let linear = |part: &str, from, to| weights.linear(&format!("{name}.{part}"), from, to, true);
        let n = config.n_heads;
        Ok(Self {
            q_lin: linear("attention.q_lin", width, width)?,
            k_lin: linear("attention.k_lin", width, width)?,
            v_lin: linear("attention.v_lin", width, width)?,
            out_lin: linear("attention.out_lin", width, width)?,
            sa_layer_norm: weights.layer_norm(&format!("{name}.sa_layer_norm"), width, NORM_EPS)?,
            lin1: linear("ffn.lin1", width, inner)?,
            lin2: linear("ffn.lin2", inner, width)?,
            output_layer_norm: weights.layer_norm(&format!("{name}.output_layer_norm"), width, NORM_EPS)?,
            heads: Heads { query: n, kv: n, dim: width / n, interleaved: false },
            activation: config.activation,
        })
    }
}

pub(super) fn encoder(config: &DistilBertConfig, weights: &Weights) -> Result<Encoder> {
    config.check()?;
    let width = config.dim;
    let mut blocks: Vec<Arc<dyn EncoderBlock>> = Vec::new();
    for i in 0..config.n_layers {
        blocks.push(Arc::new(DistilBertBlock::new(config, weights, &format!("distilbert.transformer.layer.{i}"))?));
    }
    let embedding = |part: &str, rows| weights.embedding(&format!("distilbert.embeddings.{part}"), rows, width);
    let parts = Parts {
        tokens: embedding("word_embeddings", config.vocab_size)?,
        positions: Some((embedding("position_embeddings", config.max_position_embeddings)?, FirstPosition::Zero)),
        types: None,
        norm: weights.layer_norm("distilbert.embeddings.LayerNorm", width, NORM_EPS)?,
    };
    Ok(Encoder::new(weights, parts, blocks))
}

pub(super) fn head(config: &DistilBertConfig, weights: &Weights, labels: usize) -> Result<EncoderHead> {
    Ok(EncoderHead {
        dense: weights.linear("pre_classifier", config.dim, config.dim, true)?,
        activation: Activation::Relu,
        classifier: weights.linear("classifier", config.dim, labels, true)?,
    })
}

/// Fresh weights: N(0, initializer_range²), biases 0, norms 1.
pub fn initialise(config: &DistilBertConfig, seed: u64) -> Result<Params> {
    let (width, inner, sd) = (config.dim, config.hidden_dim, config.initializer_range as f32);
    let mut params = Params::default();
    let embeddings = "distilbert.embeddings";
    params.add_normal(&format!("{embeddings}.word_embeddings.weight"), &[config.vocab_size, width], sd, seed)?;
    let positions = [config.max_position_embeddings, width];
    params.add_normal(&format!("{embeddings}.position_embeddings.weight"), &positions, sd, seed)?;
    params.add_layer_norm(&format!("{embeddings}.LayerNorm"), width)?;
    for i in 0..config.n_layers {
        let block = format!("distilbert.transformer.layer.{i}");
        for (part, from, to) in [
            ("attention.q_lin", width, width),
            ("attention.k_lin", width, width),
            ("attention.v_lin", width, width),
            ("attention.out_lin", width, width),
            ("ffn.lin1", width, inner),
            ("ffn.lin2", inner, width),
        ] {
            params.add_linear(&format!("{block}.{part}"), from, to, sd, seed)?;
        }
        params.add_layer_norm(&format!("{block}.sa_layer_norm"), width)?;
        params.add_layer_norm(&format!("{block}.output_layer_norm"), width)?;
    }
    add_head(config, &mut params, seed)?;
    Ok(params)
}

/// A fresh head.
pub fn add_head(config: &DistilBertConfig, params: &mut Params, seed: u64) -> Result<()> {
    let sd = config.initializer_range as f32;
    params.add_linear("pre_classifier", config.dim, config.dim, sd, seed)?;
    params.add_linear("classifier", config.dim, 1, sd, seed)
}
