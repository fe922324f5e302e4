//! The q* solver against what its users could take instead. Prints the tables of `benches/RESULTS.md`:
//!
//! ```text
//! QSTAR_PYTHON=/path/to/python/with/torch cargo bench --bench solver
//! ```
//!
//! Every comparison is made in pairs, turn by turn, in one run: a shared machine is noisy and ratios hold where
//! times do not. Without a Python that has PyTorch its rows are left out, and the table says so.

mod peer;

use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use qstar::experiment::World;
use qstar::mixture::{self, Pair, Rule, Solver, Start, Temperature};
use qstar::models::{Config, Gpt2Config, LanguageModel, Network};
use qstar::nn::KvCache;
use qstar::rollout::{Proposal, Sampler};
use qstar::seed::{self, Purpose};
use qstar::tasks::Split;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

const VOCABULARY: usize = 50_257;
const BATCH: usize = 32;
const TURNS: usize = 15;

/// Rows of logits of policy and target: what a language model and its like give, a Gaussian at scale 3 and a
/// target that moved away by half as much.
fn logits(rows: usize, vocabulary: usize) -> (Vec<f32>, Vec<f32>) {
    let row = |row: usize| {
        let mut rng = seed::rng(1, Purpose::Rollout, vocabulary as u64, row as u64);
        let mut gaussian = || -> f32 { StandardNormal.sample(&mut rng) };
        (0..vocabulary).map(|_| (3.0 * gaussian(), gaussian())).map(|(p, g)| (p, 0.9 * p + 1.5 * g)).unzip()
    };
    let rows: Vec<(Vec<f32>, Vec<f32>)> = (0..rows).into_par_iter().map(row).collect();
    let (p, t): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    (p.concat(), t.concat())
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One column of a comparison: what it is, and how long one turn of it took.
struct Contestant<'a> {
    name: String,
    turn: Box<dyn FnMut() -> Option<f64> + 'a>,
}

/// A turn is the median of the runs that fit into a twentieth of a second, after a first one that brings the data
/// back into the caches.
fn contestant<'a>(name: &str, mut work: impl FnMut() + 'a) -> Contestant<'a> {
    let turn = move || {
        work();
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || start.elapsed().as_secs_f64() < 0.05 {
            times.push(seconds(&mut work));
        }
        Some(median(times))
    };
    Contestant { name: name.to_string(), turn: Box::new(turn) }
}

/// Runs all contestants turn by turn and prints the median of each, by row, and relative to the first.
fn compare(title: &str, rows: usize, mut contestants: Vec<Contestant>) {
    println!("\n{title}\n");
    println!("| | a batch | a row | times the first |\n|---|---|---|---|");
    let mut times = vec![Vec::new(); contestants.len()];
    for turn in 0..=TURNS {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let time = (contestant.turn)();
            // The first turn warms caches up.
            if turn > 0 {
                times.extend(time);
            }
        }
    }
    let first = median(times[0].clone());
    for (contestant, times) in contestants.iter().zip(times) {
        if times.is_empty() {
            println!("| {} | not measured | | |", contestant.name);
            continue;
        }
        let time = median(times);
        println!(
            "| {} | {:.3} ms | {:.1} µs | {:.2} |",
            contestant.name,
            time * 1e3,
            time * 1e6 / rows as f64,
            time / first
        );
    }
}

/// One pass over both rows, summing: what memory allows.
fn read(p: &[f32], t: &[f32], vocabulary: usize) -> f32 {
    let sum = |row: &[f32]| {
        qstar::simd::dispatch(
            #[inline(always)]
            || qstar::simd::sum([row], |[x]| x),
        )
    };
    p.par_chunks(vocabulary).zip(t.par_chunks(vocabulary)).map(|(p, t)| sum(p) + sum(t)).sum()
}

