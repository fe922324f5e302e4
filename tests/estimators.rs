//! What the losses estimate, by enumeration: the mean over all outcomes of the gradient that the
//! library computes, against closed forms of the exact quantity. Nothing is sampled.

use candle_core::{Device, Tensor, Var};
use qstar::method::{Level, Loss, Treatment, Weight, leave_one_out, maximum_likelihood_loss, reinforce_loss};
use qstar::mixture::{Pair, Rule};
use qstar::nn::{self, Linear};

const V: usize = 3;
const T: usize = 3;

/// A policy or target over sequences of T tokens: logits for every prefix, `[1 + V + V², V]`.
struct Tabular {
    logits: Vec<f64>,
}

impl Tabular {
    fn new(phase: f64, gap: f64) -> Self {
        Self { logits: (0..(1 + V + V * V) * V).map(|i| (phase + 1.3 * i as f64).sin() * gap).collect() }
    }

    fn log_probs(&self, prefix: &[usize]) -> Vec<f64> {
        let row = &self.logits[place(prefix) * V..][..V];
        let z = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        row.iter().map(|x| x - z).collect()
    }
}

/// The row of a prefix: all shorter prefixes come first.
fn place(prefix: &[usize]) -> usize {
    let shorter: usize = (0..prefix.len()).map(|n| V.pow(n as u32)).sum();
    shorter + prefix.iter().fold(0, |at, token| at * V + token)
}

fn sequences() -> Vec<Vec<usize>> {
    (0..V.pow(T as u32)).map(|i| (0..T).rev().map(|t| i / V.pow(t as u32) % V).collect()).collect()
}

fn reward(y: &[usize]) -> f64 {
    [0.3, -0.5, 1.1][y[0]] * [1.0, 0.2, -0.7][y[2]] + 0.4 * f64::from(u8::from(y[1] == y[2]))
}

/// log of each token's probability along y.
fn along(log_probs: impl Fn(&[usize]) -> Vec<f64>, y: &[usize]) -> Vec<f64> {
    (0..T).map(|t| log_probs(&y[..t])[y[t]]).collect()
}

/// log q for every prefix: q* of policy and target.
fn q_star(policy: &Tabular, target: &Tabular) -> impl Fn(&[usize]) -> Vec<f64> {
    |prefix: &[usize]| {
        let pair = Pair::from_log_probs(&policy.log_probs(prefix), &target.log_probs(prefix)).unwrap();
        pair.log_q(pair.solve(&Rule::Q_STAR).unwrap().alpha)
    }
}

/// The library's gradient for drawn sequences: minus the gradient of the loss with respect to the table.
fn gradient(policy: &Tabular, drawn: &[Vec<usize>], loss: impl Fn(&[f64]) -> Loss) -> Vec<f64> {
    let shape = (1 + V + V * V, V);
    let logits = Var::from_vec(policy.logits.clone(), shape, &Device::Cpu).unwrap();
    let (mut rows, mut tokens) = (Vec::new(), Vec::new());
    for y in drawn {
        for t in 0..T {
            rows.push(place(&y[..t]) as u32);
            tokens.push(y[t] as u32);
        }
    }
    let rows = Tensor::new(rows, &Device::Cpu).unwrap();
    // A head that hands logits on as they are.
    let eye = Tensor::eye(logits.dim(1).unwrap(), logits.dtype(), logits.device()).unwrap();
    let head = Linear::new(nn::Weight::frozen(eye), None);
    let rows = logits.index_select(&rows, 0).unwrap();
    let log_probs = nn::token_log_probs(&rows, &head, &tokens, false).unwrap().log_probs;
    let found = loss(&log_probs.to_vec1::<f64>().unwrap());
    let grads = found.through(&log_probs).unwrap().backward().unwrap();
    grads.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().map(|g| -g).collect()
}

/// E_q of the REINFORCE gradient over all k-tuples of sequences, with the leave-one-out baseline.
fn expected_reinforce(policy: &Tabular, q: &dyn Fn(&[usize]) -> Vec<f64>, weight: Weight, k: usize) -> Vec<f64> {
    let all = sequences();
    let mut mean = vec![0.0; policy.logits.len()];
    for tuple in 0..all.len().pow(k as u32) {
        let drawn: Vec<Vec<usize>> = (0..k).map(|i| all[tuple / all.len().pow(i as u32) % all.len()].clone()).collect();
        let log_p: Vec<Vec<f64>> = drawn.iter().map(|y| along(|x| policy.log_probs(x), y)).collect();
        let log_q: Vec<Vec<f64>> = drawn.iter().map(|y| along(q, y)).collect();
        let probability: f64 = log_q.iter().flatten().sum::<f64>().exp();
        let rewards: Vec<f64> = drawn.iter().map(|y| reward(y)).collect();
        let advantages = leave_one_out(&rewards, k);
        let weights = weight.weights(&log_p, &log_q, k);
        let coefficients: Vec<f64> =
            weights.iter().zip(&advantages).flat_map(|(w, a)| w.iter().map(move |w| w * a)).collect();
        let g = gradient(policy, &drawn, |log_probs| reinforce_loss(log_probs, &coefficients, k as f64));
        mean.iter_mut().zip(&g).for_each(|(m, g)| *m += probability * g);
    }
    mean
}

