//! The time of a training step of GPT-2 124M, beside PyTorch's on the same GPU.

use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device};
use qstar::method::maximum_likelihood_loss;
use qstar::models::{Config, Gpt2Config, LanguageModel};
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences, numbers};

use crate::peer::Peer;

/// Rows and tokens a row.
const BATCHES: [(usize, usize); 3] = [(4, 128), (8, 512), (8, 1024)];

/// Steps of which the median counts, after as many that warm up.
const TURNS: usize = 11;

pub fn time(device: &Device) -> Result<()> {
    let mut peer = Peer::start("benches/gpu/peer.py", "cuda");
    println!("\nPyTorch: {}", peer.as_ref().map_or("not there, or without a GPU", |peer| &peer.version));
    println!("| GPT-2 124M, milliseconds a training step | qstar | PyTorch | ratio |\n|---|---|---|---|");
    for dtype in [DType::F32, DType::BF16] {
        let name = if dtype == DType::F32 { "f32" } else { "bf16" };
        let model = LanguageModel::new(Config::Gpt2(Gpt2Config::default()), 0)?.to_dtype(dtype)?.to_device(device)?;
        let mut optimizer = AdamW::new(&model.params, AdamWConfig { weight_decay: 0.01, ..Default::default() })?;
        for (rows, time) in BATCHES {
            let mut turn = 0;
            let own = median(|| {
                turn += 1;
                step(&model, &mut optimizer, rows, time, turn, device)
            })?;
            let theirs = peer
                .as_mut()
                .map(|peer| median(|| Ok(peer.time(&format!("step {rows} {time} {name}")))))
                .transpose()?;
            let cell = |x: Option<f64>, digits: usize| x.map_or("–".to_string(), |x| format!("{x:.digits$}"));
            let ratio = theirs.map(|theirs| own / theirs);
            println!("| {name}, {rows} x {time} tokens | {own:.2} | {} | {} |", cell(theirs, 2), cell(ratio, 2));
        }
    }
    Ok(())
}

/// Milliseconds of the median turn.
fn median(mut turn: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut times = (0..2 * TURNS).map(|_| turn()).collect::<Result<Vec<f64>>>()?.split_off(TURNS);
    times.sort_by(f64::total_cmp);
    Ok(1e3 * times[TURNS / 2])
}

/// Seconds of one step, its batch made before.
fn step(
    model: &LanguageModel,
    optimizer: &mut AdamW,
    rows: usize,
    time: usize,
    turn: usize,
    device: &Device,
) -> Result<f64> {
    let token = |i: usize| ((i * 2_654_435_761 + turn * 40_503) % 50_257) as u32;
    let ids: Vec<Vec<u32>> = (0..rows).map(|r| (0..=time).map(|i| token(r * time + i)).collect()).collect();
    let pairs: Vec<(&[u32], &[u32])> = ids.iter().map(|row| row.split_at(1)).collect();
    let sequences = Sequences::new(&pairs)?;
    device.synchronize()?;
    let start = Instant::now();
    let log_probs = sequences.log_probs(&model.network, &sequences.hidden(&model.network)?)?;
    let loss = maximum_likelihood_loss(&numbers(&log_probs)?, sequences.token_count() as f64);
    let mut gradient = Gradient::of(&loss.through(&log_probs)?, &model.params)?;
    gradient.clip(1.0)?;
    optimizer.step(&model.params, &gradient, 1e-5)?;
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64())
}
