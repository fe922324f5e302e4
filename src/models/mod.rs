//! Causal language models, and encoders with a reward head: configuration, weights, network; how they read texts and chats.

mod bert;
mod chat;
mod classifier;
mod config;
mod deberta_v2;
mod decoder;
mod distilbert;
mod encoder;
mod files;
mod gpt2;
mod gpt_neox;
mod limits;
mod llama;
mod llama2_c;
mod load;
mod lora;
mod names;
mod network;
mod reward;
mod rope_scaling;
mod spread;
mod text_encoder;
mod vocabulary;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Var};

pub use chat::{Chat, ChatTemplate, Encoded, Message, Role};
pub use classifier::{Classifier, load_classifier};
pub use config::{
    BertConfig, Config, DebertaV2Config, DistilBertConfig, Gpt2Config, GptNeoxConfig, LlamaConfig, PositionTerm,
    RelativeNorm, RobertaConfig, RopeScaling,
};
pub use decoder::Decoder;
pub use files::{SHARD_BYTES, Source, TensorFiles, WeightFiles, save_model};
pub use llama2_c::read_llama2_c;
pub use load::{Stored, load_folder, load_model, load_reward_model, read_model, save_folder, save_reward_folder};
use lora::Adapted;
pub use lora::LoraConfig;
pub use names::{ARCHITECTURES, Architecture, Head, Names, Purpose, canonical_names};
pub use network::Network;
pub use reward::{RewardModel, RewardNetwork};
pub use text_encoder::{TextEncoder, load_encoder};
pub use vocabulary::Vocabulary;

use crate::nn::{Params, Weights};
use crate::ranks::Ranks;
use network::OutputHead;
use spread::Base;

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
    /// What is trained: all weights, or adapters alone.
    pub params: Params,
    /// Gradients reach `params` through this one.
    pub network: Network,
    /// What the adapters stand beside, where there are any.
    adapted: Option<Adapted>,
}

