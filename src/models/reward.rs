//! Models that give a sequence one number: the hub's `...ForSequenceClassification` with one label. The same network with
//! several labels is a classifier's.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::encoder::{Encoder, EncoderHead};
use super::limits::{Limits, batches};
use super::network::OutputHead;
use super::{Architecture, Config, LanguageModel, Network, bert, build, deberta_v2, distilbert};
use crate::nn::{Params, Weights};

/// A reward model: its variables, and the network that reads them.
///
/// An encoder (BERT, RoBERTa, DistilBERT, DeBERTa) scores by its first token, a causal model by the sequence's last one.
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
    labels: usize,
    limits: Limits,
}

enum Layers {
    Encoder(Encoder, EncoderHead),
    Causal(Network),
}

impl RewardModel {
    /// A model with freshly drawn weights.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let params = match &config {
            Config::Bert(c) => bert::initialise(c, seed)?,
            Config::Roberta(c) => bert::initialise_roberta(c, seed)?,
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
            Config::Bert(c) => bert::add_head(c, &mut params, seed)?,
            Config::Roberta(c) => bert::add_roberta_head(c, &mut params, seed)?,
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
        let network = RewardNetwork::new(&config, &params, 1, true)?;
        Ok(Self { config, params, network })
    }

    /// Keeps of every block only its input for the way back and computes the rest again there: less memory, more time.
    pub fn recompute(&mut self, recompute: bool) {
        match &mut self.network.layers {
            Layers::Encoder(encoder, _) => encoder.recompute = recompute,
            Layers::Causal(network) => network.recompute = recompute,
        }
    }

    /// A view that shares the variables' memory and records no gradients.
    pub fn frozen(&self) -> Result<RewardNetwork> {
        RewardNetwork::new(&self.config, &self.params, 1, false)
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
        let rows = self.frozen()?.all_logits(sequences)?;
        Ok(rows.into_iter().flatten().collect())
    }
}

impl RewardNetwork {
    /// The score of every sequence of token ids, `[B]`, differentiable. A row does not depend on its neighbours.
    ///
    /// # Errors
    /// No sequence; as [`RewardNetwork::check`] for any of them.
    pub fn scores(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        ensure!(self.labels == 1, "a model of {} labels gives no single score", self.labels);
        Ok(self.logits(sequences)?.squeeze(1)?)
    }

    /// The logits of every sequence, `[B, labels]`.
    pub(super) fn logits(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let (ids, lengths) = self.limits.batch(sequences)?;
        match &self.layers {
            Layers::Encoder(encoder, head) => Ok(head.logits(&encoder.hidden(&ids, &lengths, encoder.layers())?)?),
            Layers::Causal(network) => {
                let (batch, time) = ids.dims2()?;
                let last: Vec<u32> = lengths.iter().enumerate().map(|(row, n)| (row * time + n - 1) as u32).collect();
                let hidden = network.hidden_at(&ids, &Tensor::from_vec(last, batch, &Device::Cpu)?)?;
                Ok(network.logits(&hidden)?)
            }
        }
    }

    /// The logits of every sequence, in their order, computed in batches of similar lengths.
    ///
    /// # Errors
    /// As [`RewardNetwork::check`], for any of them, before anything is computed.
    pub(super) fn all_logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f64>>> {
        for (row, tokens) in sequences.iter().enumerate() {
            self.check(tokens).with_context(|| format!("sequence {row}"))?;
        }
        let mut logits = vec![Vec::new(); sequences.len()];
        for rows in batches(&sequences.iter().map(Vec::len).collect::<Vec<_>>(), BATCH_TOKENS) {
            let batch: Vec<&[u32]> = rows.iter().map(|&row| &sequences[row][..]).collect();
            let found = self.logits(&batch)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            for (row, found) in rows.into_iter().zip(found) {
                logits[row] = found;
            }
        }
        Ok(logits)
    }

    /// # Errors
    /// An empty sequence, one that is longer than the model's positions, a token beyond the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<()> {
        self.limits.check(tokens)
    }

    /// The tokens, shortened to the model's positions if they are more: the end is kept, and of what lies before it
    /// only an encoder's first token, which its head reads.
    pub fn keep_end(&self, tokens: &[u32]) -> Vec<u32> {
        self.keep_last(tokens, self.limits.max_positions)
    }

    /// The same with up to `count` tokens, at least 1, where the model has as many positions.
    pub fn keep_last(&self, tokens: &[u32], count: usize) -> Vec<u32> {
        let count = count.clamp(1, self.limits.max_positions);
        let Some(surplus) = tokens.len().checked_sub(count) else { return tokens.to_vec() };
        match self.layers {
            Layers::Encoder(..) => [&tokens[..1], &tokens[surplus + 1..]].concat(),
            Layers::Causal(_) => tokens[surplus..].to_vec(),
        }
    }

    pub(super) fn new(config: &Config, params: &Params, labels: usize, trainable: bool) -> Result<Self> {
        let weights = params.weights(trainable);
        let layers = match config {
            Config::Bert(c) => with_head(bert::encoder(c, &weights)?, bert::head(c, &weights, labels)?, weights)?,
            Config::Roberta(c) => {
                with_head(bert::roberta_encoder(c, &weights)?, bert::roberta_head(c, &weights, labels)?, weights)?
            }
            Config::DistilBert(c) => {
                with_head(distilbert::encoder(c, &weights)?, distilbert::head(c, &weights, labels)?, weights)?
            }
            Config::DebertaV2(c) => {
                with_head(deberta_v2::encoder(c, &weights)?, deberta_v2::head(c, &weights, labels)?, weights)?
            }
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => {
                Layers::Causal(build(config, weights, OutputHead::Scores(labels))?)
            }
        };
        Ok(Self { layers, labels, limits: Limits::of(config) })
    }
}

fn with_head(encoder: Encoder, head: EncoderHead, weights: Weights) -> Result<Layers> {
    weights.finish().context("the weights do not fit the configuration")?;
    Ok(Layers::Encoder(encoder, head))
}

/// Tokens, padding included, that are scored at once.
const BATCH_TOKENS: usize = 8192;
