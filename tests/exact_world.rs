//! The exact world against closed forms that are written here for themselves: recursions over the tree, plain sums,
//! finite differences, the losses of training, and draws.

use candle_core::{Device, Tensor, Var};
use qstar::experiment::exact::{
    Baseline, Estimate, Estimator, Next, RULES, Setting, Step, Tabular, TabularProposal, Tree, Unit, units,
};
use qstar::method::{Level, Over, Treatment, Weight, leave_one_out, reinforce_loss};
use qstar::mixture::Rule;
use qstar::nn::{self, Linear};
use rand::Rng;

const TRUNCATED: Treatment = Treatment::Truncated { high: 2.0 };
/// Tight enough to bind in the pairs below, unlike the study's [0.1, 10].
const TIGHT: Treatment = Treatment::Clipped { low: 0.7, high: 1.3 };
const LEVELS: [Level; 3] = [Level::Token, Level::Prefix, Level::Sequence];

fn tree() -> Tree {
    Tree::new(3, 3, false).unwrap()
}

fn world(seed: u64) -> Setting {
    Setting::new(&tree(), seed, 0.1).unwrap()
}

fn weight(level: Level, treatment: Treatment) -> Weight {
    Weight { level, treatment }
}

fn estimate(setting: &Setting, q: &Tabular, weight: Weight, baseline: Baseline, k: usize) -> Estimate {
    Estimator { weight, baseline, k }.estimate(setting, q).unwrap()
}

/// Every rule and some fixed α, over tokens and over sequences.
fn proposals(setting: &Setting) -> Vec<(String, TabularProposal)> {
    let fixed = [0.2, 0.8].map(|alpha| ("fixed", Rule::Fixed(alpha)));
    let rules: Vec<(&str, Rule)> = RULES.into_iter().chain(fixed).collect();
    let of = |unit: Unit| {
        rules.iter().map(move |(name, rule)| {
            (format!("{name} {rule:?} {unit:?}"), TabularProposal::new(setting, unit, rule).unwrap())
        })
    };
    let all: Vec<_> = of(Unit::Token).collect();
    all.into_iter().chain(of(Unit::Sequence)).collect()
}

fn q_star(setting: &Setting, unit: Unit) -> Tabular {
    TabularProposal::new(setting, unit, &Rule::Q_STAR).unwrap().q
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b)
}

/// Probability of a token after a prefix.
fn pr(table: &Tabular, step: &Step) -> f64 {
    table.row(step.prefix)[step.token].exp()
}

/// Adds `factor`·∇log π(token | prefix): by the definition of softmax.
fn add_score(into: &mut [f64], setting: &Setting, step: &Step, factor: f64) {
    let row = setting.policy.row(step.prefix);
    for (v, log_p) in row.iter().enumerate() {
        let delta = if v == step.token { 1.0 } else { 0.0 };
        into[step.prefix * row.len() + v] += factor * (delta - log_p.exp());
    }
}

fn zeros(setting: &Setting) -> Vec<f64> {
    vec![0.0; setting.tree.prefixes() * setting.tree.vocabulary()]
}

/// J of a policy given by its logits, summed path by path.
fn objective(setting: &Setting, logits: &[f64]) -> f64 {
    let v = setting.tree.vocabulary();
    let policy = Tabular::from_logits(logits.chunks(v).map(<[f64]>::to_vec).collect());
    let of = |(path, reward): (&Vec<Step>, &f64)| {
        let (mut p, mut init) = (1.0, 1.0);
        for step in path {
            p *= pr(&policy, step);
            init *= pr(&setting.initial, step);
        }
        p * (reward - setting.beta * (p / init).ln())
    };
    setting.tree.paths().iter().zip(&setting.rewards).map(of).sum()
}

fn logits(setting: &Setting) -> Vec<f64> {
    (0..setting.tree.prefixes()).flat_map(|prefix| setting.policy.row(prefix).to_vec()).collect()
}

