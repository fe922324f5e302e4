//! The exact law of a token at every prefix that speculation visits on models: drafting and [`verify`] gone through in all
//! ways, against q\* that this file computes from the models' logits itself.

use std::collections::BTreeSet;

use qstar::mixture::{Rule, Temperature, Truncation, distribution, distribution_softmax};
use qstar::rollout::speculative::{Place, verify};
use qstar::rollout::{Draft, Sampler, Speculation};
use qstar::target::Expert;

use super::models::{Q_STAR, VOCABULARY, gpt2, logits, prompts, sampler};
use super::oracle::Oracle;

/// q\* of two rows of logits, by bisection of K' in f64.
fn q_star(p: &[f32], t: &[f32]) -> Vec<f64> {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let total = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        row.iter().map(|&x| f64::from(x) - total).collect()
    };
    let (p, t) = (log_softmax(p), log_softmax(t));
    let mixture = |alpha: f64| -> Vec<f64> {
        let weights: Vec<f64> = p.iter().zip(&t).map(|(p, t)| (alpha * p + (1.0 - alpha) * t).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let slope: f64 = mixture(middle).iter().zip(p.iter().zip(&t)).map(|(q, (p, t))| q * (p - t)).sum();
        if slope < 0.0 { low = middle } else { high = middle }
    }
    mixture(0.5 * (low + high))
}

/// The law of the next token, summed over all drafts of one token in each chain and all that becomes of them.
fn law(p: &[f32], t: &[f32], candidates: usize) -> Vec<f64> {
    let q = distribution(p, t, &Rule::Q_STAR, &Temperature::ONE, &Truncation::NONE).unwrap();
    let d = distribution_softmax(p, 1.0, &Truncation::NONE).unwrap().probabilities;
    let mut law = vec![0.0; q.probabilities.len()];
    let mut oracle = Oracle::new();
    loop {
        let chains: Vec<Vec<u32>> = (0..candidates).map(|_| vec![oracle.choose(&d) as u32]).collect();
        let mut first = None;
        verify(
            &chains,
            |_, _| Ok(Place { q: q.clone(), draft: Some(d.clone()) }),
            |probabilities| oracle.choose(probabilities),
            |_, _, token, _| {
                first = Some(token);
                // What follows is another prefix's business.
                Ok(true)
            },
        )
        .unwrap();
        law[first.unwrap() as usize] += oracle.weight;
        if !oracle.next() {
            return law;
        }
    }
}

fn kl(law: &[f64], q: &[f64]) -> f64 {
    law.iter().zip(q).map(|(law, q)| law * (law / q).ln()).sum()
}

#[test]
fn the_law_at_visited_prefixes_is_q_star() {
    let (policy, expert) = (gpt2(1, 16), gpt2(2, 24));
    let (network, expert_network) = (policy.frozen().unwrap(), expert.frozen().unwrap());
    let target = Expert::new(&expert).unwrap();
    let sampler = Sampler { stop_tokens: &[], max_response_tokens: 24, ..sampler(Q_STAR) };
    let k = 140;
    let speculation = Speculation { candidates: 2, ..Speculation::fixed(3) };
    let drawn =
        sampler.speculate(&network, Some(&target), Draft::Policy, &speculation, &prompts(), k).unwrap().responses;
    let mut distinct: BTreeSet<Vec<u32>> = BTreeSet::new();
    let (mut visited, mut worst, mut worst_of_two, mut naive) = (0, 0.0f64, 0.0f64, 0.0f64);
    for (row, response) in drawn.iter().enumerate() {
        let prompt = &prompts()[row / k];
        let tokens = response.tokens();
        let (p, t) = (logits(&network, prompt, &tokens), logits(&expert_network, prompt, &tokens));
        for (j, (p, t)) in p.iter().zip(&t).enumerate() {
            visited += 1;
            if !distinct.insert([prompt, &tokens[..j]].concat()) {
                continue;
            }
            let q = q_star(p, t);
            worst = worst.max(kl(&law(p, t, 1), &q).abs());
            // Two candidates have more than a hundred times as many ways.
            if distinct.len().is_multiple_of(50) {
                worst_of_two = worst_of_two.max(kl(&law(p, t, 2), &q).abs());
            }
            // The rule that this one replaces, q after a rejection: the difference is there to be seen.
            let d = distribution_softmax(p, 1.0, &Truncation::NONE).unwrap().probabilities;
            let rejected: f64 = q.iter().zip(&d).map(|(q, d)| (d - q).max(0.0)).sum();
            let fallen: Vec<f64> = (0..VOCABULARY).map(|x| q[x].min(d[x]) + rejected * q[x]).collect();
            naive = naive.max(kl(&fallen, &q));
        }
    }
    println!(
        "{visited} prefixes, {} of them distinct: KL at most {worst:e}, with two candidates {worst_of_two:e}; with q after a \
         rejection {naive:.3}",
        distinct.len()
    );
    assert!(visited >= 10_000 && distinct.len() > 5_000);
    assert!(worst < 1e-6 && worst_of_two < 1e-6 && naive > 0.01);
}
