//! What a training step with adapters on a bf16 LLaMA needs, counted tensor by tensor, and the count beside a process.

use std::process::Command;

use anyhow::{Context, Result};
use candle_core::DType;
use qstar::models::{Config, LanguageModel, LlamaConfig, LoraConfig};
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences};

const RANK: usize = 16;

/// A hundredth of LLaMA 7B: 69.5 million weights.
fn hundredth() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 8000,
        max_position_embeddings: 256,
        hidden_size: 640,
        intermediate_size: 1720,
        num_hidden_layers: 12,
        num_attention_heads: 10,
        num_key_value_heads: 10,
        ..Default::default()
    }
}

fn lora() -> LoraConfig {
    LoraConfig { rank: RANK, alpha: 16.0, dropout: 0.0, targets: vec!["q_proj".into(), "v_proj".into()] }
}

/// Bytes of everything that lives at the largest moment of a step of `rows x time` tokens with recomputation.
/// `on_cpu` counts the copies in f32 that products make of bf16 there; elsewhere there are scores of attention instead.
fn count(c: &LlamaConfig, rows: usize, time: usize, on_cpu: bool) -> Vec<(&'static str, f64)> {
    let (width, inner, layers, vocabulary) = (c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.vocab_size);
    let tokens = rows * time;
    let weights = layers * (4 * width * width + 3 * width * inner + 2 * width) + 2 * vocabulary * width + width;
    let adapters = layers * 2 * RANK * 2 * width;
    // norm, q k v, packed, turned, attended, o, sum, norm, down; gate, up, gated.
    let saved = tokens * (15 * width + 3 * inner);
    // Gradients that live beside them: of gate, up and gated, of the output, the sum, the norm and the input.
    let gradients = tokens * (3 * inner + 4 * width);
    let chunk = tokens.min(512);
    let widened = [(width, inner, tokens), (width, vocabulary, chunk)].map(|(a, b, n)| 4 * (a * b + n * (a + b)));
    let mut parts = vec![
        ("weights, bf16", 2 * weights),
        ("adapters: values, gradients, two moments, f32", 16 * adapters),
        ("inputs of all blocks", 2 * layers * tokens * width),
        ("inside of one block, computed again", 2 * saved),
        ("gradients inside it", 2 * gradients),
        ("logits of 512 tokens: bf16, f32, gradient", 8 * chunk * vocabulary),
        ("angles of rope, f64", c.max_position_embeddings * width / c.num_attention_heads * 8),
    ];
    if on_cpu {
        parts.push(("one product's operands in f32", widened.into_iter().max().unwrap_or(0)));
    } else {
        parts.push(("scores of attention, with their gradient", 4 * rows * c.num_attention_heads * time * time));
    }
    parts.into_iter().map(|(name, bytes)| (name, bytes as f64)).collect()
}

/// Prints the count for 7B and, for a hundredth of it, the count beside what a process measured.
pub fn report() -> Result<()> {
    println!("\n| LLaMA 7B, LoRA of rank {RANK} on q and v, bf16, recomputation, 4 x 1024 tokens | GB |\n|---|---|");
    let parts = count(&LlamaConfig::default(), 4, 1024, false);
    for (name, bytes) in &parts {
        println!("| {name} | {:.2} |", bytes / 1e9);
    }
    println!("| sum | {:.2} |", parts.iter().map(|(_, bytes)| bytes).sum::<f64>() / 1e9);
    let counted: f64 = count(&hundredth(), 4, 128, true).iter().map(|(_, bytes)| bytes).sum();
    let output = Command::new(std::env::current_exe()?).args(["--memory", "llama", "again"]).output()?;
    let measured: f64 = String::from_utf8(output.stdout)?.trim().parse().context("the child prints a number")?;
    println!("\n| a hundredth of it, on the CPU, 4 x 128 tokens | MB |\n|---|---|");
    println!(
        "| counted | {:.0} |\n| measured, less what the process had before the model | {measured:.0} |",
        counted / 1e6
    );
    Ok(())
}

/// Three steps of the hundredth; the largest memory of the process in MB, less that at its start.
pub fn measure() -> Result<f64> {
    let before = of_process("VmRSS")?;
    let base = LanguageModel::new(Config::Llama(hundredth()), 0)?.to_dtype(DType::BF16)?;
    let mut model = base.with_lora(&lora(), 0)?;
    drop(base);
    model.recompute(true);
    let mut optimizer = AdamW::new(&model.params, AdamWConfig::default())?;
    // The weights were drawn in f32; that moment is not the step's.
    // SAFETY: it only returns free memory to the system.
    unsafe { libc::malloc_trim(0) };
    std::fs::write("/proc/self/clear_refs", "5").context("Linux resets the largest resident memory")?;
    let ids: Vec<Vec<u32>> = (0..4).map(|row| (0..128).map(|t| (row * 1009 + t * 31) % 8000).collect()).collect();
    for _ in 0..3 {
        let pairs: Vec<(&[u32], &[u32])> = ids.iter().map(|row| row.split_at(1)).collect();
        let sequences = Sequences::new(&pairs)?;
        let loss = sequences.log_probs(&model.network, &sequences.hidden(&model.network)?)?.mean_all()?.neg()?;
        optimizer.step(&model.params, &Gradient::of(&loss, &model.params)?, 1e-4)?;
    }
    Ok(of_process("VmHWM")? - before)
}

/// A line of the process's status, in MB.
pub fn of_process(line: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|found| found.starts_with(line)).context("Linux tells a process's memory")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("the line has a number")?.parse()?;
    Ok(kilobytes / 1e3)
}
