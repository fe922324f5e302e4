//! Top-k and top-p: what is kept, and the law of what is drawn from it, against sorting, against enumeration and
//! against transformers.

use proptest::prelude::*;
use qstar::mixture::{
    Rule, Temperature, Truncation, draw, draw_softmax, draw_softmax_truncated, draw_truncated, log_prob,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::Deserialize;

fn gaussian(v: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..v)
        .map(|_| {
            let x: f32 = StandardNormal.sample(&mut rng);
            scale * x
        })
        .collect()
}

fn truncation(top_k: Option<usize>, top_p: Option<f64>) -> Truncation {
    Truncation { top_k, top_p }
}

/// Log-probabilities of softmax(row / temperature).
fn normalised(row: impl Iterator<Item = f64>, temperature: f64) -> Vec<f64> {
    let row: Vec<f64> = row.map(|x| x / temperature).collect();
    let top = row.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(x));
    let log_z = row.iter().map(|x| (x - top).exp()).sum::<f64>().ln() + top;
    row.iter().map(|x| x - log_z).collect()
}

/// By the definition: sort all, cut behind the k-th and its equals, cumulate until p is reached.
fn naive(log_probs: &[f64], top_k: Option<usize>, top_p: Option<f64>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..log_probs.len()).filter(|&i| log_probs[i] > f64::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| log_probs[b].total_cmp(&log_probs[a]).then(a.cmp(&b)));
    if let Some(k) = top_k.filter(|&k| k < order.len()) {
        let last = log_probs[order[k - 1]];
        order.retain(|&i| log_probs[i] >= last);
    }
    if let Some(p) = top_p.filter(|&p| p < 1.0) {
        let total: f64 = order.iter().map(|&i| log_probs[i].exp()).sum();
        let mut sum = 0.0;
        let crossing = order.iter().position(|&i| {
            sum += log_probs[i].exp() / total;
            sum >= p
        });
        order.truncate(crossing.map_or(order.len(), |last| last + 1));
    }
    order.sort_unstable();
    order
}

/// Softmax of what is kept, −∞ elsewhere, and the log of the mass kept.
fn renormalised(log_probs: &[f64], kept: &[usize]) -> (Vec<f64>, f64) {
    let log_kept = kept.iter().map(|&i| log_probs[i].exp()).sum::<f64>().ln();
    let mut law = vec![f64::NEG_INFINITY; log_probs.len()];
    for &i in kept {
        law[i] = log_probs[i] - log_kept;
    }
    (law, log_kept)
}

