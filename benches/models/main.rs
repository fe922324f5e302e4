//! Training steps and generation of GPT-2 beside PyTorch and transformers, turn by turn: `cargo bench --bench models`.
//!
//! `QSTAR_PYTHON` names a Python with torch and transformers. Both sides use all cores. The best of each side's turns is
//! compared: on a shared machine the others are the neighbours' doing. Memory is that of a process that does one
//! thing alone. Our side works inside rayon's pool, as runs do. Without such a Python its columns are left out, and the table says so.

mod memory;
#[path = "../solver/peer.rs"]
#[allow(dead_code)]
mod peer;

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Tensor;
use peer::Peer;
use qstar::models::{Config, Gpt2Config, LanguageModel};
use qstar::rollout::Sampler;
use qstar::train::{AdamW, AdamWConfig, Gradient, Sequences};

const PEER: &str = "benches/models/peer.py";
/// The turns of a comparison.
const TURNS: usize = 8;
/// Rows, tokens of a prompt, new tokens.
const GENERATION: (usize, usize, usize) = (8, 16, 64);

struct Case {
    name: &'static str,
    model: LanguageModel,
    ids: Vec<Vec<u32>>,
    optimizer: Option<AdamW>,
    drawn: u64,
}

/// Where a step's time goes, in seconds.
#[derive(Default, Clone, Copy)]
struct Parts {
    blocks: f64,
    head: f64,
    back: f64,
    update: f64,
}

impl Parts {
    fn sum(&self) -> f64 {
        self.blocks + self.head + self.back + self.update
    }
}

impl Case {
    fn new(name: &str) -> Result<Self> {
        let (name, config, rows, time) = match name {
            "124M" => ("124M", Gpt2Config::default(), 4, 128),
            _ => {
                let sizes =
                    Gpt2Config { vocab_size: 4096, n_positions: 256, n_embd: 128, n_layer: 4, ..Default::default() };
                ("small", Gpt2Config { n_head: 4, ..sizes }, 32, 64)
            }
        };
        let vocabulary = config.vocab_size;
        let id = |row: usize, t: usize| ((row * 104_729 + t * 7_919) % vocabulary) as u32;
        let ids = (0..rows).map(|row| (0..time).map(|t| id(row, t)).collect()).collect();
        Ok(Self { name, model: LanguageModel::new(Config::Gpt2(config), 0)?, ids, optimizer: None, drawn: 0 })
    }

    fn loss(&self) -> Result<(Tensor, f64)> {
        let pairs: Vec<(&[u32], &[u32])> = self.ids.iter().map(|row| row.split_at(1)).collect();
        let sequences = Sequences::new(&pairs)?;
        let start = Instant::now();
        let hidden = sequences.hidden(&self.model.network)?;
        let blocks = start.elapsed().as_secs_f64();
        let log_probs = sequences.log_probs(&self.model.network, &hidden)?;
        Ok((log_probs.mean_all()?.neg()?, blocks))
    }

    fn step(&mut self) -> Result<Parts> {
        if self.optimizer.is_none() {
            let config = AdamWConfig { weight_decay: 0.01, ..Default::default() };
            self.optimizer = Some(AdamW::new(&self.model.params, config)?);
        }
        let start = Instant::now();
        let since = |start: Instant| start.elapsed().as_secs_f64();
        let (loss, blocks) = self.loss()?;
        let head = since(start) - blocks;
        let begin = Instant::now();
        let mut gradient = Gradient::of(&loss, &self.model.params)?;
        let back = since(begin);
        let begin = Instant::now();
        gradient.clip(1.0)?;
        let optimizer = self.optimizer.as_mut().context("it was made above")?;
        optimizer.step(&self.model.params, &gradient, 1e-5)?;
        Ok(Parts { blocks, head, back, update: since(begin) })
    }

