//! BERT (Devlin et al. 2018, arXiv:1810.04805) and RoBERTa (Liu et al. 2019, arXiv:1907.11692), which have the same layers, with
//! a sequence-classification head, under the hub's names.

use std::sync::Arc;

use anyhow::Result;

use super::encoder::{Encoder, EncoderBlock, EncoderHead, FirstPosition, Parts};
use super::{BertConfig, RobertaConfig};
use crate::nn::{self, Activation, Heads, LayerNorm, Linear, Mask, Params, Traced, Weights};

struct BertBlock {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_dense: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output_dense: Linear,
    output_norm: LayerNorm,
    heads: Heads,
    activation: Activation,
}

/// What the two call their parts.
struct Names {
    prefix: &'static str,
    /// The head's first map.
    dense: &'static str,
    classifier: &'static str,
}

const BERT: Names = Names { prefix: "bert", dense: "bert.pooler.dense", classifier: "classifier" };
const ROBERTA: Names = Names { prefix: "roberta", dense: "classifier.dense", classifier: "classifier.out_proj" };

impl EncoderBlock for BertBlock {
    fn forward(&self, x: &Traced, lengths: &Arc<[usize]>) -> candle_core::Result<Traced> {
        let packed = nn::pack(&self.query.forward(x)?, &self.key.forward(x)?, &self.value.forward(x)?)?;
        let seen = nn::attention(&packed, self.heads, &Mask::Lengths(lengths.clone()))?;
        let attended = self.attention_norm.forward(&self.attention_dense.forward(&seen)?.add(x)?)?;
        let up = nn::activated(&self.intermediate, &attended, self.activation)?;
        self.output_norm.forward(&self.output_dense.forward(&up)?.add(&attended)?)
    }
}

impl BertBlock {
    fn new(config: &BertConfig, weights: &Weights, name: &str) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |part: &str, from, to| weights.linear(&format!("{name}.{part}"), from, to, true);
        let norm = |part: &str| weights.layer_norm(&format!("{name}.{part}"), width, config.layer_norm_eps);
        let n = config.num_attention_heads;
        Ok(Self {
            query: linear("attention.self.query", width, width)?,
            key: linear("attention.self.key", width, width)?,
            value: linear("attention.self.value", width, width)?,
            attention_dense: linear("attention.output.dense", width, width)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", width, inner)?,
            output_dense: linear("output.dense", inner, width)?,
            output_norm: norm("output.LayerNorm")?,
            heads: Heads { query: n, kv: n, dim: width / n, interleaved: false },
            activation: config.hidden_act,
        })
    }
}

pub(super) fn encoder(config: &BertConfig, weights: &Weights) -> Result<Encoder> {
    config.check()?;
    body(config, weights, &BERT, FirstPosition::Zero)
}

pub(super) fn roberta_encoder(config: &RobertaConfig, weights: &Weights) -> Result<Encoder> {
    config.check()?;
    body(&config.layers(), weights, &ROBERTA, FirstPosition::Behind(config.pad_token_id))
}

/// BERT's pooler is its head's first map.
pub(super) fn head(config: &BertConfig, weights: &Weights, labels: usize) -> Result<EncoderHead> {
    head_of(config, weights, &BERT, labels)
}

pub(super) fn roberta_head(config: &RobertaConfig, weights: &Weights, labels: usize) -> Result<EncoderHead> {
    head_of(&config.layers(), weights, &ROBERTA, labels)
}

fn body(config: &BertConfig, weights: &Weights, names: &Names, first: FirstPosition) -> Result<Encoder> {
    let (width, prefix) = (config.hidden_size, names.prefix);
    let mut blocks: Vec<Arc<dyn EncoderBlock>> = Vec::new();
    for i in 0..config.num_hidden_layers {
        blocks.push(Arc::new(BertBlock::new(config, weights, &format!("{prefix}.encoder.layer.{i}"))?));
    }
    let embedding = |part: &str, rows| weights.embedding(&format!("{prefix}.embeddings.{part}"), rows, width);
    let parts = Parts {
        tokens: embedding("word_embeddings", config.vocab_size)?,
        positions: Some((embedding("position_embeddings", config.max_position_embeddings)?, first)),
        types: Some(embedding("token_type_embeddings", config.type_vocab_size)?),
        norm: weights.layer_norm(&format!("{prefix}.embeddings.LayerNorm"), width, config.layer_norm_eps)?,
    };
    Ok(Encoder::new(weights, parts, blocks))
}

fn head_of(config: &BertConfig, weights: &Weights, names: &Names, labels: usize) -> Result<EncoderHead> {
    let width = config.hidden_size;
    Ok(EncoderHead {
        dense: weights.linear(names.dense, width, width, true)?,
        activation: Activation::Tanh,
        classifier: weights.linear(names.classifier, width, labels, true)?,
    })
}

/// Fresh weights: N(0, initializer_range²), biases 0, norms 1.
pub fn initialise(config: &BertConfig, seed: u64) -> Result<Params> {
    let mut params = fresh_body(config, BERT.prefix, seed)?;
    add_head(config, &mut params, seed)?;
    Ok(params)
}

/// As [`initialise`], of a RoBERTa.
pub fn initialise_roberta(config: &RobertaConfig, seed: u64) -> Result<Params> {
    config.check()?;
    let mut params = fresh_body(&config.layers(), ROBERTA.prefix, seed)?;
    add_roberta_head(config, &mut params, seed)?;
    Ok(params)
}

/// A fresh head.
pub fn add_head(config: &BertConfig, params: &mut Params, seed: u64) -> Result<()> {
    fresh_head(config, &BERT, params, seed)
}

/// A fresh head of a RoBERTa.
pub fn add_roberta_head(config: &RobertaConfig, params: &mut Params, seed: u64) -> Result<()> {
    fresh_head(&config.layers(), &ROBERTA, params, seed)
}

fn fresh_body(config: &BertConfig, prefix: &str, seed: u64) -> Result<Params> {
    config.check()?;
    let (width, inner, sd) = (config.hidden_size, config.intermediate_size, config.initializer_range as f32);
    let mut params = Params::default();
    for (table, rows) in [
        ("word_embeddings", config.vocab_size),
        ("position_embeddings", config.max_position_embeddings),
        ("token_type_embeddings", config.type_vocab_size),
    ] {
        params.add_normal(&format!("{prefix}.embeddings.{table}.weight"), &[rows, width], sd, seed)?;
    }
    params.add_layer_norm(&format!("{prefix}.embeddings.LayerNorm"), width)?;
    for i in 0..config.num_hidden_layers {
        let block = format!("{prefix}.encoder.layer.{i}");
        for (part, from, to) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", width, inner),
            ("output.dense", inner, width),
        ] {
            params.add_linear(&format!("{block}.{part}"), from, to, sd, seed)?;
        }
        params.add_layer_norm(&format!("{block}.attention.output.LayerNorm"), width)?;
        params.add_layer_norm(&format!("{block}.output.LayerNorm"), width)?;
    }
    Ok(params)
}

fn fresh_head(config: &BertConfig, names: &Names, params: &mut Params, seed: u64) -> Result<()> {
    let (width, sd) = (config.hidden_size, config.initializer_range as f32);
    params.add_linear(names.dense, width, width, sd, seed)?;
    params.add_linear(names.classifier, width, 1, sd, seed)
}