/// Whether `ours` is what is kept at a p within rounding of `top_p`. Sets of one row are nested.
fn assert_kept(ours: &[u32], log_probs: &[f64], top_k: Option<usize>, top_p: Option<f64>) {
    let ours: Vec<usize> = ours.iter().map(|&i| i as usize).collect();
    let exact = naive(log_probs, top_k, top_p);
    if ours == exact {
        return;
    }
    // Rounding may move the border by a few outcomes of hardly any mass; it may not break the order.
    let p = top_p.expect("without top_p nothing is rounded");
    let least = naive(log_probs, top_k, Some((p - 2e-6).max(f64::MIN_POSITIVE)));
    let most = naive(log_probs, top_k, Some((p + 2e-6).min(1.0)));
    assert!(least.iter().all(|i| ours.contains(i)), "top_k {top_k:?}, top_p {p}: too few kept");
    assert!(ours.iter().all(|i| most.contains(i)), "top_k {top_k:?}, top_p {p}: too many kept");
    let lowest = ours.iter().map(|&i| log_probs[i]).fold(f64::INFINITY, f64::min);
    assert!((0..log_probs.len()).all(|i| log_probs[i] <= lowest || ours.contains(&i)), "a gap in the order");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Long and short rows, peaked and flat, with ties and masks.
    #[test]
    fn what_is_kept_is_what_sorting_keeps(
        seed in 0u64..1_000_000,
        v in prop_oneof![1usize..40, 1_000usize..1_100, 2_000usize..6_000],
        scale in 0.0f32..8.0,
        steps in prop_oneof![Just(0.0f32), Just(2.0), Just(0.5)],
        mask in prop_oneof![Just(0usize), Just(3)],
        temperature in prop_oneof![Just(1.0f64), 0.05f64..3.0],
        top_k in prop_oneof![Just(None), (1usize..60).prop_map(Some), (1usize..6_000).prop_map(Some)],
        top_p in prop_oneof![Just(None), (1e-6f64..1.0).prop_map(Some), Just(Some(0.9)), Just(Some(1.0))],
    ) {
        let mut row = gaussian(v, scale, seed);
        for (i, x) in row.iter_mut().enumerate() {
            if steps > 0.0 {
                *x = (*x * steps).round() / steps;
            }
            if mask > 0 && i % mask == 1 {
                *x = f32::NEG_INFINITY;
            }
        }
        let ours = truncation(top_k, top_p).kept(&row, temperature).unwrap();
        let log_probs = normalised(row.iter().map(|&x| f64::from(x)), temperature);
        assert_kept(&ours, &log_probs, top_k, top_p);
    }

    /// A draw falls on what is kept, and says its mass and its renormalised log-probability.
    #[test]
    fn a_draw_says_the_mass_that_was_kept(
        seed in 0u64..1_000_000,
        v in prop_oneof![2usize..40, 1_100usize..3_000],
        scale in 0.1f32..6.0,
        alpha in 0.0f64..1.0,
        mixture in prop_oneof![Just(1.0f64), 0.3f64..2.0],
        top_k in prop_oneof![Just(None), (1usize..60).prop_map(Some)],
        top_p in prop_oneof![Just(None), (0.01f64..1.0).prop_map(Some)],
        uniform in 0.0f64..1.0,
    ) {
        let (p, t) = (gaussian(v, scale, seed), gaussian(v, scale, seed + 1));
        let cut = truncation(top_k, top_p);
        let alone = draw_softmax_truncated(&p, mixture, &cut, uniform).unwrap();
        let kept = cut.kept(&p, mixture).unwrap();
        let (log_p, log_t) = (normalised(p.iter().map(|&x| x.into()), 1.0), normalised(t.iter().map(|&x| x.into()), 1.0));
        let tempered = normalised(log_p.iter().copied(), mixture);
        let (law, log_kept) = renormalised(&tempered, &kept.iter().map(|&i| i as usize).collect::<Vec<_>>());
        let near = |a: f64, b: f64| (a - b).abs() < 2e-6 * (1.0 + b.abs());
        prop_assert!(near(alone.log_q, law[alone.token as usize]), "{} {}", alone.log_q, law[alone.token as usize]);
        prop_assert!(near(alone.log_kept, log_kept), "{} {log_kept}", alone.log_kept);
        prop_assert!(near(log_prob(&p, alone.token).unwrap(), log_p[alone.token as usize]));

        let temperature = Temperature { mixture, ..Temperature::ONE };
        let drawn = draw_truncated(&p, &t, &Rule::Fixed(alpha), &temperature, &cut, uniform).unwrap();
        let mixed = log_p.iter().zip(&log_t).map(|(p, t)| alpha * p + (1.0 - alpha) * t);
        let log_q = normalised(mixed, mixture);
        let token = drawn.token as usize;
        prop_assert!(near(drawn.log_q + drawn.log_kept, log_q[token]), "the untruncated q");
        prop_assert!(near(drawn.log_p, log_p[token]) && near(drawn.log_t, log_t[token]));
        // The least and the most that rounding of p may keep.
        let around = |p: f64| {
            let kept = naive(&log_q, top_k, top_p.map(|_| p.clamp(f64::MIN_POSITIVE, 1.0)));
            prop_assert!(p < top_p.unwrap_or(1.0) || kept.contains(&token), "outside of what is kept");
            Ok(renormalised(&log_q, &kept).1)
        };
        let p = top_p.unwrap_or(1.0);
        let (least, most) = (around(p - 3e-6)?, around(p + 3e-6)?);
        let slack = 2e-6 * (1.0 + least.abs());
        prop_assert!(drawn.log_kept >= least - slack && drawn.log_kept <= most + slack);
        prop_assert!(drawn.log_q <= 1e-12 && drawn.log_kept <= 0.0);
    }
}

