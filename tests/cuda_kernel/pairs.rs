//! Pairs of logits of every kind that a solver meets.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

pub const KINDS: [&str; 13] = [
    "gaussian",
    "uniform",
    "zipf",
    "one_hot_like",
    "nearly_certain",
    "shared_zeros",
    "partial_supports",
    "finite_masks",
    "small_gap",
    "same",
    "shifted",
    "tilted",
    "far_apart",
];

/// `rows` pairs of rows of `vocabulary` outcomes of one kind: policy and target.
pub fn pairs(kind: &str, rows: usize, vocabulary: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<(Vec<f32>, Vec<f32>)> = (0..rows).map(|_| pair(kind, vocabulary, &mut rng)).collect();
    let (policy, target): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    (policy.concat(), target.concat())
}

fn pair(kind: &str, v: usize, rng: &mut ChaCha8Rng) -> (Vec<f32>, Vec<f32>) {
    let log_uniform = |rng: &mut ChaCha8Rng, low: f32, high: f32| low * (high / low).powf(rng.random::<f32>());
    let gaussian = |rng: &mut ChaCha8Rng| -> f32 { StandardNormal.sample(rng) };
    let normal = |rng: &mut ChaCha8Rng, scale: f32| -> Vec<f32> { (0..v).map(|_| scale * gaussian(rng)).collect() };
    let scale = log_uniform(rng, 0.1, 12.0);
    let (mut p, mut t) = (normal(rng, scale), normal(rng, scale));
    match kind {
        "gaussian" => {}
        "uniform" => p.iter_mut().chain(&mut t).for_each(|x| *x = scale * (rng.random::<f32>() - 0.5)),
        "zipf" => {
            let exponent = log_uniform(rng, 0.5, 3.0);
            p.iter_mut().chain(&mut t).for_each(|x| *x = -exponent * (1.0 + v as f32 * rng.random::<f32>()).ln());
        }
        "one_hot_like" | "nearly_certain" => {
            (p, t) = (normal(rng, 0.3), normal(rng, 0.3));
            let top = rng.random_range(0..v);
            let other = if kind == "nearly_certain" { top } else { rng.random_range(0..v) };
            p[top] += log_uniform(rng, 3.0, 30.0);
            t[other] += log_uniform(rng, 3.0, 30.0);
        }
        "shared_zeros" | "finite_masks" => {
            let mask = [f32::NEG_INFINITY, -1e9, -1e10, f32::MIN]
                [if kind == "shared_zeros" { 0 } else { rng.random_range(1..4) }];
            for i in 1..v {
                if rng.random::<f32>() < 0.3 {
                    (p[i], t[i]) = (mask, mask);
                }
            }
        }
        "partial_supports" => {
            let share = 0.3 * rng.random::<f32>();
            for i in 1..v {
                if rng.random::<f32>() < share {
                    *(if rng.random() { &mut p[i] } else { &mut t[i] }) = f32::NEG_INFINITY;
                }
            }
        }
        "small_gap" | "shifted" => {
            // Step 0 of a training; and the same with the logits of one side far from the other's.
            let gap = log_uniform(rng, 1e-4, 0.1);
            let shift = if kind == "shifted" { 20.0 * gaussian(rng) } else { 0.0 };
            t = p.iter().map(|x| x + gap * gaussian(rng) + shift).collect();
        }
        "same" => {
            let shift = if rng.random() { 8.0 } else { 0.0 };
            p.iter_mut().for_each(|x| *x = (*x * 1024.0).round() / 1024.0);
            t = p.iter().map(|x| x + shift).collect();
        }
        "tilted" => {
            // A target that is the policy tilted by a reward, of every outcome or of few.
            let beta = log_uniform(rng, 1e-3, 1.0);
            let rare = rng.random::<bool>().then(|| 0.5 * rng.random::<f32>());
            let mut reward = || {
                let x = rng.random::<f32>();
                rare.map_or(x, |share| f32::from(u8::from(x < share)))
            };
            t = p.iter().map(|x| x + reward() / beta).collect();
        }
        "far_apart" => (p, t) = (normal(rng, 25.0), normal(rng, 25.0)),
        other => panic!("no pairs of kind {other}"),
    }
    (p, t)
}