impl LanguageModel {
    /// A model with freshly drawn weights.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let params = match &config {
            Config::Gpt2(c) => gpt2::initialise(c, seed)?,
            Config::GptNeox(c) => gpt_neox::initialise(c, seed)?,
            Config::Llama(c) => llama::initialise(c, seed)?,
            Config::Bert(_) | Config::Roberta(_) | Config::DistilBert(_) | Config::DebertaV2(_) => {
                bail!(no_language_model(&config))
            }
        };
        Self::from_params(config, params)
    }

    /// A model on given variables.
    ///
    /// # Errors
    /// A missing weight, a surplus one, a wrong shape: the weight is named.
    pub fn from_params(config: Config, params: Params) -> Result<Self> {
        Self::build(config, params, None)
    }

    fn build(config: Config, params: Params, adapted: Option<Adapted>) -> Result<Self> {
        let weights = weights(&params, adapted.as_ref(), true);
        let network = build(&config, weights, OutputHead::Vocabulary)?;
        Ok(Self { config, params, network, adapted })
    }

    /// Keeps of every block only its input for the way back and computes the rest again there: less memory, more time.
    pub fn recompute(&mut self, recompute: bool) {
        self.network.recompute = recompute;
    }

    /// A view that shares the variables' memory and records no gradients: for rollouts and references.
    pub fn frozen(&self) -> Result<Network> {
        build(&self.config, weights(&self.params, self.adapted.as_ref(), false), OutputHead::Vocabulary)
    }

    /// As [`LanguageModel::frozen`], with memory of its own in which the matrices of the blocks are spread over the ranks of a
    /// training, on a device. What it computes is collective. Collective.
    ///
    /// # Errors
    /// A model with adapters; other weights on another rank.
    pub fn frozen_over(&self, ranks: &Ranks, device: &Device) -> Result<Network> {
        ensure!(self.adapted.is_none(), "a model that is only read has no adapters: merge them");
        let base = Base::whole(self.params.clone()).over(&self.config, self.network.linears(), ranks)?;
        build(&self.config, base.to_device(device)?.weights(), OutputHead::Vocabulary)
    }

    /// A copy with variables of its own. Weights below adapters are shared: they never change.
    pub fn copy(&self) -> Result<Self> {
        Self::build(self.config.clone(), self.params.copy(self.dtype())?, self.adapted.clone())
    }

    /// The precision of the variables.
    pub fn dtype(&self) -> DType {
        self.params.iter().next().map_or(DType::F32, |(_, var)| var.dtype())
    }

    /// A copy in another precision; f64 is for checking gradients. In bf16, adapters stay in f32.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let adapted = self.adapted.as_ref().map(|adapted| adapted.to_dtype(dtype)).transpose()?;
        let own = if adapted.is_some() && dtype != DType::F64 { DType::F32 } else { dtype };
        Self::build(self.config.clone(), self.params.copy(own)?, adapted)
    }

    /// SHA-256 over all weights, in hexadecimal, with the adapters' constants and a precision that is not f32: the identity of
    /// this model.
    pub fn digest(&self) -> Result<String> {
        let digest = match &self.adapted {
            None => self.params.digest()?,
            Some(adapted) => {
                format!("{}+{}+{}", adapted.base.digest()?, self.params.digest()?, adapted.identity())
            }
        };
        // Rounded numbers are those of another computation.
        Ok(match self.network.dtype() {
            DType::F32 => digest,
            other => format!("{digest} in {other:?}"),
        })
    }

    /// A copy whose vocabulary ends at `size`: padding behind the tokenizer's last id (NeoX pads to a multiple of 128) has
    /// rows that no text trains and that would take a share of every distribution.
    ///
    /// # Errors
    /// A vocabulary that is smaller; a model with adapters.
    pub fn without_padding(self, size: usize) -> Result<Self> {
        let rows = self.config.vocab_size();
        ensure!(
            size > 0 && size <= rows,
            "the tokenizer has {size} ids, the model {rows}: they do not belong together"
        );
        ensure!(self.adapted.is_none(), "the padding of a vocabulary is cut before a model gets adapters");
        if size == rows {
            return Ok(self);
        }
        let architecture = Architecture::of(self.config.model_type())?;
        let (embedding, head) = (architecture.embedding(), architecture.language_head());
        let cut = |(name, var): (&str, &Var)| {
            let tensor = match name == embedding || Some(name) == head {
                true => var.narrow(0, 0, size)?.copy()?,
                false => var.as_tensor().clone(),
            };
            Ok((name.to_string(), tensor))
        };
        let tensors: Vec<_> = self.params.iter().map(cut).collect::<Result<_>>()?;
        Self::from_params(self.config.with_vocab_size(size), Params::from_tensors(tensors)?)
    }

    /// A copy on a device, in its precision.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let adapted = self.adapted.as_ref().map(|adapted| adapted.to_device(device)).transpose()?;
        Self::build(self.config.clone(), self.params.to_device(device)?, adapted)
    }
}

fn weights(params: &Params, adapted: Option<&Adapted>, trained: bool) -> Weights {
    match adapted {
        None => params.weights(trained),
        Some(adapted) => adapted.weights(params, trained),
    }
}

fn build(config: &Config, weights: Weights, head: OutputHead) -> Result<Network> {
    let mut network = match config {
        Config::Gpt2(c) => gpt2::network(c, &weights, head)?,
        Config::GptNeox(c) => gpt_neox::network(c, &weights, head)?,
        Config::Llama(c) => llama::network(c, &weights, head)?,
        Config::Bert(_) | Config::Roberta(_) | Config::DistilBert(_) | Config::DebertaV2(_) => {
            bail!(no_language_model(config))
        }
    };
    weights.finish().context("the weights do not fit the configuration")?;
    network.max_positions = config.max_positions();
    network.vocabulary = config.vocab_size();
    Ok(network)
}

fn no_language_model(config: &Config) -> String {
    format!("{} is an encoder: it can be a reward model, not a causal language model", config.model_type())
}
