//! DeBERTa-v2 and v3 (He et al. 2021, arXiv:2006.03654, arXiv:2111.09543) with a sequence-classification head,
//! under the hub's names.
//!
//! transformers sets what lies behind a row's length to zero after the embeddings and after the convolution. Here only
//! the convolution reads across positions without a mask of its own, and it takes the lengths: no token within a row
//! ever sees padding, and what padding holds does not matter.

use std::sync::Arc;

use anyhow::Result;

use super::encoder::{Encoder, EncoderBlock, EncoderHead, FirstPosition, Parts};
use super::{DebertaV2Config, PositionTerm, RelativeNorm};
use crate::nn::{
    self, Activation, Conv1d, Embedding, Heads, LayerNorm, Linear, Params, RelativePositions, Traced, Weights,
};

struct DebertaBlock {
    query_proj: Linear,
    key_proj: Linear,
    value_proj: Linear,
    positions: Arc<Positions>,
    /// The maps of relative positions to keys and to queries, where scores have these terms.
    pos_key: Option<Linear>,
    pos_query: Option<Linear>,
    attention_dense: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output_dense: Linear,
    output_norm: LayerNorm,
    /// Beside the first layer of v2.
    conv: Option<ConvLayer>,
    heads: Heads,
    activation: Activation,
}

/// The table of relative positions, which all layers share.
struct Positions {
    relative: RelativePositions,
    table: Embedding,
    norm: Option<LayerNorm>,
}

struct ConvLayer {
    conv: Conv1d,
    activation: Activation,
    norm: LayerNorm,
}

impl EncoderBlock for DebertaBlock {
    fn forward(&self, x: &Traced, lengths: &Arc<[usize]>) -> candle_core::Result<Traced> {
        let packed = nn::pack(&self.query_proj.forward(x)?, &self.key_proj.forward(x)?, &self.value_proj.forward(x)?)?;
        let reach = self.positions.relative.reach(x.tensor().dim(1)?);
        let table = self.positions.rows(reach.first, reach.count, x)?;
        let keys = self.pos_key.as_ref().map(|linear| linear.forward(&table)).transpose()?;
        let queries = self.pos_query.as_ref().map(|linear| linear.forward(&table)).transpose()?;
        let seen = nn::disentangled_attention(&packed, keys.as_ref(), queries.as_ref(), self.heads, &reach, lengths)?;
        let attended = self.attention_norm.forward(&self.attention_dense.forward(&seen)?.add(x)?)?;
        let up = nn::activated(&self.intermediate, &attended, self.activation)?;
        let y = self.output_norm.forward(&self.output_dense.forward(&up)?.add(&attended)?)?;
        let Some(layer) = &self.conv else { return Ok(y) };
        let beside = nn::activate(&layer.conv.forward(x, lengths)?, layer.activation)?;
        layer.norm.forward(&y.add(&beside)?)
    }
}

impl Positions {
    fn rows(&self, first: usize, count: usize, beside: &Traced) -> candle_core::Result<Traced> {
        let rows = self.table.rows(first, count, beside)?;
        match &self.norm {
            Some(norm) => norm.forward(&rows),
            None => Ok(rows),
        }
    }

    fn new(config: &DebertaV2Config, weights: &Weights) -> Result<Self> {
        let relative = config.relative_positions()?;
        let norm = || weights.layer_norm("deberta.encoder.LayerNorm", config.hidden_size, config.layer_norm_eps);
        Ok(Self {
            relative,
            table: weights.embedding("deberta.encoder.rel_embeddings", relative.rows(), config.hidden_size)?,
            norm: (config.norm_rel_ebd == RelativeNorm::LayerNorm).then(norm).transpose()?,
        })
    }
}

impl ConvLayer {
    fn new(config: &DebertaV2Config, weights: &Weights) -> Result<Self> {
        let (width, name) = (config.hidden_size, "deberta.encoder.conv");
        Ok(Self {
            conv: weights.convolution(&format!("{name}.conv"), width, width, config.conv_kernel_size)?,
            activation: config.conv_act,
            norm: weights.layer_norm(&format!("{name}.LayerNorm"), width, config.layer_norm_eps)?,
        })
    }
}

impl DebertaBlock {
    fn new(config: &DebertaV2Config, positions: &Arc<Positions>, weights: &Weights, layer: usize) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let name = format!("deberta.encoder.layer.{layer}");
        let linear = |part: &str, from, to| weights.linear(&format!("{name}.{part}"), from, to, true);
        let norm = |part: &str| weights.layer_norm(&format!("{name}.{part}"), width, eps);
        let [query_proj, key_proj, value_proj] = ["query_proj", "key_proj", "value_proj"]
            .map(|part| linear(&format!("attention.self.{part}"), width, width));
        let (query_proj, key_proj) = (query_proj?, key_proj?);
        let of_positions = |term, shared: &Linear, part: &str| -> Result<Option<Linear>> {
            Ok(match (config.has(term), config.share_att_key) {
                (false, _) => None,
                (true, true) => Some(shared.clone()),
                (true, false) => Some(linear(&format!("attention.self.{part}"), width, width)?),
            })
        };
        let n = config.num_attention_heads;
        let has_conv = layer == 0 && config.conv_kernel_size > 0;
        Ok(Self {
            pos_key: of_positions(PositionTerm::C2p, &key_proj, "pos_key_proj")?,
            pos_query: of_positions(PositionTerm::P2c, &query_proj, "pos_query_proj")?,
            query_proj,
            key_proj,
            value_proj: value_proj?,
            positions: positions.clone(),
            attention_dense: linear("attention.output.dense", width, width)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", width, inner)?,
            output_dense: linear("output.dense", inner, width)?,
            output_norm: norm("output.LayerNorm")?,
            conv: has_conv.then(|| ConvLayer::new(config, weights)).transpose()?,
            heads: Heads { query: n, kv: n, dim: width / n, interleaved: false },
            activation: config.hidden_act,
        })
    }
}

