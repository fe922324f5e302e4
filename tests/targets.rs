//! The targets: each against its formula, computed by itself; what they cost; what their training finds.

#[path = "targets/draws.rs"]
mod draws;
#[path = "targets/formulas.rs"]
mod formulas;
#[path = "targets/micro.rs"]
mod micro;
#[path = "targets/training.rs"]
mod training;

use candle_core::{DType, Device, Tensor};
use qstar::models::{Config, Gpt2Config, LanguageModel, LlamaConfig, Network};
use qstar::seed::{Purpose, rng};
use qstar::target::SequenceReward;
use rand::Rng;

const VOCABULARY: usize = 11;

/// A GPT-2 whose distributions differ from context to context; its head is the embedding's table.
fn gpt2(seed: u64) -> LanguageModel {
    let config = Gpt2Config {
        vocab_size: VOCABULARY,
        n_positions: 16,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        initializer_range: 0.4,
        ..Default::default()
    };
    LanguageModel::new(Config::Gpt2(config), seed).unwrap()
}

/// A LLaMA with a head of its own.
fn llama(seed: u64) -> LanguageModel {
    let config = LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        tie_word_embeddings: false,
        initializer_range: 0.4,
        ..Default::default()
    };
    LanguageModel::new(Config::Llama(config), seed).unwrap()
}

/// A reward that looks at every token and its place, in [0, 1).
fn reward_of(tokens: &[u32]) -> f64 {
    let mixed = tokens.iter().fold(7u64, |h, &token| (h * 48_271 + u64::from(token) * 104_729 + 1) % 1_000_003);
    mixed as f64 / 1_000_003.0
}

fn reward() -> SequenceReward {
    SequenceReward::of("a test's", |sequences| Ok(sequences.iter().map(|tokens| reward_of(tokens)).collect()))
}

/// Prompts and responses of different lengths.
fn contexts() -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let mut rng = rng(3, Purpose::Prompts, 0, 0);
    let mut some = |length: usize| (0..length).map(|_| rng.random_range(0..VOCABULARY as u32)).collect::<Vec<_>>();
    let prompts = [3, 1, 6, 2, 4].map(&mut some).to_vec();
    let responses = [5, 1, 3, 7, 3].map(&mut some).to_vec();
    (prompts, responses)
}

/// The hidden state (f64) and the logits of the next token after a prefix, with nothing cached.
fn after(network: &Network, prefix: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let ids = Tensor::from_slice(prefix, (1, prefix.len()), &Device::Cpu).unwrap();
    let hidden = network.hidden(&ids, None).unwrap().get(0).unwrap().get(prefix.len() - 1).unwrap();
    let logits = network.logits(&hidden.unsqueeze(0).unwrap()).unwrap().get(0).unwrap();
    let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    (wide(&hidden), wide(&logits))
}

/// exp(x) normalised, by the definition.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    logits.iter().map(|x| (x - max).exp() / total).collect()
}
