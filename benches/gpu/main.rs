//! The solver, models and training steps on a GPU: whether they agree with the CPU's, and how long they take.
//! `tests/gpu.sh` runs it:
//!
//! ```text
//! QSTAR_PYTHON=/path/to/python/with/torch cargo bench --features cuda --bench gpu
//! ```
//!
//! Ends with an error where a number is beyond its tolerance.

#[path = "../../tests/cuda_kernel/errors.rs"]
mod errors;
mod models;
#[path = "../../tests/cuda_kernel/pairs.rs"]
mod pairs;
#[path = "../solver/peer.rs"]
mod peer;
mod steps;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use errors::Errors;
use peer::Peer;
use qstar::mixture::cuda::{self, Launch};
use qstar::mixture::{Rule, Solution, solve_batch, solve_rows};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

const VOCABULARY: usize = 50_257;
const ROWS: [usize; 2] = [32, 1_024];

/// Milliseconds that a batch of each of `ROWS` may take.
const BARS: [f64; 2] = [0.05, 0.6];

/// Turns of which the median counts, after as many that warm up.
const TURNS: usize = 101;

/// Launches in a row, to time one without the way to the host.
const IN_A_ROW: usize = 20;

const LAUNCHES: [Launch; 7] = [
    Launch { cluster: 1, threads: 1024, cached: false },
    Launch { cluster: 1, threads: 512, cached: false },
    Launch { cluster: 2, threads: 1024, cached: true },
    Launch { cluster: 4, threads: 1024, cached: true },
    Launch { cluster: 4, threads: 512, cached: true },
    Launch { cluster: 8, threads: 1024, cached: true },
    Launch { cluster: 8, threads: 512, cached: true },
];

fn main() -> Result<()> {
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            let error = error.to_string();
            println!("no GPU that CUDA can use: {}", error.lines().next().unwrap_or_default());
            return Ok(());
        }
    };
    let beyond = check(&device)?;
    let models_beyond = models::check(&device)?;
    time(&device)?;
    steps::time(&device)?;
    ensure!(beyond == 0, "{beyond} solutions are beyond their tolerance");
    ensure!(models_beyond == 0, "{models_beyond} comparisons of models are beyond their tolerance");
    Ok(())
}

/// Compares pairs of all kinds with the CPU; the number of solutions beyond their tolerance.
fn check(device: &Device) -> Result<usize> {
    let (mut worst, mut compared, mut beyond) = (Errors::default(), 0, 0);
    let mut compare = |what: &str, found: &[Solution], right: &[Solution]| {
        for (found, right) in found.iter().zip(right) {
            let errors = Errors::of(found, right);
            for (name, error) in errors.beyond() {
                println!("{what}: {name} off by {error:.1e}\n  {found:?}\n  {right:?}");
                beyond += 1;
            }
            worst.worst(errors);
            compared += 1;
        }
    };
    for kind in pairs::KINDS {
        for (seed, vocabulary) in [2, 3, 50, 301, 1_000, 4_099, 30_000, VOCABULARY, 128_256].into_iter().enumerate() {
            let rows = if vocabulary > 10_000 { 5 } else { 33 };
            let (p, t) = pairs::pairs(kind, rows, vocabulary, seed as u64);
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let stored = |row: &[f32]| Tensor::from_slice(row, (rows, vocabulary), &Device::Cpu)?.to_dtype(dtype);
                let (p, t) = (stored(&p)?, stored(&t)?);
                let wide = |row: &Tensor| row.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
                for rule in [Rule::Q_STAR, Rule::EssBalance] {
                    let right = solve_rows(&wide(&p)?, &wide(&t)?, vocabulary, &rule)?;
                    let found = solve_batch(&p.to_device(device)?, &t.to_device(device)?, &rule)?;
                    compare(&format!("{kind} {vocabulary} {dtype:?} {rule:?}"), &found.solutions, &right);
                }
            }
        }
    }
    let (p, t) = logits(5);
    let right = solve_rows(&p, &t, VOCABULARY, &Rule::Q_STAR)?;
    let (p, t) = (on(device, p)?, on(device, t)?);
    for launch in LAUNCHES {
        match cuda::start(&p, &t, &Rule::Q_STAR, Some(launch)) {
            Ok(running) => compare(&format!("{launch:?}"), &running.wait()?, &right),
            Err(error) => println!("{launch:?}: {error:#}"),
        }
    }
    println!("{compared} rows compared with the CPU, {beyond} fields beyond their tolerance; worst errors:");
    for (name, error) in &worst.0 {
        println!("  {name} {error:.1e} (tolerance {:.0e})", Errors::tolerance(name));
    }
    Ok(beyond)
}