/// Inversion at evenly spaced points gives every outcome its share to one point: the law itself, without noise.
#[test]
fn the_law_of_a_truncated_draw_is_the_renormalised_one() {
    const POINTS: u64 = 4_000;
    let masked = |mut row: Vec<f32>, every: usize| {
        for x in row.iter_mut().step_by(every) {
            *x = f32::NEG_INFINITY;
        }
        row
    };
    let near: Vec<f32> = gaussian(3_003, 3.0, 3).iter().zip(gaussian(3_003, 1e-3, 9)).map(|(x, g)| x + g).collect();
    let pairs = [
        ("short", gaussian(40, 2.0, 1), gaussian(40, 2.0, 2)),
        ("long", gaussian(3_003, 3.0, 3), gaussian(3_003, 3.0, 4)),
        ("flat", gaussian(2_400, 0.3, 5), gaussian(2_400, 0.3, 6)),
        ("small gap", gaussian(3_003, 3.0, 3), near),
        ("masked", masked(gaussian(3_003, 3.0, 3), 7), masked(gaussian(3_003, 3.0, 4), 5)),
    ];
    let counts = |v: usize, token: &(dyn Fn(f64) -> u32 + Sync)| {
        let tokens: Vec<u32> = (0..POINTS).into_par_iter().map(|i| token((i as f64 + 0.5) / POINTS as f64)).collect();
        let mut counts = vec![0.0; v];
        tokens.iter().for_each(|&token| counts[token as usize] += 1.0);
        counts
    };
    for (name, p, t) in &pairs {
        for (top_k, top_p) in [(Some(50), None), (None, Some(0.9)), (Some(20), Some(0.7)), (Some(1), None)] {
            for temperature in [1.0, 0.6] {
                let cut = truncation(top_k, top_p);
                let log_p = normalised(p.iter().map(|&x| x.into()), 1.0);
                let log_t = normalised(t.iter().map(|&x| x.into()), 1.0);
                let tempered = normalised(log_p.iter().copied(), temperature);
                let alone = counts(p.len(), &|u| draw_softmax_truncated(p, temperature, &cut, u).unwrap().token);
                let at = Temperature { mixture: temperature, ..Temperature::ONE };
                let of_q = counts(p.len(), &|u| draw_truncated(p, t, &Rule::Fixed(0.4), &at, &cut, u).unwrap().token);
                let mixed = log_p.iter().zip(&log_t).map(|(p, t)| match p.is_finite() && t.is_finite() {
                    true => 0.4 * p + 0.6 * t,
                    false => f64::NEG_INFINITY,
                });
                for (what, counts, log_q) in [("p", alone, tempered), ("q", of_q, normalised(mixed, temperature))] {
                    let (law, _) = renormalised(&log_q, &naive(&log_q, top_k, top_p));
                    for (i, (count, law)) in counts.iter().zip(&law).enumerate() {
                        let share = POINTS as f64 * law.exp();
                        let text = format!("{name}, {cut:?}, {what}, outcome {i}: {count} of {share}");
                        assert!((count - share).abs() <= 1.01, "{text}");
                        assert!(law.is_finite() || *count == 0.0, "{text}: it was cut");
                    }
                }
            }
        }
    }
}

#[test]
fn ties_are_kept_by_top_k_and_cut_from_the_end_by_top_p() {
    let tied = [1.0f32, 3.0, 2.0, 3.0, 2.0, 2.0, 0.0];
    assert_eq!(truncation(Some(1), None).kept(&tied, 1.0).unwrap(), [1, 3]);
    assert_eq!(truncation(Some(3), None).kept(&tied, 1.0).unwrap(), [1, 2, 3, 4, 5]);
    // p(3) = 0.2905 each, p(2) = 0.1069 each: 0.7 needs two of the three.
    assert_eq!(truncation(None, Some(0.75)).kept(&tied, 1.0).unwrap(), [1, 2, 3, 4]);
    let flat = vec![0.7f32; 5_000];
    assert_eq!(truncation(Some(10), None).kept(&flat, 1.0).unwrap().len(), 5_000);
    assert_eq!(truncation(None, Some(0.5)).kept(&flat, 1.0).unwrap(), (0..2_500).collect::<Vec<_>>());
    assert_eq!(Truncation::GREEDY.kept(&flat, 1.0).unwrap(), [0]);
    // Two outcomes that q holds for equal, wherever the solver keeps them.
    let (mut p, mut t) = (gaussian(3_000, 1.0, 1), gaussian(3_000, 1.0, 2));
    for i in [17, 600, 2_999] {
        (p[i], t[i]) = (4.0, 4.1);
    }
    let draws: Vec<u32> = (0..200)
        .map(|i| {
            let uniform = (f64::from(i) + 0.5) / 200.0;
            let cut = truncation(Some(1), None);
            draw_truncated(&p, &t, &Rule::Q_STAR, &Temperature::ONE, &cut, uniform).unwrap().token
        })
        .collect();
    for i in [17, 600, 2_999] {
        let count = draws.iter().filter(|&&token| token == i).count();
        assert!((66..=67).contains(&count), "{i} was drawn {count} times of 200");
    }
}

#[test]
fn greedy_is_the_argmax_with_ties_to_the_lowest_id() {
    for seed in 0..50 {
        // Steps of 1/2: the largest value is often not the only one.
        let rough = |seed| gaussian(2_000, 1.0, seed).iter().map(|x| (x * 2.0).round() / 2.0).collect::<Vec<f32>>();
        let (p, t) = (rough(seed), rough(seed + 100));
        let argmax = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
        let sum: Vec<f32> = p.iter().zip(&t).map(|(p, t)| p + t).collect();
        for uniform in [0.0, 0.5, 0.999_999] {
            let drawn = draw_softmax_truncated(&p, 0.8, &Truncation::GREEDY, uniform).unwrap();
            assert_eq!((drawn.token, drawn.log_q), (argmax(&p), 0.0));
            let half = Rule::Fixed(0.5);
            let drawn = draw_truncated(&p, &t, &half, &Temperature::ONE, &Truncation::GREEDY, uniform).unwrap();
            assert_eq!(drawn.token, argmax(&sum));
            assert!(drawn.log_q.abs() < 1e-12, "{}", drawn.log_q);
        }
    }
}

