//! A causal model that scores whole sequences: the hub's `...ForSequenceClassification` with one label.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::network::OutputHead;
use super::{Config, LanguageModel, Network, build};
use crate::nn::Params;

/// A causal language model's layers with the head `score` on each sequence's last token.
pub struct ScoreModel {
    pub config: Config,
    pub params: Params,
    /// Gradients reach `params` through this one.
    pub network: Network,
}

impl ScoreModel {
    /// The layers of a language model, copied, with a fresh head: N(0, initializer_range²).
    pub fn on(model: &LanguageModel, seed: u64) -> Result<Self> {
        let layers = model.params.tensors().into_iter().filter(|(name, _)| !HEADS.contains(&name.as_str()));
        let mut params = Params::from_tensors(layers)?;
        let sd = model.config.initializer_range() as f32;
        params.add_normal("score.weight", &[1, model.config.hidden_size()], sd, seed)?;
        Self::from_params(model.config.clone(), params.copy(model.dtype())?)
    }

    /// On given variables.
    ///
    /// # Errors
    /// A missing weight, a surplus one, a wrong shape: the weight is named.
    pub fn from_params(config: Config, params: Params) -> Result<Self> {
        let network = build(&config, params.weights(true), OutputHead::Score)?;
        Ok(Self { config, params, network })
    }

    /// A view that shares the variables' memory and records no gradients.
    pub fn frozen(&self) -> Result<Network> {
        build(&self.config, self.params.weights(false), OutputHead::Score)
    }

    /// As [`LanguageModel::recompute`].
    pub fn recompute(&mut self, recompute: bool) {
        self.network.recompute = recompute;
    }

    /// A copy in another precision.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Self::from_params(self.config.clone(), self.params.copy(dtype)?)
    }

    /// A copy on a device, in its precision.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Self::from_params(self.config.clone(), self.params.to_device(device)?)
    }
}

impl Network {
    /// The score of every sequence of token ids, `[B]`, differentiable. A row does not depend on its neighbours.
    ///
    /// # Errors
    /// No sequence, or an empty one; one longer than the model's positions; a model whose head is not `score`.
    pub fn scores(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        ensure!(!sequences.is_empty(), "a batch needs a sequence");
        let (batch, time) = (sequences.len(), sequences.iter().map(|ids| ids.len()).max().unwrap_or(0));
        let (mut ids, mut last) = (vec![0u32; batch * time], Vec::with_capacity(batch));
        for (row, sequence) in sequences.iter().enumerate() {
            ensure!(!sequence.is_empty(), "sequence {row} is empty");
            ids[row * time..][..sequence.len()].copy_from_slice(sequence);
            last.push((row * time + sequence.len() - 1) as u32);
        }
        let ids = Tensor::from_vec(ids, (batch, time), &Device::Cpu)?;
        let hidden = self.hidden_at(&ids, &Tensor::from_vec(last, batch, &Device::Cpu)?)?;
        let scores = self.logits(&hidden)?;
        ensure!(scores.dims() == [batch, 1], "the model's head gives {:?}, not one score a sequence", scores.dims());
        Ok(scores.flatten_all()?)
    }
}

/// The weights over the vocabulary that a scoring model has none of.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];
