//! The pieces that a training step is made of. `cargo bench` prints the time of each.

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use qstar::mixture::{Pair, Rule, Temperature, Truncation, draw_softmax_truncated, draw_truncated};
use qstar::nn::{self, Heads, Mask};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;

fn logits(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (phase + 0.7 * i as f32).sin() * 3.0).collect()
}

fn mixture(c: &mut Criterion) {
    for vocabulary in [155, 50_257] {
        let (p, t) = (logits(vocabulary, 0.1), logits(vocabulary, 1.9));
        c.bench_function(&format!("q* with all diagnostics, V = {vocabulary}"), |b| {
            b.iter(|| Pair::from_logits(black_box(&p), black_box(&t)).unwrap().solve(&Rule::Q_STAR).unwrap())
        });
    }
}

/// One token of one row on one thread: from the policy alone, and from q*.
fn draws(c: &mut Criterion) {
    qstar::machine::keep_memory();
    let gaussian = |seed| -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..50_257).map(|_| 3.0 * rng.sample::<f32, _>(StandardNormal)).collect()
    };
    let (p, t) = (gaussian(1), gaussian(2));
    for (name, top_k, top_p) in [
        ("whole", None, None),
        ("k = 50", Some(50), None),
        ("p = 0.9", None, Some(0.9)),
        ("k = 50, p = 0.9", Some(50), Some(0.9)),
    ] {
        let cut = Truncation { top_k, top_p };
        c.bench_function(&format!("a draw from the policy, V = 50257, {name}"), |b| {
            b.iter(|| draw_softmax_truncated(black_box(&p), 1.0, &cut, 0.3).unwrap())
        });
        c.bench_function(&format!("a draw from q*, V = 50257, {name}"), |b| {
            b.iter(|| draw_truncated(black_box(&p), &t, &Rule::Q_STAR, &Temperature::ONE, &cut, 0.3).unwrap())
        });
    }
}

fn attention(c: &mut Criterion) {
    let heads = Heads { query: 3, kv: 3, dim: 32, interleaved: false };
    let packed =
        Tensor::from_vec(logits(64 * 36 * heads.packed(), 0.3), (64, 36, heads.packed()), &Device::Cpu).unwrap();
    let packed = Var::from_tensor(&packed).unwrap();
    let forward = || nn::block(&packed, false, move |x| nn::attention(x, heads, &Mask::Causal)).unwrap();
    c.bench_function("attention forward, 64 x 36, 3 heads of 32", |b| b.iter(forward));
    c.bench_function("attention forward and backward", |b| b.iter(|| forward().sum_all().unwrap().backward().unwrap()));
}

criterion_group!(benches, mixture, draws, attention);
criterion_main!(benches);
