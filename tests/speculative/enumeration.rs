//! The law of a response, added up over all paths of drafting and verifying, in small worlds. What is enumerated is what
//! the sampler runs: [`verify`], and the choice of γ, with the choices made in every way instead of drawn.

use std::collections::BTreeMap;

use qstar::mixture::{Distribution, Rule, Temperature, Truncation, distribution, distribution_softmax};
use qstar::rollout::Gamma;
use qstar::rollout::speculative::{Place, verify};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::oracle::Oracle;

/// Logits of a model by the tokens before: any function of them.
struct Tabular {
    seed: u64,
    size: usize,
    spread: f32,
}

impl Tabular {
    fn logits(&self, prefix: &[u32]) -> Vec<f32> {
        let key = prefix.iter().fold(self.seed, |key, token| key.wrapping_mul(31).wrapping_add(u64::from(*token) + 7));
        let mut rng = ChaCha8Rng::seed_from_u64(key);
        (0..self.size).map(|_| self.spread * rng.random_range(-1.0f32..1.0)).collect()
    }
}

/// One world: what is drawn from, what drafts, and how a response ends.
struct World {
    policy: Tabular,
    target: Tabular,
    draft: Tabular,
    rule: Rule,
    temperature: Temperature,
    truncation: Truncation,
    gamma: Gamma,
    candidates: usize,
    length: usize,
}

/// Token 0 ends a response.
const END: u32 = 0;

impl World {
    fn q(&self, prefix: &[u32]) -> Distribution {
        let (p, t) = (self.policy.logits(prefix), self.target.logits(prefix));
        distribution(&p, &t, &self.rule, &self.temperature, &self.truncation).unwrap()
    }

    fn d(&self, prefix: &[u32]) -> Vec<f64> {
        distribution_softmax(&self.draft.logits(prefix), 1.3, &Truncation::NONE).unwrap().probabilities
    }

    fn is_over(&self, response: &[u32]) -> bool {
        response.len() == self.length || response.last() == Some(&END)
    }

    /// A response by speculation, its choices made by `choose`.
    fn speculate(&self, choose: &mut impl FnMut(&[f64]) -> usize) -> Vec<u32> {
        let mut response: Vec<u32> = Vec::new();
        let (mut tested, mut accepted) = (0, 0);
        while !self.is_over(&response) {
            let gamma = self.gamma.next(tested, accepted, 1, self.length - response.len() - 1);
            let mut chains: Vec<Vec<u32>> = vec![Vec::new(); self.candidates];
            // As the sampler does: token by token, for the chains that have not ended the response.
            for _ in 0..gamma {
                for chain in chains.iter_mut().filter(|chain| chain.last() != Some(&END)) {
                    let prefix = [&response[..], chain].concat();
                    chain.push(choose(&self.d(&prefix)) as u32);
                }
            }
            let mut kept = Vec::new();
            let prefix = |chain: usize, j: usize| [&response[..], &chains[chain][..j]].concat();
            let verified = verify(
                &chains,
                |chain, j| {
                    let prefix = prefix(chain, j);
                    Ok(Place { q: self.q(&prefix), draft: (j < chains[chain].len()).then(|| self.d(&prefix)) })
                },
                &mut *choose,
                |_, _, token, _| {
                    kept.push(token);
                    Ok(token == END)
                },
            )
            .unwrap();
            (tested, accepted) = (tested + verified.tested, accepted + verified.accepted);
            response.extend(kept);
        }
        response
    }

    /// The law of the responses by speculation, and the number of ways.
    fn law(&self) -> (BTreeMap<Vec<u32>, f64>, usize) {
        let (mut law, mut ways) = (BTreeMap::new(), 0);
        let mut oracle = Oracle::new();
        loop {
            let response = self.speculate(&mut |probabilities| oracle.choose(probabilities));
            *law.entry(response).or_insert(0.0) += oracle.weight;
            ways += 1;
            if !oracle.next() {
                return (law, ways);
            }
        }
    }

    /// The law by definition: the product of q along every response.
    fn expected(&self) -> BTreeMap<Vec<u32>, f64> {
        let mut law = BTreeMap::new();
        let mut open = vec![(Vec::new(), 1.0)];
        while let Some((response, weight)) = open.pop() {
            if self.is_over(&response) {
                law.insert(response, weight);
                continue;
            }
            for (token, q) in self.q(&response).probabilities.iter().enumerate().filter(|(_, q)| **q > 0.0) {
                open.push(([&response[..], &[token as u32]].concat(), weight * q));
            }
        }
        law
    }

    fn check(&self, what: &str) -> usize {
        let ((law, ways), expected) = (self.law(), self.expected());
        assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-12, "{what}");
        let worst =
            expected.iter().map(|(response, p)| (p - law.get(response).unwrap_or(&0.0)).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-12, "{what}: a response is off by {worst:e}");
        let strange: f64 = law.iter().filter(|(response, _)| !expected.contains_key(*response)).map(|(_, p)| p).sum();
        assert!(strange < 1e-12, "{what}: {strange:e} of the law lies outside of q");
        ways
    }
}

