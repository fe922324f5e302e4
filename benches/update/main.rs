//! Whole updates (rollout, reward, loss, step) of `grpo`, `rloo` and `qstar` beside TRL's trainers, turn by turn:
//! `cargo bench --bench update`.
//!
//! The policy is stories260K, from the hub's cache (`HF_HOME`): 16 prompts, 4 responses of 32 tokens each. `QSTAR_PYTHON` names a
//! Python with TRL. `qstar` draws with an expert of the policy's size and is set beside TRL's GRPO. The median of each
//! side's turns is compared, and the best.

#[path = "../solver/peer.rs"]
#[allow(dead_code)]
mod peer;

use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Tensor;
use peer::Peer;
use qstar::method::{GRPO, Method, QSTAR, REINFORCE, RLOO};
use qstar::models::{LanguageModel, Source, read_llama2_c};
use qstar::target::Expert;
use qstar::tasks::{Prompt, Split, Task};
use qstar::train::{StepConfig, Trainer};
use tokenizers::Tokenizer;

const PEER: &str = "benches/update/peer.py";
const TURNS: usize = 20;
const TOKENS: usize = 32;
const REPOSITORY: &str = "karpathy/tinyllamas";
const FILES: [&str; 2] = ["stories260K/stories260K.bin", "stories260K/tok512.bin"];
const ADJECTIVES: [&str; 4] = ["big", "happy", "little", "sad"];
const ANIMALS: [&str; 4] = ["bear", "bird", "cat", "dog"];

/// The peer's prompts and reward.
struct Letters {
    tokenizer: Tokenizer,
}

impl Task for Letters {
    fn name(&self) -> &'static str {
        "letters"
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// All responses have the longest length.
    fn stop_tokens(&self) -> &[u32] {
        &[]
    }

    fn max_response_tokens(&self) -> usize {
        TOKENS
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        let (adjective, animal) = (ADJECTIVES[index as usize / 4 % 4], ANIMALS[index as usize % 4]);
        let text = format!("Once upon a time there was a {adjective} {animal}.");
        let encoding = self.tokenizer.encode(text.as_str(), false).expect("words of the vocabulary");
        let tokens = [&[1], encoding.get_ids()].concat();
        Prompt { split, index, family: "letters", text, tokens }
    }

    /// The share of the letter e.
    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> anyhow::Result<Vec<f64>> {
        let reward = |(_, response): &(&Prompt, &[u32])| {
            let text = self.tokenizer.decode(response, true).unwrap_or_default();
            text.matches('e').count() as f64 / text.chars().count().max(1) as f64
        };
        Ok(responses.iter().map(reward).collect())
    }
}

fn main() -> Result<()> {
    qstar::machine::keep_memory();
    let [model, vocabulary] = FILES.map(|file| Source::hub(REPOSITORY).file(file));
    let (Ok(model), Ok(vocabulary)) = (model, vocabulary) else {
        println!("skipped: {REPOSITORY} is neither in the hub's cache (HF_HOME) nor to be downloaded");
        return Ok(());
    };
    let (initial, tokenizer) = read_llama2_c(&model, &vocabulary)?;
    let task = Letters { tokenizer };
    let (reference, expert) = (initial.frozen()?, Expert::new(&other(&initial)?)?);
    let (mut printed, mut grpo) = (false, Vec::new());
    for (method, theirs) in [(GRPO, Some("grpo")), (RLOO, Some("rloo")), (REINFORCE, None), (QSTAR, None)] {
        let mut peer = theirs.and_then(|name| Peer::start(PEER, name));
        if !printed {
            match &peer {
                Some(peer) => println!("PyTorch {}\n", peer.version),
                None => println!("skipped: no Python with TRL (QSTAR_PYTHON), so there is nothing beside\n"),
            }
            println!("| update | qstar, median | TRL, median | ratio | qstar, best | TRL, best | ratio |");
            println!("|---|---|---|---|---|---|---|");
            printed = true;
        }
        // TRL's GRPO has no penalty and so no reference model, its RLOO has one.
        let kl_coefficient = if method.name == "rloo" { 0.05 } else { 0.0 };
        let config = StepConfig { microbatches: 1, learning_rate: 1e-6, kl_coefficient, ..StepConfig::default() };
        let (ours, theirs) = turns(&task, &method, config, &initial, &reference, &expert, &mut peer)?;
        let beside = if theirs.is_empty() { &grpo } else { &theirs };
        row(&method.name, &ours, beside);
        if method.name == "grpo" {
            grpo = theirs;
        }
    }
    println!("\n`reinforce` and `qstar` stand beside TRL's GRPO.");
    Ok(())
}

/// Seconds of our updates and, where there is a peer, of its.
fn turns(
    task: &Letters,
    method: &Method,
    config: StepConfig,
    initial: &LanguageModel,
    reference: &qstar::models::Network,
    expert: &Expert,
    peer: &mut Option<Peer>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut trainer = Trainer::new(task, method.clone(), config, 0, initial, reference, Some(expert))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS + 2 {
        let start = Instant::now();
        rayon::scope(|_| trainer.step())?;
        if turn >= 2 {
            ours.push(start.elapsed().as_secs_f64());
            if let Some(peer) = peer {
                theirs.push(peer.time("update"));
                peer.rest();
            }
        }
    }
    Ok((ours, theirs))
}

/// A model of the same size that says other things: every weight a little larger.
fn other(model: &LanguageModel) -> Result<LanguageModel> {
    let other = model.copy()?;
    for (_, var) in other.params.iter() {
        let value: Tensor = (var.as_detached_tensor() * 1.05)?;
        var.set(&value).context("a weight keeps its shape")?;
    }
    Ok(other)
}

fn row(name: &str, ours: &[f64], theirs: &[f64]) {
    let sorted = |x: &[f64]| {
        let mut x = x.to_vec();
        x.sort_by(f64::total_cmp);
        (x[x.len() / 2], x[0])
    };
    let (median, best) = sorted(ours);
    if theirs.is_empty() {
        return println!("| `{name}` | {:.1} ms | | | {:.1} ms | | |", 1e3 * median, 1e3 * best);
    }
    let (their_median, their_best) = sorted(theirs);
    println!(
        "| `{name}` | {:.1} ms | {:.1} ms | {:.2} | {:.1} ms | {:.1} ms | {:.2} |",
        1e3 * median,
        1e3 * their_median,
        median / their_median,
        1e3 * best,
        1e3 * their_best,
        best / their_best
    );
}
