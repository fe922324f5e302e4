//! What encoders have in common: embeddings, blocks one after the other; a head that reads the first token.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use crate::nn::{self, Activation, Embedding, LayerNorm, Linear, Traced, Weights};

/// An encoder without its head.
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
    pub positions: Option<(Embedding, FirstPosition)>,
    /// Where the model has token types, every token is of the first.
    pub types: Option<Embedding>,
    pub norm: LayerNorm,
}

/// How the positions of a row's tokens are counted.
#[derive(Clone, Copy)]
pub(super) enum FirstPosition {
    Zero,
    /// From behind this token's id. The token itself, wherever it stands, has its id as its position and is not counted.
    Behind(u32),
}

/// The first token's hidden state, through this, the activation, and a linear map to the labels.
pub(super) struct EncoderHead {
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

    /// The number of blocks.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// The hidden states `[B, T, C]` behind the first `layers` blocks: `ids` is `[B, T]` (u32), padded on the right behind
    /// `lengths`. What stands at padding means nothing.
    pub fn hidden(&self, ids: &Tensor, lengths: &[usize], layers: usize) -> Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        if lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > time) {
            bail!("lengths {lengths:?} do not fit {batch} rows of {time} tokens")
        }
        let lengths: Arc<[usize]> = lengths.into();
        let norm = self.parts.norm.clone();
        let mut x = nn::block(&self.embed(ids)?, self.recompute, move |x| norm.forward(x))?;
        for block in &self.blocks[..layers] {
            let (block, lengths) = (block.clone(), lengths.clone());
            x = nn::block(&x, self.recompute, move |x| block.forward(x, &lengths))?;
        }
        Ok(x)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let Parts { tokens, positions, types, .. } = &self.parts;
        let places = positions.as_ref().map(|(_, first)| first.places(ids)?.to_device(tokens.device())).transpose()?;
        let ids = ids.to_device(tokens.device())?;
        let first_type = ids.zeros_like()?;
        let mut tables = vec![(tokens, &ids)];
        tables.extend(positions.iter().zip(&places).map(|((table, _), places)| (table, places)));
        tables.extend(types.iter().map(|table| (table, &first_type)));
        nn::embed(&tables, self.trained)
    }
}

impl FirstPosition {
    /// The position of every token of `[B, T]`.
    fn places(self, ids: &Tensor) -> Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        let Self::Behind(uncounted) = self else {
            return Tensor::arange(0, time as u32, &Device::Cpu)?.broadcast_as((batch, time))?.contiguous();
        };
        let mut places = Vec::with_capacity(batch * time);
        for row in ids.to_vec2::<u32>()? {
            let mut place = uncounted;
            places.extend(row.into_iter().map(|id| {
                place += u32::from(id != uncounted);
                if id == uncounted { uncounted } else { place }
            }));
        }
        Tensor::from_vec(places, (batch, time), &Device::Cpu)
    }
}

impl EncoderHead {
    /// Hidden states `[B, T, C]` to `[B, labels]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let (dense, activation, classifier) = (self.dense.clone(), self.activation, self.classifier.clone());
        let first = hidden.narrow(1, 0, 1)?.squeeze(1)?;
        nn::block(&first, false, move |x| classifier.forward(&nn::activated(&dense, x, activation)?))
    }
}
