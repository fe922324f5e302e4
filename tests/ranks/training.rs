//! A small training whose batches are shared out over the ranks, and its checkpoint.

use std::io::Write;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use qstar::method::maximum_likelihood_loss;
use qstar::models::{Config, LanguageModel, LlamaConfig};
use qstar::ranks::Ranks;
use qstar::record::RunFolder;
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences, numbers};

const STEPS: usize = 20;
const BATCH: usize = 8;
const CHECKPOINT: &str = "checkpoint.safetensors";

/// What a training has come to.
pub struct Trained {
    /// The whole batch's mean loss a token, step by step.
    pub losses: Vec<f64>,
    pub weights: Vec<f32>,
}

/// Twenty steps of AdamW, from the checkpoint if there is one. Each rank takes its part of the batch in `microbatches`.
/// Rank 1 kills itself in step `killed_in`.
pub fn train(ranks: &Ranks, microbatches: usize, folder: &RunFolder, killed_in: Option<usize>) -> Result<Trained> {
    let model = model()?;
    let mut optimizer = AdamW::new(&model.params, AdamWConfig { weight_decay: 0.01, ..Default::default() })?;
    let mut losses = Vec::new();
    folder.create()?;
    if folder.file(CHECKPOINT).exists() {
        let saved = candle_core::safetensors::load(folder.file(CHECKPOINT), &Device::Cpu)?;
        model.params.assign(&saved)?;
        optimizer.restore(&saved)?;
        losses = saved.get("losses").context("no losses")?.to_vec1()?;
    }
    ranks.same("the weights", &model.params.digest()?)?;
    for step in losses.len()..STEPS {
        let (gradient, loss) = mean_gradient(&model, step, ranks, microbatches)?;
        if killed_in == Some(step) && ranks.rank() == 1 {
            // SAFETY: this process ends here.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        optimizer.step(&model.params, &gradient, 1e-3)?;
        losses.push(loss);
        if losses.len().is_multiple_of(5) {
            ranks.barrier()?;
            if ranks.rank() == 0 {
                save(folder, &model, &optimizer, &losses)?;
            }
        }
    }
    ranks.same("the trained weights", &model.params.digest()?)?;
    Ok(Trained { losses, weights: weights(&model)? })
}

/// What the checkpoint in a folder holds.
pub fn read(folder: &RunFolder) -> Result<Trained> {
    let saved = candle_core::safetensors::load(folder.file(CHECKPOINT), &Device::Cpu)?;
    let model = model()?;
    model.params.assign(&saved)?;
    Ok(Trained { losses: saved.get("losses").context("no losses")?.to_vec1()?, weights: weights(&model)? })
}

/// The gradient and the loss of the whole batch, a token. The one place that knows how gradients are kept.
fn mean_gradient(model: &LanguageModel, step: usize, ranks: &Ranks, microbatches: usize) -> Result<(Gradient, f64)> {
    let batch: Vec<_> = (0..BATCH).map(|row| example(step * BATCH + row)).collect();
    let tokens: usize = batch.iter().map(|(_, response)| response.len()).sum();
    let parts = ranks.size() * microbatches;
    let mut gradient: Option<Gradient> = None;
    let mut total = 0.0;
    for rows in batch[ranks.part(BATCH)].chunks(BATCH / parts) {
        let pairs: Vec<_> = rows.iter().map(|(prompt, response)| (&prompt[..], &response[..])).collect();
        let sequences = Sequences::new(&pairs)?;
        let log_probs = sequences.log_probs(&model.network, &sequences.hidden(&model.network)?)?;
        let loss = maximum_likelihood_loss(&numbers(&log_probs)?, tokens as f64);
        let part = Gradient::of(&loss.through(&log_probs)?, &model.params)?;
        match &mut gradient {
            Some(sum) => sum.add(part)?,
            None => gradient = Some(part),
        }
        // Added up in f64: what is compared is the log-probabilities, not the rounding of their sum.
        let sum: f64 = log_probs.to_vec1::<f32>()?.into_iter().map(f64::from).sum();
        total += f64::from((-sum * parts as f64 / tokens as f64) as f32);
    }
    let mut gradient = gradient.context("a rank has rows")?;
    gradient.sum_over(ranks)?;
    let mut loss = [(total / microbatches as f64) as f32];
    ranks.mean(&mut loss)?;
    Ok((gradient, f64::from(loss[0])))
}

/// LLaMA, for it has no biases. The gradient of GPT-2's bias of the keys is zero but for rounding, and AdamW would make
/// steps of that rounding.
pub fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 17,
        max_position_embeddings: 16,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        tie_word_embeddings: false,
        ..Default::default()
    }
}

fn model() -> Result<LanguageModel> {
    LanguageModel::new(Config::Llama(config()), 11)
}

/// A walk over the vocabulary: the next token follows from the last one. Lengths differ, so the halves are padded differently.
fn example(index: usize) -> (Vec<u32>, Vec<u32>) {
    let walk: Vec<u32> =
        std::iter::successors(Some(index as u32 % 17), |token| Some((token * 5 + 3) % 17)).take(16).collect();
    let (prompt, length) = (1 + index % 3, 2 + index * 7 % 11);
    (walk[..prompt].to_vec(), walk[prompt..prompt + length].to_vec())
}

fn weights(model: &LanguageModel) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for (_, var) in model.params.iter() {
        all.extend(var.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

fn save(folder: &RunFolder, model: &LanguageModel, optimizer: &AdamW, losses: &[f64]) -> Result<()> {
    let mut tensors = model.params.tensors();
    tensors.extend(optimizer.state()?);
    tensors.insert("losses".into(), Tensor::new(losses, &Device::Cpu)?);
    folder.write(CHECKPOINT, |file| Ok(file.write_all(&safetensors::serialize(&tensors, None)?)?))
}
