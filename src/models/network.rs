//! What every causal language model has in common: embeddings, blocks one after the other, a norm, a head.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::nn::{
    self, Embedding, Heads, KvCache, LayerNorm, Linear, LinearShape, Mask, Packing, RmsNorm, TokenLogProbs, Traced,
    Weights,
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
    /// Whether weights are spread over ranks.
    spread: bool,
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
    /// The sequences of a packed batch.
    Packed(&'a Packing),
    /// What a cache holds of each row; the tokens continue it.
    Cached { cache: &'a mut KvCache, layer: usize },
}

impl Sight<'_> {
    /// Causal attention: packed queries, keys and values to `[B, T, heads · head_dim]`.
    pub fn attend(&mut self, packed: &Traced, heads: Heads) -> candle_core::Result<Traced> {
        match self {
            Sight::Whole => nn::attention(packed, heads, &Mask::Causal),
            Sight::Packed(packing) => nn::attention(packed, heads, &Mask::Packed(packing.clone())),
            Sight::Cached { cache, layer } => Ok(Traced::constant(cache.attend(*layer, packed.tensor())?)),
        }
    }

    /// The position of every row's first token.
    pub fn starts(&self, batch: usize) -> Vec<usize> {
        match self {
            Sight::Whole => vec![0; batch],
            Sight::Packed(packing) => packing.positions(),
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
        let (trained, spread, recompute) = (weights.are_trained(), weights.are_spread(), false);
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
            spread,
            recompute,
        }
    }

    /// Whether weights are spread over the ranks of a training, so that all of them read at the same time.
    pub fn is_spread(&self) -> bool {
        self.spread
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
    pub fn hidden(&self, ids: &Tensor, cache: Option<&mut KvCache>) -> candle_core::Result<Tensor> {
        let Some(cache) = cache else { return self.layers(ids, None) };
        let (_, time) = ids.dims2()?;
        let mut x = self.embed(ids, cache.lengths(), time)?.detach();
        for (layer, block) in self.blocks.iter().enumerate() {
            let mut sight = Sight::Cached { cache: &mut *cache, layer };
            x = block.forward(&Traced::constant(x), &mut sight)?.tensor().clone();
        }
        Ok(self.norm.forward(&Traced::constant(x))?.tensor().clone())
    }

    /// The hidden states at `places` (u32 `[N]`) of the flattened `[B·T]`: `[N, C]`.
    pub fn hidden_at(&self, ids: &Tensor, places: &Tensor) -> candle_core::Result<Tensor> {
        nn::select_rows(&self.layers(ids, None)?.flatten_to(1)?, places)
    }

    /// The hidden states at `places` (u32 `[M]`) of a packed batch of ids (u32 `[N]`): `[M, C]`.
    ///
    /// # Errors
    /// A packing of another number of tokens; a sequence that is longer than the model's positions.
    pub fn hidden_packed(&self, ids: &Tensor, packing: &Packing, places: &Tensor) -> candle_core::Result<Tensor> {
        if packing.longest() > self.max_positions {
            candle_core::bail!("{} tokens do not fit the model's {} positions", packing.longest(), self.max_positions)
        }
        nn::select_rows(&self.layers(&ids.unsqueeze(1)?, Some(packing))?.flatten_to(1)?, places)
    }

    fn layers(&self, ids: &Tensor, packing: Option<&Packing>) -> candle_core::Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        let (starts, longest) = match packing {
            None => (vec![0; batch], time),
            Some(packing) => (packing.positions(), packing.longest()),
        };
        let mut x = self.embed(ids, &starts, longest)?;
        for block in &self.blocks {
            let (block, packing) = (block.clone(), packing.cloned());
            x = nn::block(&x, self.recompute, move |x| {
                let mut sight = packing.as_ref().map_or(Sight::Whole, Sight::Packed);
                block.forward(x, &mut sight)
            })?;
        }
        let norm = self.norm.clone();
        nn::block(&x, self.recompute, move |x| norm.forward(x))
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

    /// `starts` are the positions of every row's first token.
    fn embed(&self, ids: &Tensor, starts: &[usize], longest: usize) -> candle_core::Result<Tensor> {
        let ids = &ids.to_device(self.device())?;
        let Some((table, count)) = &self.positions else {
            return nn::embed(&[(&self.tokens, ids)], self.trained);
        };
        let (batch, time) = ids.dims2()?;
        if longest > *count {
            candle_core::bail!("{longest} tokens do not fit the model's {count} positions")
        }
        // With a cache only padding can lie beyond the last position.
        let place = |n: usize, t: usize| ((n + t) as u32).min(*count as u32 - 1);
        let places: Vec<u32> = starts.iter().flat_map(|&n| (0..time).map(move |t| place(n, t))).collect();
        let places = Tensor::from_vec(places, (batch, time), ids.device())?;
        nn::embed(&[(&self.tokens, ids), (table, &places)], self.trained)
    }
}