#[test]
fn the_gradient_is_the_slope_of_the_objective() {
    for tree in [tree(), Tree::new(3, 4, true).unwrap()] {
        let setting = Setting::new(&tree, 3, 0.3).unwrap();
        let (at, exact) = (logits(&setting), setting.gradient());
        assert!((objective(&setting, &at) - setting.objective()).abs() < 1e-14);
        let slope = |i: usize| {
            let moved = |by: f64| {
                let mut logits = at.clone();
                logits[i] += by;
                objective(&setting, &logits)
            };
            (moved(1e-4) - moved(-1e-4)) / 2e-4
        };
        let slopes: Vec<f64> = (0..at.len()).map(slope).collect();
        assert!(distance(&exact, &slopes) < 1e-7, "{}", distance(&exact, &slopes));
    }
}

#[test]
fn every_table_is_a_distribution_over_the_sequences() {
    for tree in [tree(), Tree::new(3, 4, true).unwrap()] {
        for setting in Setting::new(&tree, 1, 0.1).unwrap().pairs().unwrap() {
            assert!(setting.rewards.iter().all(|r| (0.0..=1.0).contains(r)));
            let mut tables: Vec<Tabular> = proposals(&setting).into_iter().map(|(_, proposal)| proposal.q).collect();
            tables.extend([setting.policy.clone(), setting.target.clone(), setting.initial.clone()]);
            for table in tables {
                let total: f64 = table.of_sequences(&tree).iter().map(|x| x.exp()).sum();
                assert!((total - 1.0).abs() < 1e-12);
                for prefix in 0..tree.prefixes() {
                    assert!((table.row(prefix).iter().map(|x| x.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
                }
            }
        }
    }
}

#[test]
fn the_pairs_are_what_their_names_say() {
    for seed in 0..20 {
        let world = world(seed);
        let pairs = world.pairs().unwrap();
        let by_name = |name: &str| pairs.iter().find(|pair| pair.name == name).unwrap();
        let kl = |name: &str| {
            let pair = by_name(name);
            let (p, t) = (pair.policy.of_sequences(&pair.tree), pair.target.of_sequences(&pair.tree));
            p.iter().zip(&t).map(|(p, t)| p.exp() * (p - t)).sum::<f64>()
        };
        assert!(kl("near") < kl("medium") && kl("medium") < kl("far") && kl("same").abs() < 1e-15);
        let reward = |pair: &Setting, table: &Tabular| pair.expected_reward(table);
        let [expert, tilted] = ["expert", "tilted"].map(by_name);
        assert!(reward(expert, &expert.target) > reward(expert, &expert.policy), "seed {seed}");
        // The tilt is the maximiser of J: there J is β log Σ π_init e^{r/β}, and its slope is zero.
        let at_tilt = Setting { policy: tilted.target.clone(), ..tilted.clone() };
        assert!(norm(&at_tilt.gradient()) < 1e-14);
        let initial = world.initial.of_sequences(&world.tree);
        let z: f64 = initial.iter().zip(&world.rewards).map(|(x, r)| (x + r / world.beta).exp()).sum();
        assert!((at_tilt.objective() - world.beta * z.ln()).abs() < 1e-12);
    }
}

#[test]
fn the_sequence_weight_is_unbiased_for_every_proposal() {
    for pair in world(0).pairs().unwrap() {
        let exact = pair.gradient();
        let raw = weight(Level::Sequence, Treatment::Raw);
        for (name, proposal) in proposals(&pair) {
            for (baseline, k) in
                [(Baseline::None, 1), (Baseline::Mean, 1), (Baseline::LeaveOneOut, 2), (Baseline::LeaveOneOut, 5)]
            {
                let far = distance(&estimate(&pair, &proposal.q, raw, baseline, k).mean, &exact);
                assert!(far < 1e-9, "{} {name} {baseline:?} {k}: {far}", pair.name);
            }
        }
        // On-policy no weight is needed.
        let on_policy = estimate(&pair, &pair.policy, Weight::NONE, Baseline::LeaveOneOut, 3);
        assert!(distance(&on_policy.mean, &exact) < 1e-9);
    }
}

/// Q^q of every prefix and token: the mean return if what follows is drawn from q.
fn continuation(setting: &Setting, q: &Tabular) -> Vec<Vec<f64>> {
    let tree = &setting.tree;
    let returns: Vec<f64> = tree
        .paths()
        .iter()
        .zip(&setting.rewards)
        .map(|(path, r)| {
            let ratio: f64 =
                path.iter().map(|step| (pr(&setting.policy, step) / pr(&setting.initial, step)).ln()).sum();
            r - setting.beta * ratio
        })
        .collect();
    let mut values = vec![Vec::new(); tree.prefixes()];
    for prefix in (0..tree.prefixes()).rev() {
        let mean = |values: &Vec<Vec<f64>>, longer: usize| {
            q.row(longer).iter().zip(&values[longer]).map(|(x, value)| x.exp() * value).sum::<f64>()
        };
        values[prefix] = tree
            .next(prefix)
            .iter()
            .map(|next| match *next {
                Next::End(sequence) => returns[sequence],
                Next::Prefix(longer) => mean(&values, longer),
            })
            .collect();
    }
    values
}

/// Σ_t E Σ_{y_t} ∇π(y_t) Q^q(y≤t) over the prefixes that `reaching` draws.
fn with_continuations_of_q(setting: &Setting, q: &Tabular, reaching: &Tabular) -> Vec<f64> {
    let (values, reached) = (continuation(setting, q), reaching.of_prefixes(&setting.tree));
    let mut gradient = zeros(setting);
    for (prefix, values) in values.iter().enumerate() {
        for (token, value) in values.iter().enumerate() {
            let step = Step { prefix, token };
            add_score(&mut gradient, setting, &step, reached[prefix].exp() * pr(&setting.policy, &step) * value);
        }
    }
    gradient
}

#[test]
fn token_and_prefix_weights_estimate_what_their_documentation_says() {
    for pair in world(0).pairs().unwrap() {
        for (name, proposal) in proposals(&pair) {
            let q = &proposal.q;
            for (baseline, k) in [(Baseline::None, 1), (Baseline::Mean, 1), (Baseline::LeaveOneOut, 4)] {
                let mean = |level| estimate(&pair, q, weight(level, Treatment::Raw), baseline, k).mean;
                let token = distance(&mean(Level::Token), &with_continuations_of_q(&pair, q, q));
                let prefix = distance(&mean(Level::Prefix), &with_continuations_of_q(&pair, q, &pair.policy));
                assert!(token < 1e-9 && prefix < 1e-9, "{} {name} {baseline:?}: {token} {prefix}", pair.name);
            }
        }
    }
    // Neither is ∇J.
    let far = world(0).with_gap("far", 2.0);
    let q = q_star(&far, Unit::Token);
    for level in [Level::Token, Level::Prefix] {
        let mean = estimate(&far, &q, weight(level, Treatment::Raw), Baseline::None, 1).mean;
        assert!(distance(&mean, &far.gradient()) > 0.1);
    }
}

/// The weight of the token at place t, from probabilities.
fn by_hand(setting: &Setting, q: &Tabular, path: &[Step], t: usize, weight: Weight) -> f64 {
    let over = match weight.level {
        Level::Token => t..t + 1,
        Level::Prefix => 0..t + 1,
        Level::Sequence => 0..path.len(),
    };
    let raw: f64 = path[over].iter().map(|step| pr(&setting.policy, step) / pr(q, step)).product();
    match weight.treatment {
        Treatment::None => 1.0,
        Treatment::Clipped { low, high } => raw.max(low).min(high),
        Treatment::Truncated { high } => raw.min(high),
        Treatment::Raw | Treatment::Normalized { .. } => raw,
    }
}

fn return_of(setting: &Setting, sequence: usize) -> f64 {
    let path = &setting.tree.paths()[sequence];
    let ratio: f64 = path.iter().map(|step| pr(&setting.policy, step) / pr(&setting.initial, step)).product();
    setting.rewards[sequence] - setting.beta * ratio.ln()
}

/// E_q[Σ_t w_t (R − b) ∇log π(y_t)], b the mean return under q.
fn direct(setting: &Setting, q: &Tabular, weight: Weight) -> Vec<f64> {
    let paths = setting.tree.paths();
    let probability = |path: &[Step]| path.iter().map(|step| pr(q, step)).product::<f64>();
    let b: f64 = (0..paths.len()).map(|y| probability(&paths[y]) * return_of(setting, y)).sum();
    let mut mean = zeros(setting);
    for (y, path) in paths.iter().enumerate() {
        for (t, step) in path.iter().enumerate() {
            let w = by_hand(setting, q, path, t, weight);
            add_score(&mut mean, setting, step, probability(path) * w * (return_of(setting, y) - b));
        }
    }
    mean
}

#[test]
fn treated_weights_estimate_the_mean_of_treated_terms() {
    for pair in [world(0).with_gap("far", 2.0), world(1).with_expert().unwrap()] {
        for unit in Unit::BOTH {
            let q = q_star(&pair, unit);
            for treatment in [Treatment::None, TIGHT, Treatment::CLIPPED, TRUNCATED] {
                for level in LEVELS {
                    let weight = weight(level, treatment);
                    let mean = estimate(&pair, &q, weight, Baseline::LeaveOneOut, 3).mean;
                    let far = distance(&mean, &direct(&pair, &q, weight));
                    assert!(far < 1e-9, "{} {unit:?} {weight:?}: {far}", pair.name);
                }
            }
            let bound = |weight| estimate(&pair, &q, weight, Baseline::None, 1).mean;
            let (raw, tight) = (weight(Level::Token, Treatment::Raw), weight(Level::Token, TIGHT));
            assert!(distance(&bound(tight), &bound(raw)) > 0.01, "the bounds must bind for this to test anything");
        }
    }
}

#[test]
fn normalised_weights_by_ordered_pairs() {
    let pair = world(0).with_gap("far", 2.0);
    let (q, paths) = (q_star(&pair, Unit::Token), pair.tree.paths());
    let probability = |path: &[Step]| path.iter().map(|step| pr(&q, step)).product::<f64>();
    for level in LEVELS {
        let weight = weight(level, Treatment::Normalized { over: Over::Batch });
        let (mut mean, mut square) = (zeros(&pair), 0.0);
        for (a, one) in paths.iter().enumerate() {
            for (b, other) in paths.iter().enumerate() {
                let w = |path: &[Step], t| by_hand(&pair, &q, path, t, weight);
                let total: f64 = [one, other].iter().flat_map(|path| (0..3).map(|t| w(path, t))).sum();
                let advantage = return_of(&pair, a) - return_of(&pair, b);
                let mut g = zeros(&pair);
                for t in 0..3 {
                    add_score(&mut g, &pair, &one[t], 0.5 * advantage * w(one, t) / (total / 6.0));
                    add_score(&mut g, &pair, &other[t], -0.5 * advantage * w(other, t) / (total / 6.0));
                }
                let probability = probability(one) * probability(other);
                mean.iter_mut().zip(&g).for_each(|(mean, g)| *mean += probability * g);
                square += probability * norm(&g).powi(2);
            }
        }
        let found = estimate(&pair, &q, weight, Baseline::LeaveOneOut, 2);
        assert!(distance(&found.mean, &mean) < 1e-9);
        let variance = square - norm(&mean).powi(2);
        assert!((found.variance / variance - 1.0).abs() < 1e-9, "{} {variance}", found.variance);
    }
}

#[test]
fn sums_over_responses_are_sums_over_batches() {
    for setting in [
        world(2).with_gap("far", 2.0),
        Setting::new(&Tree::new(3, 3, true).unwrap(), 2, 0.1).unwrap().with_gap("far", 2.0),
    ] {
        let q = q_star(&setting, Unit::Token);
        for (baseline, k) in
            [(Baseline::None, 2), (Baseline::Mean, 1), (Baseline::LeaveOneOut, 2), (Baseline::LeaveOneOut, 3)]
        {
            for level in LEVELS {
                for treatment in [Treatment::Raw, TIGHT] {
                    let estimator = Estimator { weight: weight(level, treatment), baseline, k };
                    let sums = estimator.estimate(&setting, &q).unwrap();
                    let batches = estimator.over_batches(&setting, &q).unwrap();
                    assert!(distance(&sums.mean, &batches.mean) < 1e-10, "{estimator:?}");
                    let ratio = sums.variance / batches.variance;
                    assert!((ratio - 1.0).abs() < 1e-10, "{estimator:?}: {ratio}");
                }
            }
        }
    }
}

/// Minus the gradient of the library's loss for one batch, by candle.
fn gradient_of_the_loss(setting: &Setting, batch: &[usize], coefficients: &[f64]) -> Vec<f64> {
    let v = setting.tree.vocabulary();
    let steps = || batch.iter().flat_map(|y| &setting.tree.paths()[*y]);
    let rows: Vec<u32> = steps().map(|step| step.prefix as u32).collect();
    let tokens: Vec<u32> = steps().map(|step| step.token as u32).collect();
    let table = Var::from_vec(logits(setting), (setting.tree.prefixes(), v), &Device::Cpu).unwrap();
    let eye = Tensor::eye(v, table.dtype(), table.device()).unwrap();
    let head = Linear::new(nn::Weight::frozen(eye), None);
    let hidden = table.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap();
    let log_probs = nn::token_log_probs(&hidden, &head, &tokens, false).unwrap().log_probs;
    let grads = reinforce_loss(&log_probs.to_vec1::<f64>().unwrap(), coefficients, batch.len() as f64)
        .through(&log_probs)
        .unwrap()
        .backward()
        .unwrap();
    grads.get(&table).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().map(|g| -g).collect()
}

#[test]
fn the_estimator_is_the_gradient_of_the_loss_that_training_takes() {
    let setting = Setting::new(&Tree::new(3, 3, true).unwrap(), 0, 0.1).unwrap().with_gap("medium", 1.0);
    let (q, weight) = (q_star(&setting, Unit::Token), weight(Level::Prefix, TRUNCATED));
    let (paths, (mut mean, mut square)) = (setting.tree.paths(), (zeros(&setting), 0.0));
    for a in 0..paths.len() {
        for b in 0..paths.len() {
            let advantages = leave_one_out(&[return_of(&setting, a), return_of(&setting, b)], 2);
            let of = |(y, advantage): (usize, &f64)| {
                (0..paths[y].len()).map(|t| advantage * by_hand(&setting, &q, &paths[y], t, weight)).collect::<Vec<_>>()
            };
            let coefficients = [a, b].into_iter().zip(&advantages).flat_map(of).collect::<Vec<_>>();
            let g = gradient_of_the_loss(&setting, &[a, b], &coefficients);
            let probability: f64 = [a, b].iter().flat_map(|y| &paths[*y]).map(|step| pr(&q, step)).product();
            mean.iter_mut().zip(&g).for_each(|(mean, g)| *mean += probability * g);
            square += probability * norm(&g).powi(2);
        }
    }
    let found = estimate(&setting, &q, weight, Baseline::LeaveOneOut, 2);
    assert!(distance(&found.mean, &mean) < 1e-9);
    assert!((found.variance / (square - norm(&mean).powi(2)) - 1.0).abs() < 1e-9);
}

#[test]
fn the_exact_variance_is_what_draws_scatter_by() {
    const DRAWS: usize = 40_000;
    const K: usize = 4;
    let pair = world(0).with_gap("medium", 1.0);
    let (q, weight) = (q_star(&pair, Unit::Token), weight(Level::Sequence, Treatment::Raw));
    let exact = estimate(&pair, &q, weight, Baseline::LeaveOneOut, K);
    let mut rng = qstar::seed::rng(7, qstar::seed::Purpose::Exact, 100, 0);
    let mut draw = || {
        let mut prefix = 0;
        loop {
            let (u, mut below) = (rng.random::<f64>(), 0.0);
            let passed = |x: &f64| {
                below += x.exp();
                u < below
            };
            let token = q.row(prefix).iter().position(passed).unwrap_or(2);
            match pair.tree.next(prefix)[token] {
                Next::Prefix(longer) => prefix = longer,
                Next::End(sequence) => return sequence,
            }
        }
    };
    // ‖g − E g‖² of every draw: its mean is the trace of the covariance.
    let mut squares = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let batch: [usize; K] = std::array::from_fn(|_| draw());
        let returns = batch.map(|y| return_of(&pair, y));
        let mut g = zeros(&pair);
        for (i, y) in batch.iter().enumerate() {
            let others = (returns.iter().sum::<f64>() - returns[i]) / (K - 1) as f64;
            let path = &pair.tree.paths()[*y];
            for (t, step) in path.iter().enumerate() {
                let w = by_hand(&pair, &q, path, t, weight);
                add_score(&mut g, &pair, step, w * (returns[i] - others) / K as f64);
            }
        }
        squares.push(g.iter().zip(&exact.mean).map(|(g, mean)| (g - mean).powi(2)).sum::<f64>());
    }
    let mean = squares.iter().sum::<f64>() / DRAWS as f64;
    let spread = (squares.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (DRAWS - 1) as f64).sqrt();
    let error = spread / (DRAWS as f64).sqrt();
    println!("tr Cov: {:.6} exact, {mean:.6} ± {error:.6} drawn", exact.variance);
    assert!(error < 0.02 * mean, "so few draws test little: {error} of {mean}");
    assert!((mean - exact.variance).abs() < 3.0 * error);
}

#[test]
fn the_mixture_of_sequences_is_equally_far_from_both() {
    for pair in world(0).pairs().unwrap() {
        let proposal = TabularProposal::new(&pair, Unit::Sequence, &Rule::Q_STAR).unwrap();
        let probability = |table: &Tabular, path: &[Step]| path.iter().map(|step| pr(table, step)).product::<f64>();
        let alpha = proposal.alphas[0];
        let rows: Vec<[f64; 4]> = pair
            .tree
            .paths()
            .iter()
            .map(|path| {
                let (p, t) = (probability(&pair.policy, path), probability(&pair.target, path));
                [p, t, probability(&proposal.q, path), p.powf(alpha) * t.powf(1.0 - alpha)]
            })
            .collect();
        let z: f64 = rows.iter().map(|row| row[3]).sum();
        let kl = |side: usize| rows.iter().map(|row| row[2] * (row[2] / row[side]).ln()).sum::<f64>();
        assert!(rows.iter().all(|row| (row[2] - row[3] / z).abs() < 1e-12), "{}", pair.name);
        assert!((kl(0) - kl(1)).abs() < 1e-10 && (kl(0) + z.ln()).abs() < 1e-10, "{}: {} {}", pair.name, kl(0), kl(1));
        let token = q_star(&pair, Unit::Token);
        let apart: f64 = pair
            .tree
            .paths()
            .iter()
            .zip(&rows)
            .map(|(path, row)| row[2] * (row[2] / probability(&token, path)).ln())
            .sum();
        let frame = units(std::slice::from_ref(&pair)).unwrap();
        let column = |name: &str| frame.column(name).unwrap().f64().unwrap().get(4).unwrap();
        assert!((column("kl_sequence_token") - apart).abs() < 1e-12 && column("sequence_alpha") == alpha);
        assert_eq!(apart > 1e-6, pair.name != "same", "a product of per-prefix q* is another distribution: {apart}");
        assert!(column("token_alpha_min") <= column("token_alpha_mean"));
        assert!(column("token_alpha_mean") <= column("token_alpha_max"));
    }
}

#[test]
fn without_a_gap_every_proposal_is_on_policy() {
    let pair = world(0);
    let on_policy = estimate(&pair, &pair.policy, Weight::NONE, Baseline::LeaveOneOut, 4).variance;
    for (name, proposal) in proposals(&pair) {
        let apart = pair.policy.of_sequences(&pair.tree).into_iter().zip(proposal.q.of_sequences(&pair.tree));
        assert!(apart.into_iter().all(|(p, q)| (p - q).abs() < 1e-12), "{name}");
        for treatment in [Treatment::None, Treatment::Raw, Treatment::CLIPPED, TRUNCATED] {
            for level in LEVELS {
                let same = estimate(&pair, &proposal.q, weight(level, treatment), Baseline::LeaveOneOut, 4);
                assert!((same.variance / on_policy - 1.0).abs() < 1e-10, "{name} {level:?} {treatment:?}");
            }
        }
    }
}
