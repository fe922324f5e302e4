//! A second language model with the policy's tokenizer: the default target.

use anyhow::Result;
use candle_core::Device;

use super::{Contexts, Target};
use crate::models::{Decoder, LanguageModel, Network};
use crate::ranks::Ranks;

/// A language model as target. One forward pass a token.
pub struct Expert {
    network: Network,
    identity: String,
}

impl Expert {
    /// Shares the model's memory: a model that is trained on takes the target with it, but not its
    /// [`identity`](Target::identity).
    pub fn new(model: &LanguageModel) -> Result<Self> {
        Self::named("expert", model)
    }

    /// The same under another kind's name, which begins its identity: `conditional` for a policy that was trained on the
    /// best of its own responses, `draft` for one that stands for a dearer target.
    pub fn named(kind: &str, model: &LanguageModel) -> Result<Self> {
        Ok(Self { network: model.frozen()?, identity: format!("{kind} {}", model.digest()?) })
    }

    /// The same with the weights of the blocks spread over the ranks of a training, on a device: all ranks read at the same
    /// time. Collective.
    ///
    /// # Errors
    /// As [`LanguageModel::frozen_over`].
    pub fn over(model: &LanguageModel, ranks: &Ranks, device: &Device) -> Result<Self> {
        Ok(Self { network: model.frozen_over(ranks, device)?, identity: format!("expert {}", model.digest()?) })
    }
}

impl Target for Expert {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn max_positions(&self) -> usize {
        self.network.max_positions()
    }

    fn read<'a>(&'a self, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Box<dyn Contexts + 'a>> {
        Ok(Box::new(Decoder::prefill(&self.network, prompts, k, max_new)?))
    }
}
