//! The pieces that a training step is made of. `cargo bench` prints the time of each.

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use qstar::mixture::{Pair, Rule};
use qstar::nn::{self, Heads, Mask};

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

fn attention(c: &mut Criterion) {
    let heads = Heads { query: 3, kv: 3, dim: 32, interleaved: false };
    let packed =
        Tensor::from_vec(logits(64 * 36 * heads.packed(), 0.3), (64, 36, heads.packed()), &Device::Cpu).unwrap();
    let packed = Var::from_tensor(&packed).unwrap();
    let forward = || nn::block(&packed, false, move |x| nn::attention(x, heads, &Mask::Causal)).unwrap();
    c.bench_function("attention forward, 64 x 36, 3 heads of 32", |b| b.iter(forward));
    c.bench_function("attention forward and backward", |b| b.iter(|| forward().sum_all().unwrap().backward().unwrap()));
}

criterion_group!(benches, mixture, attention);
criterion_main!(benches);
