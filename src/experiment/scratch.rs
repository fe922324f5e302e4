//! A small policy from scratch: a tokenizer and a GPT-2, from the texts of a task.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerBuilder};

use crate::models::{Config, Gpt2Config, LanguageModel, save_folder};
use crate::progress::Progress;
use crate::seed::{self, Purpose};
use crate::tasks::text::{Example, Pools};
use crate::train::{Sequences, Supervised, train_supervised};

/// The sizes of a policy from scratch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    pub vocabulary: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    /// Positions of the model.
    pub positions: usize,
    /// Tokens of a training sequence: texts stand one behind the other, and a sequence may begin within one.
    pub block: usize,
    pub training: Supervised,
    pub seed: u64,
}

impl Default for Scratch {
    /// 5.9 million parameters and 3 million tokens; half a second a step on two cores.
    fn default() -> Self {
        Self {
            vocabulary: 4096,
            width: 256,
            layers: 6,
            heads: 4,
            positions: 512,
            block: 256,
            training: Supervised { steps: 1500, batch: 8, learning_rate: 1e-3, warmup_steps: 50 },
            seed: 0,
        }
    }
}

/// What a policy came to; `training.json` beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MadePolicy {
    pub parameters: usize,
    pub made_of: Scratch,
    /// Tokens of the training texts, each once.
    pub tokens: usize,
    /// Nats a token: the mean over the last tenth of the training, and over held-out texts.
    pub training_loss: f64,
    pub held_out_loss: f64,
    /// The latter in bits a byte of text, which does not depend on the tokenizer.
    pub held_out_bits_per_byte: f64,
}

/// The one special token: it ends a text.
const END: &str = "<|endoftext|>";

/// Held-out texts that the loss is measured on, and how many at once.
const HELD_OUT: usize = 500;
const BATCH: usize = 16;