pub(super) fn encoder(config: &DebertaV2Config, weights: &Weights) -> Result<Encoder> {
    config.check()?;
    let width = config.hidden_size;
    let positions = Arc::new(Positions::new(config, weights)?);
    let mut blocks: Vec<Arc<dyn EncoderBlock>> = Vec::new();
    for i in 0..config.num_hidden_layers {
        blocks.push(Arc::new(DebertaBlock::new(config, &positions, weights, i)?));
    }
    let embedding = |part: &str, rows| weights.embedding(&format!("deberta.embeddings.{part}"), rows, width);
    let positions = || -> Result<_> {
        Ok((embedding("position_embeddings", config.max_position_embeddings)?, FirstPosition::Zero))
    };
    let types = || embedding("token_type_embeddings", config.type_vocab_size);
    let parts = Parts {
        tokens: embedding("word_embeddings", config.vocab_size)?,
        positions: config.position_biased_input.then(positions).transpose()?,
        types: (config.type_vocab_size > 0).then(types).transpose()?,
        norm: weights.layer_norm("deberta.embeddings.LayerNorm", width, config.layer_norm_eps)?,
    };
    Ok(Encoder::new(weights, parts, blocks))
}

pub(super) fn head(config: &DebertaV2Config, weights: &Weights, labels: usize) -> Result<EncoderHead> {
    let width = config.hidden_size;
    Ok(EncoderHead {
        dense: weights.linear("pooler.dense", width, width, true)?,
        activation: config.pooler_hidden_act,
        classifier: weights.linear("classifier", width, labels, true)?,
    })
}

/// Fresh weights: N(0, initializer_range²), biases 0, norms 1.
pub fn initialise(config: &DebertaV2Config, seed: u64) -> Result<Params> {
    config.check()?;
    let (width, inner, sd) = (config.hidden_size, config.intermediate_size, config.initializer_range as f32);
    let mut params = Params::default();
    let mut tables = vec![("embeddings.word_embeddings", config.vocab_size)];
    tables.push(("encoder.rel_embeddings", config.relative_positions()?.rows()));
    tables.extend(
        config.position_biased_input.then_some(("embeddings.position_embeddings", config.max_position_embeddings)),
    );
    tables.extend((config.type_vocab_size > 0).then_some(("embeddings.token_type_embeddings", config.type_vocab_size)));
    for (table, rows) in tables {
        params.add_normal(&format!("deberta.{table}.weight"), &[rows, width], sd, seed)?;
    }
    params.add_layer_norm("deberta.embeddings.LayerNorm", width)?;
    if config.norm_rel_ebd == RelativeNorm::LayerNorm {
        params.add_layer_norm("deberta.encoder.LayerNorm", width)?;
    }
    if config.conv_kernel_size > 0 {
        let shape = [width, width, config.conv_kernel_size];
        params.add_normal("deberta.encoder.conv.conv.weight", &shape, sd, seed)?;
        params.add_constant("deberta.encoder.conv.conv.bias", &[width], 0.0)?;
        params.add_layer_norm("deberta.encoder.conv.LayerNorm", width)?;
    }
    let mut linears = vec![
        ("attention.self.query_proj", width, width),
        ("attention.self.key_proj", width, width),
        ("attention.self.value_proj", width, width),
        ("attention.output.dense", width, width),
        ("intermediate.dense", width, inner),
        ("output.dense", inner, width),
    ];
    for (term, part) in
        [(PositionTerm::C2p, "attention.self.pos_key_proj"), (PositionTerm::P2c, "attention.self.pos_query_proj")]
    {
        linears.extend((config.has(term) && !config.share_att_key).then_some((part, width, width)));
    }
    for i in 0..config.num_hidden_layers {
        let block = format!("deberta.encoder.layer.{i}");
        for &(part, from, to) in &linears {
            params.add_linear(&format!("{block}.{part}"), from, to, sd, seed)?;
        }
        params.add_layer_norm(&format!("{block}.attention.output.LayerNorm"), width)?;
        params.add_layer_norm(&format!("{block}.output.LayerNorm"), width)?;
    }
    add_head(config, &mut params, seed)?;
    Ok(params)
}

/// A fresh head.
pub fn add_head(config: &DebertaV2Config, params: &mut Params, seed: u64) -> Result<()> {
    let (width, sd) = (config.hidden_size, config.initializer_range as f32);
    params.add_linear("pooler.dense", width, width, sd, seed)?;
    params.add_linear("classifier", width, 1, sd, seed)
}
