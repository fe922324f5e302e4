//! Models that give a sequence one number: the hub's `...ForSequenceClassification` with one label.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

use super::encoder::Encoder;
use super::network::OutputHead;
use super::{Architecture, Config, LanguageModel, Network, build, deberta_v2, distilbert};
use crate::nn::Params;

/// A reward model: its variables, and the network that reads them.
///
/// An encoder (DistilBERT, DeBERTa) scores by its first token, a causal model by the sequence's last one.
///
/// ```
/// use qstar::models::{Config, DistilBertConfig, RewardModel};
/// let config = DistilBertConfig {
///     vocab_size: 11, max_position_embeddings: 8, dim: 16, n_layers: 1, n_heads: 2, hidden_dim: 32, ..Default::default()
/// };
/// let model = RewardModel::new(Config::DistilBert(config), 0)?;
/// let scores = model.scores(&[vec![1, 2, 3], vec![4], vec![1, 2, 3]])?;
/// assert_eq!(scores[0], scores[2]);
/// # anyhow::Ok(())
/// ```
pub struct RewardModel {
    pub config: Config,
    pub params: Params,
    /// Gradients reach `params` through this one.
    pub network: RewardNetwork,
}

/// The layers of a reward model.
pub struct RewardNetwork {
    layers: Layers,
    vocab_size: usize,
    max_positions: usize,
}

enum Layers {
    Encoder(Encoder),
    Causal(Network),
}

impl RewardModel {
    /// A model with freshly drawn weights.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let params = match &config {
            Config::DistilBert(c) => distilbert::initialise(c, seed)?,
            Config::DebertaV2(c) => deberta_v2::initialise(c, seed)?,
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => {
                return Self::on(&LanguageModel::new(config, seed)?, seed);
            }
        };
        Self::from_params(config, params)
    }

    /// The layers of a language model, copied, with a freshly drawn head.
    ///
    /// # Errors
    /// A model with adapters.
    pub fn on(model: &LanguageModel, seed: u64) -> Result<Self> {
        ensure!(model.adapted.is_none(), "a reward model stands on whole weights; merge the adapters first");
        let head = Architecture::of(model.config.model_type())?.language_head();
        let layers = model.params.tensors().into_iter().filter(|(name, _)| head != Some(name.as_str()));
        Self::with_new_head(model.config.clone(), layers, seed)
    }

    /// Given layers under the model's names, all but the head, which is freshly drawn.
    ///
    /// # Errors
    /// As [`RewardModel::from_params`]; no layers.
    pub fn with_new_head(
        config: Config,
        layers: impl IntoIterator<Item = (String, Tensor)>,
        seed: u64,
    ) -> Result<Self> {
        let mut params = Params::from_tensors(layers)?;
        ensure!(params.iter().next().is_some(), "a head needs layers to stand on");
        match &config {
            Config::DistilBert(c) => distilbert::add_head(c, &mut params, seed)?,
            Config::DebertaV2(c) => deberta_v2::add_head(c, &mut params, seed)?,
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => {
                let sd = config.initializer_range() as f32;
                params.add_normal("score.weight", &[1, config.hidden_size()], sd, seed)?;
            }
        }
        Self::from_params(config, params)
    }

    /// A model on given variables.
    ///
    /// # Errors
    /// A missing weight, a surplus one, a wrong shape: the weight is named.
    pub fn from_params(config: Config, params: Params) -> Result<Self> {
        let network = RewardNetwork::new(&config, &params, true)?;
        Ok(Self { config, params, network })
    }

    /// Keeps of every block only its input for the way back and computes the rest again there: less memory, more time.
    pub fn recompute(&mut self, recompute: bool) {
        match &mut self.network.layers {
            Layers::Encoder(encoder) => encoder.recompute = recompute,
            Layers::Causal(network) => network.recompute = recompute,
        }
    }

    /// A view that shares the variables' memory and records no gradients.
    pub fn frozen(&self) -> Result<RewardNetwork> {
        RewardNetwork::new(&self.config, &self.params, false)
    }

    /// A copy in another precision; f64 is for checking gradients.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Self::from_params(self.config.clone(), self.params.copy(dtype)?)
    }

    /// A copy on a device, in its precision. DeBERTa's attention has no kernel for a GPU.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Self::from_params(self.config.clone(), self.params.to_device(device)?)
    }

    /// The score of every sequence of token ids, in their order, without gradients.
    ///
    /// They are computed in batches of similar lengths; a sequence's score does not depend on the others.
    ///
    /// # Errors
    /// As [`RewardNetwork::check`], for any of them, before anything is computed.
    pub fn scores(&self, sequences: &[Vec<u32>]) -> Result<Vec<f64>> {
        let network = self.frozen()?;
        for (row, tokens) in sequences.iter().enumerate() {
            network.check(tokens).with_context(|| format!("sequence {row}"))?;
        }
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&row| sequences[row].len());
        let mut scores = vec![0.0; sequences.len()];
        let mut rest = &order[..];
        while let Some(&last) = rest.last() {
            // The longest first, so that a batch that needs too much memory fails at once.
            let count = (BATCH_TOKENS / sequences[last].len()).clamp(1, rest.len());
            let (before, rows) = rest.split_at(rest.len() - count);
            let batch: Vec<&[u32]> = rows.iter().map(|&row| &sequences[row][..]).collect();
            let found = network.scores(&batch)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            for (&row, score) in rows.iter().zip(found) {
                scores[row] = score;
            }
            rest = before;
        }
        Ok(scores)
    }
}