/// Rows of logits of policy and target: a Gaussian at scale 3 and a target that moved away by half as much. Of more
/// than 64 rows the first 64 come again.
fn logits(rows: usize) -> (Vec<f32>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut gaussian = || -> f32 { StandardNormal.sample(&mut rng) };
    let distinct = rows.min(64);
    let (p, t): (Vec<f32>, Vec<f32>) =
        (0..distinct * VOCABULARY).map(|_| (3.0 * gaussian(), gaussian())).map(|(p, g)| (p, 0.9 * p + 1.5 * g)).unzip();
    (p.repeat(rows / distinct), t.repeat(rows / distinct))
}

fn on(device: &Device, values: Vec<f32>) -> Result<Tensor> {
    let rows = values.len() / VOCABULARY;
    Ok(Tensor::from_vec(values, (rows, VOCABULARY), device)?)
}

/// Milliseconds of the median turn.
fn median(turns: usize, mut turn: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut times = (0..2 * turns).map(|_| turn()).collect::<Result<Vec<f64>>>()?.split_off(turns);
    times.sort_by(f64::total_cmp);
    Ok(1e3 * times[turns / 2])
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Times of one contestant for each of `ROWS`, in milliseconds; `None` where there is none.
type Times = [Option<f64>; 2];

fn time(device: &Device) -> Result<()> {
    let mut table: Vec<(String, Times)> = Vec::new();
    let mut add = |name: String, column: usize, time: Option<f64>| match table.iter_mut().find(|row| row.0 == name) {
        Some(row) => row.1[column] = time,
        None => {
            let mut times = [None; 2];
            times[column] = time;
            table.push((name, times));
        }
    };
    let mut peer = Peer::start("benches/solver/peer.py", "cuda");
    println!("PyTorch: {}", peer.as_ref().map_or("not there, or without a GPU", |peer| &peer.version));
    for (column, rows) in ROWS.into_iter().enumerate() {
        let (p, t) = logits(rows);
        if let Some(peer) = &mut peer {
            peer.send(&p, &t, VOCABULARY)?;
        }
        let on_the_cpu = median(3, || {
            seconds(|| {
                black_box(solve_rows(&p, &t, VOCABULARY, &Rule::Q_STAR)?);
                Ok(())
            })
        })?;
        let (p, t) = (on(device, p)?, on(device, t)?);
        let to_the_host = |p: &Tensor, t: &Tensor| {
            median(TURNS, || {
                seconds(|| {
                    black_box(solve_batch(p, t, &Rule::Q_STAR)?);
                    Ok(())
                })
            })
        };
        let alone = |launch: Option<Launch>| {
            median(TURNS / IN_A_ROW, || {
                device.synchronize()?;
                let time = seconds(|| {
                    for _ in 0..IN_A_ROW {
                        cuda::start(&p, &t, &Rule::Q_STAR, launch)?;
                    }
                    Ok(device.synchronize()?)
                })?;
                Ok(time / IN_A_ROW as f64)
            })
        };
        add("solutions on the host, f32".to_string(), column, Some(to_the_host(&p, &t)?));
        for dtype in [DType::F16, DType::BF16] {
            let time = to_the_host(&p.to_dtype(dtype)?, &t.to_dtype(dtype)?)?;
            add(format!("solutions on the host, {dtype:?}").to_lowercase(), column, Some(time));
        }
        add("kernel alone, f32".to_string(), column, Some(alone(None)?));
        for launch in LAUNCHES {
            let Launch { cluster, threads, cached } = launch;
            let memory = if cached { "in shared memory" } else { "read again" };
            // What this GPU cannot launch stays empty.
            let name = format!("kernel alone, {cluster} blocks of {threads} a row, {memory}");
            add(name, column, alone(Some(launch)).ok());
        }
        for what in ["bisection, 20 rounds", "tuned bisection, 20 rounds"] {
            let time = peer.as_mut().map(|peer| median(TURNS / 4, || Ok(peer.time(what)))).transpose()?;
            add(format!("PyTorch on the GPU: {what}"), column, time);
        }
        if let Some(peer) = &peer {
            peer.rest();
        }
        add("solver on the CPU".to_string(), column, Some(on_the_cpu));
        add("bar".to_string(), column, Some(BARS[column]));
    }
    println!("\n| V = {VOCABULARY}, milliseconds a batch | {} rows | {} rows |\n|---|---|---|", ROWS[0], ROWS[1]);
    for (name, times) in &table {
        let cell = |time: Option<f64>| time.map_or("–".to_string(), |time| format!("{time:.4}"));
        println!("| {name} | {} | {} |", cell(times[0]), cell(times[1]));
    }
    Ok(())
}
