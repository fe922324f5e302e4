//! Causal language models: configuration, weights, network.

mod config;
mod gpt2;
mod llama;
mod llama2_c;
mod load;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};

pub use config::{Config, Gpt2Config, LlamaConfig};
use gpt2::Gpt2;
use llama::Llama;
pub use llama2_c::read_llama2_c;
pub use load::{hub_file, load_folder, save_folder};

use crate::nn::{Heads, KvCache, Params};

/// A causal language model: its variables, and the network that reads them.
///
/// ```
/// use qstar::models::{Config, Gpt2Config, LanguageModel};
/// use candle_core::{Device, Tensor};
/// let config = Gpt2Config { vocab_size: 11, n_positions: 8, n_embd: 16, n_layer: 1, n_head: 2, ..Default::default() };
/// let model = LanguageModel::new(Config::Gpt2(config), 0)?;
/// let ids = Tensor::new(&[[1u32, 2, 3]], &Device::Cpu)?;
/// let logits = model.network.logits(&model.network.hidden(&ids, None)?)?;
/// assert_eq!(logits.dims(), [1, 3, 11]);
/// # anyhow::Ok(())
/// ```
pub struct LanguageModel {
    pub config: Config,
    pub params: Params,
    /// Gradients reach `params` through this one.
    pub network: Network,
}

impl LanguageModel {
    /// A model with freshly drawn weights.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let params = match &config {
            Config::Gpt2(c) => gpt2::initialise(c, seed)?,
            Config::Llama(c) => llama::initialise(c, seed)?,
        };
        Self::from_params(config, params)
    }

    /// A model on given variables.
    ///
    /// # Errors
    /// A missing weight, a surplus one, a wrong shape: the weight is named.
    pub fn from_params(config: Config, params: Params) -> Result<Self> {
        let network = Network::build(&config, &params, true)?;
        Ok(Self { config, params, network })
    }

    /// A view that shares the variables' memory and records no gradients: for rollouts and references.
    pub fn frozen(&self) -> Result<Network> {
        Network::build(&self.config, &self.params, false)
    }

    /// A copy with variables of its own.
    pub fn copy(&self) -> Result<Self> {
        self.to_dtype(DType::F32)
    }

    /// A copy in another precision; f64 is for checking gradients.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Self::from_params(self.config.clone(), self.params.copy(dtype)?)
    }
}

/// The layers of a model, built from tensors.
pub struct Network {
    layers: Layers,
    max_positions: usize,
}

enum Layers {
    Gpt2(Gpt2),
    Llama(Llama),
}

impl Network {
    fn build(config: &Config, params: &Params, trainable: bool) -> Result<Self> {
        let weights = params.weights(trainable);
        let layers = match config {
            Config::Gpt2(c) => Layers::Gpt2(Gpt2::new(c, &weights)?),
            Config::Llama(c) => Layers::Llama(Llama::new(c, &weights)?),
        };
        weights.finish().context("the weights do not fit the configuration")?;
        Ok(Self { layers, max_positions: config.max_positions() })
    }

    /// Ids `[B, T]` (u32, padded on the right) to hidden states `[B, T, C]` after the final norm.
    /// With a cache the tokens continue the rows that it holds; the caller advances it.
    pub fn hidden(&self, ids: &Tensor, cache: Option<&mut KvCache>) -> candle_core::Result<Tensor> {
        match &self.layers {
            Layers::Gpt2(net) => net.hidden(ids, cache),
            Layers::Llama(net) => net.hidden(ids, cache),
        }
    }

    /// Hidden states `[.., C]` to logits `[.., V]`.
    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        match &self.layers {
            Layers::Gpt2(net) => net.logits(hidden),
            Layers::Llama(net) => net.logits(hidden),
        }
    }

    /// The number of positions that the model can read.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn cache(&self, batch: usize, capacity: usize) -> KvCache {
        let (layers, heads) = match &self.layers {
            Layers::Gpt2(net) => net.shape(),
            Layers::Llama(net) => net.shape(),
        };
        KvCache::new(layers, heads, batch, capacity)
    }
}

/// What a network tells its cache.
type CacheShape = (usize, Heads);
