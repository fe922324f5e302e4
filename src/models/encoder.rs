//! What encoders with one reward as their output have in common: embeddings, blocks one after the other, a head that
//! reads the first token.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::nn::{self, Activation, Embedding, LayerNorm, Linear, Traced, Weights};

/// An encoder with its head.
pub(super) struct Encoder {
    parts: Parts,
    blocks: Vec<Arc<dyn EncoderBlock>>,
    /// Whether gradients are asked for.
    trained: bool,
    /// Whether blocks are computed again on the way back instead of being kept.
    pub(super) recompute: bool,
}

/// All but the blocks.
pub(super) struct Parts {
    pub tokens: Embedding,
    /// Absolute positions, where the model has them.
    pub positions: Option<Embedding>,
    /// Where the model has token types, every token is of the first.
    pub types: Option<Embedding>,
    pub max_positions: usize,
    pub norm: LayerNorm,
    /// The head: this, the activation, and a linear map to one number.
    pub dense: Linear,
    pub activation: Activation,
    pub classifier: Linear,
}

/// One layer: `[B, T, C]` to `[B, T, C]`. What lies behind a row's length must not change what lies within.
pub(super) trait EncoderBlock: Send + Sync {
    fn forward(&self, x: &Traced, lengths: &Arc<[usize]>) -> Result<Traced>;
}

impl Encoder {
    pub fn new(weights: &Weights, parts: Parts, blocks: Vec<Arc<dyn EncoderBlock>>) -> Self {
        Self { parts, blocks, trained: weights.are_trained(), recompute: false }
    }

    /// One number a row, `[B]`: `ids` is `[B, T]` (u32), padded on the right behind `lengths`.
    pub fn scores(&self, ids: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        if lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > time) {
            bail!("lengths {lengths:?} do not fit {batch} rows of {time} tokens")
        }
        let lengths: Arc<[usize]> = lengths.into();
        let norm = self.parts.norm.clone();
        let ids = ids.to_device(self.parts.tokens.device())?;
        let mut x = nn::block(&self.embed(&ids)?, self.recompute, move |x| norm.forward(x))?;
        for block in &self.blocks {
            let (block, lengths) = (block.clone(), lengths.clone());
            x = nn::block(&x, self.recompute, move |x| block.forward(x, &lengths))?;
        }
        let (dense, activation, classifier) =
            (self.parts.dense.clone(), self.parts.activation, self.parts.classifier.clone());
        let first = x.narrow(1, 0, 1)?.squeeze(1)?;
        nn::block(&first, false, move |x| classifier.forward(&nn::activated(&dense, x, activation)?))?.squeeze(1)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let Parts { tokens, positions, types, max_positions, .. } = &self.parts;
        let (batch, time) = ids.dims2()?;
        if time > *max_positions {
            bail!("{time} tokens do not fit the model's {max_positions} positions")
        }
        let places = Tensor::arange(0, time as u32, ids.device())?.broadcast_as((batch, time))?.contiguous()?;
        let first = ids.zeros_like()?;
        let mut tables = vec![(tokens, ids)];
        tables.extend(positions.iter().map(|table| (table, &places)));
        tables.extend(types.iter().map(|table| (table, &first)));
        nn::embed(&tables, self.trained)
    }
}
