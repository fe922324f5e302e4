//! Encoders without a head: the hidden states of every token.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

use super::encoder::Encoder;
use super::limits::{Limits, batches};
use super::names::Purpose;
use super::{Architecture, Config, Source, Stored, bert, deberta_v2, distilbert, read_model};
use crate::nn::Params;

/// An encoder (BERT, RoBERTa, DistilBERT, DeBERTa-v2 and v3) that is read, not trained.
///
/// ```
/// use qstar::models::{BertConfig, Config, TextEncoder};
/// let config = BertConfig {
///     vocab_size: 11, max_position_embeddings: 8, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
///     intermediate_size: 32, ..Default::default()
/// };
/// let encoder = TextEncoder::new(Config::Bert(config), 0)?;
/// let states = encoder.hidden(&[&[1, 2, 3], &[4]], encoder.layers())?;
/// assert_eq!(states.dims(), [2, 3, 16]);
/// # anyhow::Ok(())
/// ```
pub struct TextEncoder {
    pub config: Config,
    encoder: Encoder,
    limits: Limits,
}

/// Reads an encoder's layers from a folder or from the hub, in f32; heads that the checkpoint holds are left out.
///
/// # Errors
/// As [`read_model`]; a checkpoint of another kind of model; a tensor that is missing or has another shape than the
/// configuration says.
pub fn load_encoder(source: &Source) -> Result<TextEncoder> {
    let Stored { config, tensors, .. } = read_model(source, Purpose::Encoder, DType::F32, &Device::Cpu)?;
    let params = Params::from_tensors(tensors)?;
    TextEncoder::from_params(config, &params).with_context(|| source.to_string())
}

impl TextEncoder {
    /// An encoder with freshly drawn weights.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let all = match &config {
            Config::Bert(c) => bert::initialise(c, seed)?,
            Config::Roberta(c) => bert::initialise_roberta(c, seed)?,
            Config::DistilBert(c) => distilbert::initialise(c, seed)?,
            Config::DebertaV2(c) => deberta_v2::initialise(c, seed)?,
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => bail!(no_encoder(&config)),
        };
        let architecture = Architecture::of(config.model_type())?;
        let layers = all.tensors().into_iter().filter(|(name, _)| !architecture.is_reward_head(name));
        Self::from_params(config, &Params::from_tensors(layers)?)
    }

    /// An encoder on given variables, whose memory it shares.
    ///
    /// # Errors
    /// A causal model; a missing weight, a surplus one, a wrong shape: the weight is named.
    pub fn from_params(config: Config, params: &Params) -> Result<Self> {
        let weights = params.weights(false);
        let encoder = match &config {
            Config::Bert(c) => bert::encoder(c, &weights)?,
            Config::Roberta(c) => bert::roberta_encoder(c, &weights)?,
            Config::DistilBert(c) => distilbert::encoder(c, &weights)?,
            Config::DebertaV2(c) => deberta_v2::encoder(c, &weights)?,
            Config::Gpt2(_) | Config::GptNeox(_) | Config::Llama(_) => bail!(no_encoder(&config)),
        };
        weights.finish().context("the weights do not fit the configuration")?;
        let limits = Limits::of(&config);
        Ok(Self { config, encoder, limits })
    }

    /// The number of layers.
    pub fn layers(&self) -> usize {
        self.encoder.layers()
    }

    /// The hidden states `[B, T, C]` behind the first `layers` layers: 0 is the embeddings. Row by row, behind a sequence's
    /// tokens stands padding, which means nothing.
    ///
    /// # Errors
    /// More layers than there are; no sequence, an empty one, one that is longer than the model's positions, a token
    /// beyond the vocabulary.
    pub fn hidden(&self, sequences: &[&[u32]], layers: usize) -> Result<Tensor> {
        ensure!(layers <= self.layers(), "layer {layers} is asked for, and the model has {}", self.layers());
        let (ids, lengths) = self.limits.batch(sequences)?;
        Ok(self.encoder.hidden(&ids, &lengths, layers)?)
    }

    /// As [`TextEncoder::hidden`], computed in batches of similar lengths: each sequence's states, `tokens · C` values.
    pub fn states(&self, sequences: &[&[u32]], layers: usize) -> Result<Vec<Vec<f32>>> {
        let mut states = vec![Vec::new(); sequences.len()];
        for rows in batches(&sequences.iter().map(|tokens| tokens.len()).collect::<Vec<_>>(), BATCH_TOKENS) {
            let batch: Vec<&[u32]> = rows.iter().map(|&row| sequences[row]).collect();
            let hidden = self.hidden(&batch, layers)?;
            for (at, row) in rows.into_iter().enumerate() {
                let own = hidden.get(at)?.narrow(0, 0, sequences[row].len())?;
                states[row] = own.flatten_all()?.to_vec1::<f32>()?;
            }
        }
        Ok(states)
    }
}

/// Tokens, padding included, that are read at once.
const BATCH_TOKENS: usize = 4096;

fn no_encoder(config: &Config) -> String {
    format!(
        "{} is a causal language model, and an encoder is needed: BERT, RoBERTa, DistilBERT or DeBERTa",
        config.model_type()
    )
}