/// The next step of a model of GPT-2 124M's shape after a prompt, with a cache: weights do not matter for its time.
struct DecodeStep {
    network: Network,
    cache: KvCache,
    token: Tensor,
}

impl DecodeStep {
    const PROMPT: usize = 64;

    fn new() -> anyhow::Result<Self> {
        let network = LanguageModel::new(Config::Gpt2(Gpt2Config::default()), 1)?.frozen()?;
        let mut cache = network.cache(BATCH, Self::PROMPT + 4 * (TURNS + 1));
        network.hidden(&Tensor::zeros((BATCH, Self::PROMPT), DType::U32, &Device::Cpu)?, Some(&mut cache))?;
        cache.advance(std::iter::repeat_n(Self::PROMPT, BATCH));
        Ok(Self { network, cache, token: Tensor::zeros((BATCH, 1), DType::U32, &Device::Cpu)? })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let hidden = self.network.hidden(&self.token, Some(&mut self.cache))?;
        self.cache.advance(std::iter::repeat_n(1, BATCH));
        black_box(self.network.logits(&hidden.flatten_to(1)?)?);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    qstar::machine::keep_memory();
    println!("{} threads, {:?}", rayon::current_num_threads(), pulp::Arch::new());
    let mut peer = peer::Peer::start("benches/solver/peer.py", "cpu");
    println!("PyTorch: {}", peer.as_ref().map_or("not there".to_string(), |peer| peer.version.clone()));
    let (p, t) = logits(BATCH, VOCABULARY);
    if let Some(peer) = &mut peer {
        peer.send(&p, &t, VOCABULARY)?;
    }
    let peer = std::cell::RefCell::new(peer);
    let torch = |what: &'static str| Contestant {
        name: format!("PyTorch: {what}"),
        turn: Box::new(|| {
            peer.borrow_mut().as_mut().map(|peer| {
                peer.time(what);
                let time = peer.time(what);
                peer.rest();
                time
            })
        }),
    };
    let rule = Rule::Q_STAR;
    let alphas = || black_box(mixture::alphas_of_rows(&p, &t, VOCABULARY, &rule).unwrap());
    compare(
        &format!("Solving, V = {VOCABULARY}, batch {BATCH}"),
        BATCH,
        vec![
            contestant("alpha", || drop(alphas())),
            contestant("alpha and all diagnostics", || {
                drop(black_box(mixture::solve_rows(&p, &t, VOCABULARY, &rule).unwrap()))
            }),
            contestant("one read of both rows", || {
                black_box(read(&p, &t, VOCABULARY));
            }),
            torch("bisection, 20 rounds"),
            torch("tuned bisection, 20 rounds"),
        ],
    );

    let mut rng = seed::rng(1, Purpose::Rollout, 0, 0);
    let uniforms: Vec<f64> = (0..BATCH).map(|_| rng.random()).collect();
    let mut gpt2 = DecodeStep::new()?;
    compare(
        &format!("Drawing a token, V = {VOCABULARY}, batch {BATCH}"),
        BATCH,
        vec![
            contestant("q* and all diagnostics, from two rows", || {
                drop(black_box(mixture::draw_rows(&p, &t, VOCABULARY, &rule, &Temperature::ONE, &uniforms).unwrap()))
            }),
            contestant("softmax, from one row", || {
                drop(black_box(mixture::draw_softmax_rows(&p, VOCABULARY, 1.0, &uniforms).unwrap()))
            }),
            torch("softmax and multinomial, from one row"),
            contestant("decode step of GPT-2 124M", || gpt2.run().unwrap()),
        ],
    );

