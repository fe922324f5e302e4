//! What every causal language model has in common: embeddings, blocks one after the other, a norm, a head.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::nn::{
    self, Embedding, Heads, KvCache, LayerNorm, Linear, LinearShape, Mask, RmsNorm, TokenLogProbs, Traced, Weights,
};

/// The layers of a causal language model.
pub struct Network {
    tokens: Embedding,
    /// Learned positions, where the model has them.
    positions: Option<(Embedding, usize)>,
    blocks: Vec<Arc<dyn Block>>,
    norm: Norm,
    head: Linear,
    heads: Heads,
    linears: Vec<LinearShape>,
    parameters: usize,
    /// The number of positions that the configuration allows.
    pub(super) max_positions: usize,
    pub(super) vocabulary: usize,
    /// Whether gradients are asked for.
    trained: bool,
    /// Whether blocks are computed again on the way back instead of being kept.
    pub(super) recompute: bool,
}

/// What the hidden states are mapped to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputHead {
    /// Logits over the vocabulary.
    Vocabulary,
    /// So many labels, one for a reward: `score.weight`, without a bias.
    Scores(usize),
}

impl OutputHead {
    /// `untied` names the vocabulary's weight where it is not the embedding's.
    pub fn linear(
        self,
        weights: &Weights,
        tokens: &Embedding,
        untied: Option<&str>,
        vocab_size: usize,
        width: usize,
    ) -> anyhow::Result<Linear> {
        match (self, untied) {
            (OutputHead::Scores(labels), _) => weights.linear("score", width, labels, false),
            (OutputHead::Vocabulary, Some(name)) => weights.linear(name, width, vocab_size, false),
            (OutputHead::Vocabulary, None) => Ok(tokens.head()),
        }
    }
}

/// One layer: `[B, T, C]` to `[B, T, C]`.
pub(super) trait Block: Send + Sync {
    fn forward(&self, x: &Traced, sight: &mut Sight) -> candle_core::Result<Traced>;
}

/// What a block's attention reads besides its input.
pub(super) enum Sight<'a> {
    /// The sequence itself, from its first position.
    Whole,
    /// What a cache holds of each row; the tokens continue it.
    Cached { cache: &'a mut KvCache, layer: usize },
}

impl Sight<'_> {
    /// Causal attention: packed queries, keys and values to `[B, T, heads · head_dim]`.
    pub fn attend(&mut self, packed: &Traced, heads: Heads) -> candle_core::Result<Traced> {
        match self {
            Sight::Whole => nn::attention(packed, heads, &Mask::Causal),
            Sight::Cached { cache, layer } => Ok(Traced::constant(cache.attend(*layer, packed.tensor())?)),
        }
    }

    /// The position of every row's first token.
    pub fn starts(&self, batch: usize) -> Vec<usize> {
        match self {
            Sight::Whole => vec![0; batch],
            Sight::Cached { cache, .. } => cache.lengths().to_vec(),
        }
    }
}

/// The norm behind the last block.
#[derive(Clone)]
pub(super) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    fn forward(&self, x: &Traced) -> candle_core::Result<Traced> {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.forward(x),
        }
    }
}

impl Network {
    pub(super) fn new(
        weights: &Weights,
        tokens: Embedding,
        positions: Option<(Embedding, usize)>,
        blocks: Vec<Arc<dyn Block>>,
        norm: Norm,
        head: Linear,
        heads: Heads,
    ) -> Self {
        let (trained, recompute) = (weights.are_trained(), false);
        let (linears, parameters, max_positions) = (weights.linears(), weights.count(), usize::MAX);
        Self {
            tokens,
            positions,
            blocks,
            norm,
            head,
            heads,
            linears,
            parameters,
            max_positions,
            vocabulary: 0,
            trained,
            recompute,
        }
    }

    /// The same layers below another map from hidden states to logits. The layers are shared; a table that a tied head
    /// shares with the embedding stays as it is. What is counted as parameters stays, too: the old head's are the new one's.
    pub(crate) fn with_head(self, head: Linear) -> Self {
        Self { head, ..self }
    }

    /// Where the model lies.
    pub fn device(&self) -> &Device {
        self.tokens.device()
    }

    /// The precision of the weights, those below adapters included.
    pub fn dtype(&self) -> DType {
        self.tokens.dtype()
    }

    /// Ids `[B, T]` (u32, padded on the right, on any device) to hidden states `[B, T, C]` after the final norm.
    /// With a cache the tokens continue the rows that it holds; the caller advances it.
    pub fn hidden(&self, ids: &Tensor, mut cache: Option<&mut KvCache>) -> candle_core::Result<Tensor> {
        let mut x = self.embed(&ids.to_device(self.device())?, cache.as_deref())?;
        if cache.is_some() {
            x = x.detach();
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            x = match cache.as_deref_mut() {
                Some(cache) => {
                    let mut sight = Sight::Cached { cache, layer };
                    block.forward(&Traced::constant(x), &mut sight)?.tensor().clone()
                }
                None => {
                    let block = block.clone();
                    nn::block(&x, self.recompute, move |x| block.forward(x, &mut Sight::Whole))?
                }
            };
        }
        let norm = self.norm.clone();
        nn::block(&x, self.recompute, move |x| norm.forward(x))
    }

    /// The hidden states at `places` (u32 `[N]`) of the flattened `[B·T]`: `[N, C]`.
    pub fn hidden_at(&self, ids: &Tensor, places: &Tensor) -> candle_core::Result<Tensor> {
        nn::select_rows(&self.hidden(ids, None)?.flatten_to(1)?, places)
    }

    /// Hidden states `[.., C]` to logits `[.., V]`.
    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        self.head.apply(hidden)
    }

    /// Log-probabilities of `ids`, and entropies, from the hidden states `[N, C]` that predict them.
    pub fn log_probs(&self, hidden: &Tensor, ids: &[u32]) -> candle_core::Result<TokenLogProbs> {
        nn::token_log_probs(hidden, &self.head, ids, self.recompute)
    }

    /// The linear maps, by the hub's names. A tied head is not among them.
    pub fn linears(&self) -> &[LinearShape] {
        &self.linears
    }

    /// The number of weights, those of adapters and of what they stand beside included.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The number of tokens that the configuration has.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The number of positions that the model can read.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn cache(&self, batch: usize, capacity: usize) -> KvCache {
        KvCache::new(self.blocks.len(), self.heads, batch, capacity)
    }

    fn embed(&self, ids: &Tensor, cache: Option<&KvCache>) -> candle_core::Result<Tensor> {
        let Some((table, count)) = &self.positions else {
            return nn::embed(&[(&self.tokens, ids)], self.trained);
        };
        let (batch, time) = ids.dims2()?;
        let starts = cache.map_or_else(|| vec![0; batch], |cache| cache.lengths().to_vec());
        if cache.is_none() && time > *count {
            candle_core::bail!("{time} tokens do not fit the model's {count} positions")
        }
        // With a cache only padding can lie beyond the last position.
        let place = |n: usize, t: usize| ((n + t) as u32).min(*count as u32 - 1);
        let places: Vec<u32> = starts.iter().flat_map(|&n| (0..time).map(move |t| place(n, t))).collect();
        let places = Tensor::from_vec(places, (batch, time), ids.device())?;
        nn::embed(&[(&self.tokens, ids), (table, &places)], self.trained)
    }
}