    fn generate(&mut self) -> Result<f64> {
        let (rows, prompt, new) = GENERATION;
        let prompts: Vec<Vec<u32>> = (0..rows).map(|row| self.ids[row % self.ids.len()][..prompt].to_vec()).collect();
        self.drawn += 1;
        let sampler = Sampler { max_response_tokens: new, step: self.drawn, ..Default::default() };
        let start = Instant::now();
        sampler.draw(&self.model.frozen()?, None, &prompts, 1)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn best(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--memory") {
        return alone(&arguments[at + 1], &arguments[at + 2]);
    }
    qstar::machine::keep_memory();
    let mut peer = Peer::start(PEER, "cpu");
    match &peer {
        Some(peer) => println!("PyTorch {}\n", peer.version),
        None => println!("skipped: no Python with torch and transformers (QSTAR_PYTHON), so there is nothing beside\n"),
    }
    println!("| | qstar | PyTorch | ratio |\n|---|---|---|---|");
    let mut parts = Vec::new();
    for name in ["124M", "small"] {
        let mut case = Case::new(name)?;
        let turns = if name == "small" { 3 * TURNS } else { TURNS };
        let (mut steps, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            steps.push(rayon::scope(|_| case.step())?);
            theirs.extend(time(&mut peer, &format!("step {name}")));
        }
        let least = steps.iter().copied().min_by(|a, b| a.sum().total_cmp(&b.sum())).unwrap_or_default();
        row(&format!("training step, {name}, {} x {} tokens", case.ids.len(), case.ids[0].len()), least.sum(), &theirs);
        parts.push((case.name, least));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..turns.min(TURNS) {
            ours.push(rayon::scope(|_| case.generate())?);
            theirs.extend(time(&mut peer, &format!("generate {name}")));
        }
        row(&format!("generation, {name}, {GENERATION:?} (rows, prompt, new tokens)"), best(&ours), &theirs);
    }
    println!("\n| where a step's time goes | blocks | head | back | update |\n|---|---|---|---|---|");
    for (name, Parts { blocks, head, back, update }) in parts {
        let ms = |x: f64| format!("{:.1} ms", 1e3 * x);
        println!("| {name} | {} | {} | {} | {} |", ms(blocks), ms(head), ms(back), ms(update));
    }
    products();
    resident()?;
    recomputation()?;
    memory::report()
}

fn time(peer: &mut Option<Peer>, task: &str) -> Option<f64> {
    let peer = peer.as_mut()?;
    let seconds = peer.time(task);
    peer.rest();
    Some(seconds)
}

fn row(what: &str, ours: f64, theirs: &[f64]) {
    if theirs.is_empty() {
        return println!("| {what} | {:.1} ms | | |", 1e3 * ours);
    }
    let theirs = best(theirs);
    println!("| {what} | {:.1} ms | {:.1} ms | {:.2} |", 1e3 * ours, 1e3 * theirs, ours / theirs);
}

/// The rate of matrix products, which bounds a step of 124M.
fn products() {
    println!("\n| product | GF/s |\n|---|---|");
    for (m, k, n) in [(512, 768, 2304), (512, 3072, 768), (512, 768, 50_257)] {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let mut c = vec![0f32; m * n];
        let seconds: Vec<f64> = (0..TURNS)
            .map(|_| {
                let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
                let (n_step, k_step) = (n as isize, k as isize);
                let start = Instant::now();
                // SAFETY: the three slices have the sizes that m, k and n say.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        n_step,
                        false,
                        a.as_ptr(),
                        1,
                        k_step,
                        b.as_ptr(),
                        1,
                        n_step,
                        0f32,
                        1f32,
                        false,
                        false,
                        false,
                        threads,
                    );
                }
                start.elapsed().as_secs_f64()
            })
            .collect();
        println!("| {m} x {k} x {n} | {:.0} |", 2e-9 * (m * k * n) as f64 / best(&seconds));
    }
}

/// The largest resident memory of processes that do one thing, in MB.
fn resident() -> Result<()> {
    println!("\n| peak memory, MB | qstar | qstar, blocks computed again | PyTorch |\n|---|---|---|---|");
    for name in ["124M", "small"] {
        let ours = |what: &str| -> Result<String> {
            let output = Command::new(std::env::current_exe()?).args(["--memory", name, what]).output()?;
            Ok(String::from_utf8(output.stdout)?.trim().to_string())
        };
        let theirs = match Peer::start(PEER, "cpu") {
            Some(mut peer) => {
                (0..3).for_each(|_| {
                    peer.time(&format!("step {name}"));
                });
                format!("{:.0}", peer.time("memory"))
            }
            None => String::new(),
        };
        println!("| training steps, {name} | {} | {} | {theirs} |", ours("kept")?, ours("again")?);
    }
    Ok(())
}

/// What recomputation costs in time, turn by turn.
fn recomputation() -> Result<()> {
    println!("\n| training step | kept | computed again | ratio |\n|---|---|---|---|");
    for name in ["124M", "small"] {
        let mut case = Case::new(name)?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (again, times) in [false, true].into_iter().zip(&mut times) {
                case.model.recompute(again);
                times.push(rayon::scope(|_| case.step())?.sum());
            }
        }
        let [kept, again] = times.map(|times| best(&times));
        println!("| {name} | {:.1} ms | {:.1} ms | {:.2} |", 1e3 * kept, 1e3 * again, again / kept);
    }
    Ok(())
}

/// Three training steps, and the memory that they took.
fn alone(name: &str, what: &str) -> Result<()> {
    if name == "llama" {
        return print(memory::measure()?);
    }
    qstar::machine::keep_memory();
    let mut case = Case::new(name)?;
    case.model.recompute(what == "again");
    for _ in 0..3 {
        rayon::scope(|_| case.step())?;
    }
    print(memory::of_process("VmHWM")?)
}

fn print(megabytes: f64) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{megabytes:.0}")?)
}