impl Scratch {
    /// Trains a tokenizer and a language model on the prompts and all answers of the training pool, and writes both into
    /// `folder` in the hub's layout. The validation pool is held out.
    ///
    /// # Errors
    /// Sizes that are no model's, too few texts for one block, a folder that cannot be written.
    pub fn make(&self, pools: &Pools, folder: &Path) -> Result<MadePolicy> {
        let fits = (2..=self.positions).contains(&self.block);
        ensure!(fits, "a block of {} tokens: it has from 2 to the model's {} positions", self.block, self.positions);
        let (train, held_out) = (texts(&pools.train), texts(&pools.validation));
        let tokenizer = self.tokenizer(&train)?;
        let encode = |text: &String| -> Result<Vec<u32>> {
            let mut tokens = tokenizer.encode(&text[..], false).map_err(|e| anyhow!("{e}"))?.get_ids().to_vec();
            tokens.push(0);
            Ok(tokens)
        };
        let stream: Vec<u32> = train.iter().map(encode).collect::<Result<Vec<_>>>()?.concat();
        ensure!(stream.len() > self.block, "{} tokens of text are too few for blocks of {}", stream.len(), self.block);
        let model = LanguageModel::new(self.config(tokenizer.get_vocab_size(true)), self.seed)?;
        let training_loss = train_supervised(&model, &self.training, "policy from scratch", |i| {
            let (prompt, rest) = self.sequence(&stream, i).split_at(1);
            (prompt.to_vec(), rest.to_vec())
        })?;
        let held_out: Vec<(usize, Vec<u32>)> =
            held_out.iter().take(HELD_OUT).map(|text| Ok((text.len(), encode(text)?))).collect::<Result<_>>()?;
        let (held_out_loss, held_out_bits_per_byte) = self.loss(&model, &held_out)?;
        let made = MadePolicy {
            parameters: model.params.count(),
            made_of: self.clone(),
            tokens: stream.len(),
            training_loss,
            held_out_loss,
            held_out_bits_per_byte,
        };
        save_folder(&model, folder)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
        };
        write("tokenizer.json", tokenizer.to_string(true).map_err(|e| anyhow!("{e}"))?)?;
        write("generation_config.json", "{\"eos_token_id\": 0}\n".to_string())?;
        write("training.json", serde_json::to_string_pretty(&made)? + "\n")?;
        Ok(made)
    }

    /// Byte-level BPE: every text has tokens, and its tokens give it back.
    fn tokenizer(&self, texts: &[String]) -> Result<Tokenizer> {
        let bytes = ByteLevel::new(false, true, true);
        let mut tokenizer = TokenizerBuilder::default()
            .with_model(BPE::default())
            .with_normalizer(None::<tokenizers::NormalizerWrapper>)
            .with_pre_tokenizer(Some(bytes))
            .with_post_processor(Some(ByteLevel::new(false, false, true)))
            .with_decoder(Some(bytes))
            .build()
            .map_err(|e| anyhow!("{e}"))?;
        let mut trainer = BpeTrainer::builder()
            .vocab_size(self.vocabulary)
            .show_progress(false)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from(END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        tokenizer.train(&mut trainer, texts.iter()).map_err(|e| anyhow!("the tokenizer: {e}"))?;
        let mut tokenizer: Tokenizer = tokenizer.into();
        tokenizer.set_encode_special_tokens(true);
        Ok(tokenizer)
    }

    fn config(&self, vocabulary: usize) -> Config {
        Config::Gpt2(Gpt2Config {
            vocab_size: vocabulary,
            n_positions: self.positions,
            n_embd: self.width,
            n_layer: self.layers,
            n_head: self.heads,
            // 1/sqrt(width): GPT-2's 0.02 is meant for width 768.
            initializer_range: 1.0 / (self.width as f64).sqrt(),
            ..Default::default()
        })
    }

    /// Training sequence `i`: the stream in blocks, every round in another order and from another first token.
    fn sequence<'t>(&self, stream: &'t [u32], i: u64) -> &'t [u32] {
        // The last block's worth is left for the offset.
        let blocks = ((stream.len() - self.block) / self.block).max(1) as u64;
        let (round, place) = (i / blocks, (i % blocks) as usize);
        let mut rng = seed::rng(self.seed, Purpose::Demonstrations, 3, round);
        let offset = rng.random_range(0..self.block.min(stream.len() - self.block));
        let mut order: Vec<usize> = (0..blocks as usize).collect();
        order.shuffle(&mut rng);
        &stream[order[place] * self.block + offset..][..self.block]
    }

    /// Mean loss in nats a token and in bits a byte, of texts cut at the model's positions.
    fn loss(&self, model: &LanguageModel, texts: &[(usize, Vec<u32>)]) -> Result<(f64, f64)> {
        let network = model.frozen()?;
        let progress = Progress::new("held-out loss", texts.len() as u64);
        let (mut nats, mut tokens, mut bytes) = (0.0, 0.0, 0.0);
        for batch in texts.chunks(BATCH) {
            // A text is read behind the end of another one, as in training.
            let rows: Vec<Vec<u32>> =
                batch.iter().map(|(_, text)| text.iter().copied().take(self.positions - 1).collect()).collect();
            let pairs: Vec<(&[u32], &[u32])> = rows.iter().map(|row| (&[0u32][..], &row[..])).collect();
            let sequences = Sequences::new(&pairs)?;
            let log_probs = sequences.log_probs(&network, &sequences.hidden(&network)?)?;
            nats -= crate::train::numbers(&log_probs)?.iter().sum::<f64>();
            tokens += sequences.token_count() as f64;
            // Of a text that was cut, its share of the bytes.
            bytes += rows
                .iter()
                .zip(batch)
                .map(|(row, (n, all))| (*n as f64) * row.len() as f64 / all.len() as f64)
                .sum::<f64>();
            progress.inc(batch.len() as u64);
        }
        progress.finish();
        Ok((nats / tokens, nats / bytes / std::f64::consts::LN_2))
    }
}

/// Every prompt with every one of its answers.
fn texts(examples: &[Example]) -> Vec<String> {
    let mut all = Vec::new();
    for example in examples {
        let prompt = example.prompt.text();
        let rejected = example.pair.iter().map(|(_, rejected)| rejected);
        all.extend(example.demonstrations.iter().chain(rejected).map(|answer| [&prompt[..], answer].concat()));
    }
    all
}