/// The derivative of log π(token | prefix) with respect to the prefix's logits, added with a factor.
fn add_score(into: &mut [f64], policy: &Tabular, prefix: &[usize], token: usize, factor: f64) {
    let row = place(prefix) * V;
    for (v, log_p) in policy.log_probs(prefix).iter().enumerate() {
        into[row + v] += factor * (f64::from(u8::from(v == token)) - log_p.exp());
    }
}

/// ∇ Σ_y π(y) r(y), by the product rule over all sequences.
fn exact_gradient(policy: &Tabular) -> Vec<f64> {
    let mut exact = vec![0.0; policy.logits.len()];
    for y in sequences() {
        let probability: f64 = along(|x| policy.log_probs(x), &y).iter().sum::<f64>().exp();
        for t in 0..T {
            add_score(&mut exact, policy, &y[..t], y[t], probability * reward(&y));
        }
    }
    exact
}

/// Σ_t E_{y<t∼q} Σ_{y_t} ∇π(y_t) Q^q(y≤t): what the token weight estimates.
fn token_weight_formula(policy: &Tabular, q: &dyn Fn(&[usize]) -> Vec<f64>) -> Vec<f64> {
    let mut expected = vec![0.0; policy.logits.len()];
    for y in sequences() {
        let log_q = along(q, &y);
        for t in 0..T {
            // q of the prefix and of what follows the token; π of the token itself.
            let others: f64 = (0..T).filter(|s| *s != t).map(|s| log_q[s]).sum();
            let token = policy.log_probs(&y[..t])[y[t]];
            add_score(&mut expected, policy, &y[..t], y[t], (others + token).exp() * reward(&y));
        }
    }
    expected
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn the_full_product_of_weights_is_unbiased() {
    for gap in [0.3, 1.0, 2.0] {
        let (policy, target) = (Tabular::new(0.4, gap), Tabular::new(2.1, gap));
        let weight = Weight { level: Level::Sequence, treatment: Treatment::Raw };
        let q = q_star(&policy, &target);
        let exact = exact_gradient(&policy);
        for k in [1, 2] {
            let mean = expected_reinforce(&policy, &q, weight, k);
            assert!(distance(&mean, &exact) < 1e-12, "gap {gap}, k {k}: {}", distance(&mean, &exact));
        }
    }
}

#[test]
fn draws_from_the_policy_need_no_weight() {
    let policy = Tabular::new(0.4, 1.0);
    let mean = expected_reinforce(&policy, &|x| policy.log_probs(x), Weight::NONE, 2);
    assert!(distance(&mean, &exact_gradient(&policy)) < 1e-12);
}

#[test]
fn token_weights_estimate_their_formula_and_not_the_gradient() {
    for gap in [0.3, 1.0, 2.0] {
        let (policy, target) = (Tabular::new(0.4, gap), Tabular::new(2.1, gap));
        let q = q_star(&policy, &target);
        let weight = Weight { level: Level::Token, treatment: Treatment::Raw };
        let formula = token_weight_formula(&policy, &q);
        let exact = exact_gradient(&policy);
        for k in [1, 2] {
            let mean = expected_reinforce(&policy, &q, weight, k);
            assert!(distance(&mean, &formula) < 1e-12);
            assert!(distance(&mean, &exact) > 0.01, "the bias is real: {}", distance(&mean, &exact));
        }
        println!("logit gap {gap}: relative bias of the token weight {:.3}", distance(&formula, &exact));
    }
}

#[test]
fn maximum_likelihood_descends_the_divergence_from_the_target() {
    let (policy, target) = (Tabular::new(0.4, 1.0), Tabular::new(2.1, 1.0));
    let (mut mean, mut exact) = (vec![0.0; policy.logits.len()], vec![0.0; policy.logits.len()]);
    for y in sequences() {
        let probability: f64 = along(|x| target.log_probs(x), &y).iter().sum::<f64>().exp();
        let g = gradient(&policy, std::slice::from_ref(&y), |log_probs| maximum_likelihood_loss(log_probs, 1.0));
        mean.iter_mut().zip(&g).for_each(|(m, g)| *m += probability * g);
        for t in 0..T {
            add_score(&mut exact, &policy, &y[..t], y[t], probability);
        }
    }
    assert!(distance(&mean, &exact) < 1e-12);
}