    println!(
        "\nCost against V (32 rows) and rows (V = {VOCABULARY})\n\n| V | rows | µs a row | ns an outcome |\n|---|---|---|---|"
    );
    for (vocabulary, rows) in [
        (2_000, 32),
        (8_000, 32),
        (32_000, 32),
        (50_257, 32),
        (128_000, 32),
        (256_000, 32),
        (50_257, 256),
        (50_257, 1_024),
        (50_257, 4_096),
    ] {
        let (p, t) = logits(rows.min(256), vocabulary);
        let (p, t) = (p.repeat(rows.div_ceil(256)), t.repeat(rows.div_ceil(256)));
        let turns = if rows > 256 { 3 } else { TURNS };
        let time = || seconds(|| drop(black_box(mixture::solve_rows(&p, &t, vocabulary, &rule).unwrap())));
        time();
        let time = median((0..turns).map(|_| time()).collect()) * 1e6 / rows as f64;
        println!("| {vocabulary} | {rows} | {time:.1} | {:.3} |", time * 1e3 / vocabulary as f64);
    }

    starts("a Gaussian batch of 32, V = 50257", &p, &t, VOCABULARY, BATCH)?;
    let (p, t, vocabulary, length) = sequences()?;
    starts(&format!("responses of the embedded model, V = {vocabulary}"), &p, &t, vocabulary, length)
}

/// The logits of policy and expert of the embedded world at every token of responses drawn from q*.
fn sequences() -> anyhow::Result<(Vec<f32>, Vec<f32>, usize, usize)> {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let world = World::micro(&data)?;
    let sampler = Sampler {
        proposal: Proposal::Mixture(Rule::Q_STAR),
        stop_tokens: &[],
        max_response_tokens: 20,
        seed: 1,
        purpose: Purpose::Rollout,
        step: 0,
        ..Default::default()
    };
    let (policy, target) = (world.models.initial.frozen()?, world.expert.frozen()?);
    let prompts: Vec<Vec<u32>> = (0..32).map(|i| world.task.prompt(Split::Train, i).tokens).collect();
    let (mut p, mut t, mut vocabulary) = (Vec::new(), Vec::new(), 0);
    for prompt in &prompts {
        let response =
            sampler.draw(&policy, Some(&*world.models.target), std::slice::from_ref(prompt), 1)?.remove(0).tokens();
        let ids: Vec<u32> = prompt.iter().chain(&response).copied().collect();
        let ids = Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu)?;
        for (network, rows) in [(&policy, &mut p), (&target, &mut t)] {
            let logits = network.logits(&network.hidden(&ids, None)?)?.squeeze(0)?;
            vocabulary = logits.dim(1)?;
            let logits = logits.narrow(0, prompt.len() - 1, response.len())?;
            rows.extend(logits.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok((p, t, vocabulary, 20))
}

/// Evaluations of K' that each start takes. Rows come in sequences of `length`: the α of the one before is a start.
fn starts(title: &str, p: &[f32], t: &[f32], vocabulary: usize, length: usize) -> anyhow::Result<()> {
    println!("\nEvaluations of K' by start and step, {title}\n\n| start | Hermite | Newton |\n|---|---|---|");
    let rows = || p.chunks(vocabulary).zip(t.chunks(vocabulary));
    let exact = mixture::alphas_of_rows(p, t, vocabulary, &Rule::Q_STAR)?;
    let names = ["ends", "entropy", "table", "1/2", "the last α"];
    for (kind, name) in names.into_iter().enumerate() {
        let start = |row: usize| match kind {
            0 => Start::Ends,
            1 => Start::Entropy,
            2 => Start::Table,
            4 if !row.is_multiple_of(length) => Start::At(exact[row - 1]),
            _ => Start::At(0.5),
        };
        let mean = |solver: fn(Start) -> Solver| -> anyhow::Result<f64> {
            let mut total = 0;
            for (row, (p, t)) in rows().enumerate() {
                total += Pair::from_logits(p, t)?.solve(&Rule::KlSymmetry(solver(start(row))))?.iterations;
            }
            Ok(f64::from(total) / exact.len() as f64)
        };
        println!("| {name} | {:.2} | {:.2} |", mean(Solver::Hermite)?, mean(Solver::Newton)?);
    }
    Ok(())
}