impl RewardNetwork {
    /// The score of every sequence of token ids, `[B]`, differentiable. A row does not depend on its neighbours.
    ///
    /// # Errors
    /// No sequence; as [`RewardNetwork::check`] for any of them.
    pub fn scores(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        ensure!(!sequences.is_empty(), "a batch needs a sequence");
        let (batch, time) = (sequences.len(), sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0));
        let mut ids = vec![0u32; batch * time];
        for (row, tokens) in sequences.iter().enumerate() {
            self.check(tokens).with_context(|| format!("sequence {row}"))?;
            ids[row * time..][..tokens.len()].copy_from_slice(tokens);
        }
        let ids = Tensor::from_vec(ids, (batch, time), &Device::Cpu)?;
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
        match &self.layers {
            Layers::Encoder(encoder) => Ok(encoder.scores(&ids, &lengths)?),
            Layers::Causal(network) => {
                let last: Vec<u32> = lengths.iter().enumerate().map(|(row, n)| (row * time + n - 1) as u32).collect();
                let hidden = network.hidden_at(&ids, &Tensor::from_vec(last, batch, &Device::Cpu)?)?;
                Ok(network.logits(&hidden)?.squeeze(1)?)
            }
        }
    }

    /// # Errors
    /// An empty sequence, one that is longer than the model's positions, a token beyond the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<()> {
        ensure!(!tokens.is_empty(), "there are no tokens");
        ensure!(
            tokens.len() <= self.max_positions,
            "{} tokens do not fit the model's {} positions; shorten it, for example with keep_end",
            tokens.len(),
            self.max_positions
        );
        match tokens.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => bail!("token {id} is beyond the vocabulary of {}", self.vocab_size),
            None => Ok(()),
        }
    }

    /// The tokens, shortened to the model's positions if they are more: the end is kept, and of what lies before it
    /// only an encoder's first token, which its head reads.
    pub fn keep_end(&self, tokens: &[u32]) -> Vec<u32> {
        let Some(surplus) = tokens.len().checked_sub(self.max_positions) else { return tokens.to_vec() };
        match self.layers {
            Layers::Encoder(_) => [&tokens[..1], &tokens[surplus + 1..]].concat(),
            Layers::Causal(_) => tokens[surplus..].to_vec(),
        }
    }

    fn new(config: &Config, params: &Params, trainable: bool) -> Result<Self> {
        let weights = params.weights(trainable);
        let layers = match config {
            Config::DistilBert(c) => Layers::Encoder(distilbert::encoder(c, weights)?),
            Config::DebertaV2(c) => Layers::Encoder(deberta_v2::encoder(c, weights)?),
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => {
                Layers::Causal(build(config, weights, OutputHead::Score)?)
            }
        };
        Ok(Self { layers, vocab_size: config.vocab_size(), max_positions: config.max_positions() })
    }
}

/// Tokens, padding included, that are scored at once.
const BATCH_TOKENS: usize = 8192;