fn world(seed: u64, size: usize, gamma: usize, candidates: usize, length: usize) -> World {
    let tabular = |seed| Tabular { seed, size, spread: 2.0 };
    World {
        policy: tabular(seed),
        target: tabular(seed + 1),
        draft: tabular(seed),
        rule: Rule::Q_STAR,
        temperature: Temperature::ONE,
        truncation: Truncation::NONE,
        gamma: Gamma::Fixed(gamma),
        candidates,
        length,
    }
}

#[test]
fn every_gamma_and_number_of_candidates_keeps_the_law() {
    let mut ways = 0;
    for (size, gamma, candidates, length) in [
        (4, 1, 1, 3),
        (4, 2, 1, 4),
        (3, 3, 1, 4),
        (3, 5, 1, 5),
        (4, 1, 2, 2),
        (3, 1, 3, 3),
        (3, 2, 2, 3),
        (2, 2, 3, 3),
        (2, 1, 5, 2),
    ] {
        for seed in [10, 20] {
            let what = format!("V {size}, γ {gamma}, k {candidates}, length {length}, seed {seed}");
            ways += world(seed, size, gamma, candidates, length).check(&what);
        }
    }
    println!("{ways} ways");
}

/// γ that depends on what was accepted before, down to the standard sampler.
#[test]
fn a_gamma_that_adapts_keeps_the_law() {
    let mut ways = 0;
    // Drafts that are cheap, that stop at the first rejection, and that are too dear from the start.
    for (draft_cost, token_cost) in [(0.05, 0.0), (0.5, 0.1), (5.0, 0.0)] {
        let gamma = Gamma::Adaptive { most: 3, draft_cost, token_cost };
        for (size, candidates, length) in [(3, 1, 5), (2, 2, 4)] {
            for seed in [70, 80] {
                let world = World { gamma, ..world(seed, size, 0, candidates, length) };
                ways += world.check(&format!("{gamma:?}, k {candidates}, seed {seed}"));
            }
        }
    }
    let next = |gamma: Gamma, accepted| gamma.next(4, accepted, 1, 10);
    let (cheap, dear) = (
        Gamma::Adaptive { most: 3, draft_cost: 0.05, token_cost: 0.0 },
        Gamma::Adaptive { most: 3, draft_cost: 0.5, token_cost: 0.1 },
    );
    assert_eq!([next(cheap, 4), next(dear, 0)], [3, 0], "the costs make different ways");
    println!("{ways} ways");
}

#[test]
fn every_rule_temperature_and_truncation_keeps_the_law() {
    let rules = [
        Rule::Q_STAR,
        Rule::Fixed(0.5),
        Rule::Fixed(0.0),
        Rule::Fixed(1.0),
        Rule::Entropy,
        Rule::EssBalance,
        Rule::SnrMax,
    ];
    for (i, rule) in rules.into_iter().enumerate() {
        for candidates in [1, 2] {
            let world = World { rule, ..world(30 + i as u64, 3, 2, candidates, 3) };
            world.check(&format!("{rule:?}, k {candidates}"));
        }
    }
    let warm = Temperature { policy: 0.7, target: 1.4, mixture: 1.3 };
    World { temperature: warm, ..world(50, 3, 2, 2, 3) }.check("temperatures");
    let nucleus = Truncation { top_p: Some(0.6), ..Truncation::NONE };
    World { truncation: nucleus, ..world(51, 4, 2, 2, 3) }.check("top-p");
    World { truncation: Truncation { top_k: Some(2), top_p: None }, ..world(52, 4, 2, 1, 3) }.check("top-k");
    // A draft that is neither of the two models.
    let draft = Tabular { seed: 99, size: 3, spread: 3.0 };
    World { draft, ..world(53, 3, 2, 2, 3) }.check("another draft");
    // A draft that is q: everything is accepted.
    let own = |seed| Tabular { seed, size: 3, spread: 1.0 };
    World { policy: own(60), target: own(60), draft: own(60), ..world(60, 3, 2, 2, 3) }.check("equal models");
}

/// The rule that this one replaces, so that the test is known to see the difference: q itself after a rejection.
#[test]
fn falling_back_to_q_is_seen() {
    let world = world(10, 4, 1, 1, 2);
    let (q, d) = (world.q(&[]).probabilities, world.d(&[]));
    let rejected: f64 = q.iter().zip(&d).map(|(q, d)| (d - q).max(0.0)).sum();
    let fallen: Vec<f64> = q.iter().zip(&d).map(|(q, d)| q.min(*d) + rejected * q).collect();
    let kl: f64 = fallen.iter().zip(&q).map(|(a, b)| a * (a / b).ln()).sum();
    assert!(kl > 1e-3, "{kl}");
}