#[test]
fn a_truncation_that_cuts_nothing_changes_no_bit() {
    let (p, t) = (gaussian(3_000, 2.0, 1), gaussian(3_000, 2.0, 2));
    for nothing in [Truncation::NONE, truncation(Some(3_000), None), truncation(Some(9_000), Some(1.0))] {
        for i in 0..100 {
            let uniform = f64::from(i) / 100.0;
            let drawn = draw_truncated(&p, &t, &Rule::Q_STAR, &Temperature::ONE, &nothing, uniform).unwrap();
            assert_eq!(drawn, draw(&p, &t, &Rule::Q_STAR, &Temperature::ONE, uniform).unwrap());
            assert_eq!(drawn.log_kept, 0.0);
            let drawn = draw_softmax_truncated(&p, 0.7, &nothing, uniform).unwrap();
            assert_eq!((drawn.token, drawn.log_q), draw_softmax(&p, 0.7, uniform).unwrap());
        }
    }
}

#[test]
fn what_cannot_be_kept_is_an_error() {
    let error = |top_k, top_p| truncation(top_k, top_p).kept(&[0.0, 1.0], 1.0).unwrap_err().to_string();
    assert!(error(Some(0), None).contains("top_k is 0"));
    for p in [0.0, -0.1, 1.000_001, f64::NAN, f64::INFINITY] {
        assert!(error(None, Some(p)).contains("top_p must lie in (0, 1]"), "{p}");
    }
    let of_q = |cut: Truncation, temperature: Temperature| {
        draw_truncated(&[0.0, 1.0], &[1.0, 0.0], &Rule::Q_STAR, &temperature, &cut, 0.5).unwrap_err().to_string()
    };
    assert!(of_q(truncation(Some(0), None), Temperature::ONE).contains("top_k is 0"));
    let cold = Temperature { mixture: f64::NAN, ..Temperature::ONE };
    assert!(of_q(Truncation::GREEDY, cold).contains("the temperature of the mixture"));
    assert!(Truncation::GREEDY.kept(&[0.0, f32::NAN], 1.0).unwrap_err().to_string().contains("NaN at outcome 1"));
    assert!(Truncation::GREEDY.kept(&[], 1.0).is_err());
    assert!(log_prob(&[0.0, 1.0], 2).unwrap_err().to_string().contains("token 2 is outside"));
}

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

/// One row, or a pair with its α, and what transformers left of it.
#[derive(Deserialize)]
struct Case {
    policy: Vec<f32>,
    target: Option<Vec<f32>>,
    alpha: Option<f64>,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    kept: Vec<u32>,
    log_probs: Vec<f64>,
}

#[test]
fn transformers_keeps_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/truncation.json");
    let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(fixture.cases.len() >= 30);
    for (number, case) in fixture.cases.iter().enumerate() {
        let cut = truncation(case.top_k, case.top_p);
        let mut drawn = std::collections::BTreeMap::new();
        for i in 0..2_000 {
            let uniform = (f64::from(i) + 0.5) / 2_000.0;
            let (token, log_q) = match (&case.target, case.alpha) {
                (Some(target), Some(alpha)) => {
                    let at = Temperature { mixture: case.temperature, ..Temperature::ONE };
                    let drawn = draw_truncated(&case.policy, target, &Rule::Fixed(alpha), &at, &cut, uniform).unwrap();
                    (drawn.token, drawn.log_q)
                }
                _ => {
                    let drawn = draw_softmax_truncated(&case.policy, case.temperature, &cut, uniform).unwrap();
                    (drawn.token, drawn.log_q)
                }
            };
            drawn.insert(token, log_q);
        }
        for (token, expected) in case.kept.iter().zip(&case.log_probs) {
            match drawn.remove(token) {
                // transformers computes in f32.
                Some(log_q) => assert!((log_q - expected).abs() < 1e-5, "case {number}: {log_q} {expected}"),
                None => assert!(expected.exp() < 1.0 / 2_000.0, "case {number}: {token} was never drawn"),
            }
        }
        assert!(drawn.is_empty(), "case {number}: {drawn:?} were cut by transformers");
        if case.target.is_none() {
            assert_eq!(cut.kept(&case.policy, case.temperature).unwrap(), case.kept, "case {number}");
        }
    }
}
