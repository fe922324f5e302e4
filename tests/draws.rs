//! The fused draw: its law is q, exactly, and what it says of a token is what enumeration says.

use proptest::prelude::*;
use qstar::mixture::{Pair, Rule, Solver, Start, Temperature, draw, draw_rows, draw_softmax, draw_softmax_rows};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};

fn gaussian(v: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..v)
        .map(|_| {
            let x: f32 = StandardNormal.sample(&mut rng);
            scale * x
        })
        .collect()
}

/// Pairs on every path through the solver: all head, head and tail, masks, nearly the same.
fn pairs() -> Vec<(&'static str, Vec<f32>, Vec<f32>)> {
    let near = |p: &[f32], gap: f32| p.iter().zip(gaussian(p.len(), gap, 9)).map(|(x, g)| x + g).collect::<Vec<_>>();
    let long = gaussian(3_003, 3.0, 3);
    let masked = |mut row: Vec<f32>, every: usize| {
        for x in row.iter_mut().step_by(every) {
            *x = f32::NEG_INFINITY;
        }
        row
    };
    vec![
        ("short", gaussian(40, 2.0, 1), gaussian(40, 2.0, 2)),
        ("long", long.clone(), gaussian(3_003, 3.0, 4)),
        ("flat", gaussian(2_400, 0.3, 5), gaussian(2_400, 0.3, 6)),
        ("small gap", long.clone(), near(&long, 1e-3)),
        ("masked", masked(long.clone(), 7), masked(near(&long, 1.0), 5)),
    ]
}

/// log q of every outcome, from f64 and by definition.
fn enumerate(p: &[f32], t: &[f32], alpha: f64, temperature: &Temperature) -> [Vec<f64>; 3] {
    let normalise = |row: Vec<f64>| -> Vec<f64> {
        let top = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
        let z = row.iter().map(|x| (x - top).exp()).sum::<f64>().ln() + top;
        row.iter().map(|x| x - z).collect()
    };
    let scaled = |row: &[f32], t: f64| normalise(row.iter().map(|&x| f64::from(x) / t).collect());
    let (p, t) = (scaled(p, temperature.policy), scaled(t, temperature.target));
    let mixed = p.iter().zip(&t).map(|(p, t)| {
        if p.is_finite() && t.is_finite() {
            (alpha * p + (1.0 - alpha) * t) / temperature.mixture
        } else {
            f64::NEG_INFINITY
        }
    });
    [normalise(mixed.collect()), p, t]
}

#[test]
fn a_million_draws_pass_a_chi_square_test() {
    const DRAWS: u64 = 1_000_000;
    for (name, p, t) in pairs() {
        for temperature in [Temperature::ONE, Temperature { policy: 1.3, target: 0.9, mixture: 0.7 }] {
            // A long row costs its solution for every draw: fewer draws there.
            let draws = if p.len() > 100 { DRAWS / 50 } else { DRAWS };
            let tokens: Vec<u32> = (0..draws)
                .into_par_iter()
                .map(|i| {
                    let uniform = ChaCha8Rng::seed_from_u64(i).random();
                    draw(&p, &t, &Rule::Q_STAR, &temperature, uniform).unwrap().token
                })
                .collect();
            let alpha = draw(&p, &t, &Rule::Q_STAR, &temperature, 0.5).unwrap().solution.alpha;
            let [log_q, ..] = enumerate(&p, &t, alpha, &temperature);
            let mut counts = vec![0u64; p.len()];
            for token in tokens {
                counts[token as usize] += 1;
            }
            // Outcomes with few expected draws share one cell.
            let (mut chi2, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
            for (count, log_q) in counts.iter().zip(&log_q) {
                let expected = draws as f64 * log_q.exp();
                assert!(expected > 0.0 || *count == 0, "{name}: a token without mass was drawn");
                if expected >= 10.0 {
                    chi2 += (*count as f64 - expected).powi(2) / expected;
                    cells += 1;
                } else {
                    rest = (rest.0 + *count as f64, rest.1 + expected);
                }
            }
            if rest.1 >= 10.0 {
                chi2 += f64::powi(rest.0 - rest.1, 2) / rest.1;
                cells += 1;
            }
            let p_value = 1.0 - ChiSquared::new(f64::from(cells - 1)).unwrap().cdf(chi2);
            assert!(p_value > 1e-3, "{name}: chi2 {chi2} with {cells} cells, p = {p_value}");
        }
    }
}

/// Inversion at evenly spaced points gives every outcome its share to one point: the law itself, without noise.
#[test]
fn the_law_of_the_draw_is_q() {
    const POINTS: u64 = 8_000;
    for (name, p, t) in pairs() {
        for mixture in [1.0, 0.7, 1.3, 0.4, 0.02] {
            let temperature = Temperature { mixture, ..Temperature::ONE };
            let counts = (0..POINTS)
                .into_par_iter()
                .fold(
                    || vec![0.0; p.len()],
                    |mut counts, i| {
                        let uniform = (i as f64 + 0.5) / POINTS as f64;
                        counts[draw(&p, &t, &Rule::Fixed(0.4), &temperature, uniform).unwrap().token as usize] += 1.0;
                        counts
                    },
                )
                .reduce(|| vec![0.0; p.len()], |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
            let [log_q, ..] = enumerate(&p, &t, 0.4, &temperature);
            for (i, (count, log_q)) in counts.iter().zip(&log_q).enumerate() {
                let share = POINTS as f64 * log_q.exp();
                assert!((count - share).abs() <= 1.01, "{name} at {mixture}, outcome {i}: {count} of {share}");
            }
        }
    }
}

#[test]
fn what_a_draw_says_is_what_enumeration_says() {
    for (name, p, t) in pairs() {
        for temperature in [
            Temperature::ONE,
            Temperature { policy: 0.8, target: 1.2, mixture: 1.0 },
            Temperature { policy: 1.0, target: 1.0, mixture: 0.7 },
            Temperature { policy: 1.0, target: 1.0, mixture: 1.3 },
        ] {
            for uniform in [0.0, 0.1, 0.5, 0.9, 0.999_999_999] {
                let drawn = draw(&p, &t, &Rule::Q_STAR, &temperature, uniform).unwrap();
                let [log_q, log_p, log_t] = enumerate(&p, &t, drawn.solution.alpha, &temperature);
                let i = drawn.token as usize;
                let near = |a: f64, b: f64, what: &str| {
                    assert!(
                        a == b || (a - b).abs() < 2e-6 * (1.0 + b.abs()),
                        "{name}, {temperature:?}: {what} {a} is not {b}"
                    )
                };
                near(drawn.log_q, log_q[i], "log q");
                near(drawn.log_p, log_p[i], "log p");
                near(drawn.log_t, log_t[i], "log t");
                // The diagnostics of the tempered q, by their definitions.
                let s = drawn.solution;
                let support: Vec<usize> = (0..p.len()).filter(|&i| log_q[i].is_finite()).collect();
                let sum = |f: &dyn Fn(usize) -> f64| support.iter().map(|&i| f(i)).sum::<f64>();
                near(s.entropy_q, -sum(&|i| log_q[i].exp() * log_q[i]), "H(q)");
                near(s.kl_p, sum(&|i| log_q[i].exp() * (log_q[i] - log_p[i])), "KL(q|p)");
                near(s.kl_t, sum(&|i| log_q[i].exp() * (log_q[i] - log_t[i])), "KL(q|t)");
                let ess = |log_side: &[f64]| {
                    let whole = (0..p.len()).all(|i| log_side[i] == f64::NEG_INFINITY || log_q[i].is_finite());
                    if whole { -sum(&|i| (2.0 * log_side[i] - log_q[i]).exp()).ln() } else { f64::NEG_INFINITY }
                };
                near(s.log_ess_p, ess(&log_p), "log ESS_p");
                near(s.log_ess_t, ess(&log_t), "log ESS_t");
                let total_variation =
                    0.5 * log_p.iter().zip(&log_t).map(|(p, t)| (p.exp() - t.exp()).abs()).sum::<f64>();
                near(s.total_variation, total_variation, "total variation");
            }
        }
    }
}

/// A reference far from the mean of d, and a temperature that multiplies that distance.
#[test]
fn a_cold_draw_keeps_its_law() {
    for scale in [1.0, 3.0] {
        let (mut p, mut t) = (gaussian(3_003, scale, 21), gaussian(3_003, scale, 22));
        (p[0], t[0]) = (3.0 * scale, 13.0);
        for mixture in [0.05, 0.02, 0.01] {
            let temperature = Temperature { mixture, ..Temperature::ONE };
            let [log_q, ..] = enumerate(&p, &t, 0.5, &temperature);
            let points = 2_000;
            let mut counts = vec![0.0; p.len()];
            for i in 0..points {
                let uniform = (f64::from(i) + 0.5) / f64::from(points);
                let drawn = draw(&p, &t, &Rule::Fixed(0.5), &temperature, uniform).unwrap();
                counts[drawn.token as usize] += 1.0;
                assert!((drawn.log_q - log_q[drawn.token as usize]).abs() < 1e-3);
            }
            for (count, log_q) in counts.iter().zip(&log_q) {
                assert!((count - f64::from(points) * log_q.exp()).abs() <= 1.5);
            }
        }
    }
}

#[test]
fn rows_are_drawn_one_by_one() {
    let (p, t) = (gaussian(3 * 2_500, 2.0, 1), gaussian(3 * 2_500, 2.0, 2));
    let uniforms = [0.2, 0.6, 0.95];
    let rows = draw_rows(&p, &t, 2_500, &Rule::Q_STAR, &Temperature::ONE, &uniforms).unwrap();
    for (row, drawn) in rows.iter().enumerate() {
        let place = row * 2_500..(row + 1) * 2_500;
        let alone = draw(&p[place.clone()], &t[place], &Rule::Q_STAR, &Temperature::ONE, uniforms[row]).unwrap();
        assert_eq!(*drawn, alone);
    }
    let mut bad = p.clone();
    bad[2_600] = f32::NAN;
    let error = format!("{:#}", draw_rows(&bad, &t, 2_500, &Rule::Q_STAR, &Temperature::ONE, &uniforms).unwrap_err());
    assert!(error.contains("row 1") && error.contains("policy row has NaN at outcome 100"), "{error}");
    let zero = Temperature { mixture: 0.0, ..Temperature::ONE };
    assert!(draw(&[0.0, 1.0], &[1.0, 0.0], &Rule::Q_STAR, &zero, 0.5).unwrap_err().to_string().contains("temperature"));
    assert!(draw_rows(&p, &t, 1_400, &Rule::Q_STAR, &Temperature::ONE, &uniforms).is_err());
}

#[test]
fn a_draw_from_one_row_has_the_law_of_its_softmax() {
    for (v, scale, temperature) in [(3, 1.0, 1.0), (700, 2.0, 0.7), (3_003, 3.0, 1.0)] {
        let row = gaussian(v, scale, 8);
        let points = 50_000;
        let uniforms: Vec<f64> = (0..points).map(|i| (f64::from(i) + 0.5) / f64::from(points)).collect();
        let drawn: Vec<(u32, f64)> =
            uniforms.par_iter().map(|&u| draw_softmax(&row, temperature, u).unwrap()).collect();
        let one = Temperature { policy: temperature, ..Temperature::ONE };
        let [_, log_p, _] = enumerate(&row, &row, 0.5, &one);
        let mut counts = vec![0.0; v];
        for (token, log_prob) in drawn {
            counts[token as usize] += 1.0;
            assert!((log_prob - log_p[token as usize]).abs() < 1e-6);
        }
        for (count, log_p) in counts.iter().zip(&log_p) {
            assert!((count - f64::from(points) * log_p.exp()).abs() <= 1.01);
        }
    }
    for place in [0, 17, 600, 3_002] {
        let mut row = gaussian(3_003, 1.0, 8);
        row[place] = f32::NAN;
        let error = draw_softmax(&row, 1.0, 0.5).unwrap_err().to_string();
        assert!(error.contains(&format!("NaN at outcome {place}")), "{error}");
    }
    // A first block without any mass.
    let mut late = vec![f32::NEG_INFINITY; 600];
    late[550] = 1.0;
    assert_eq!(draw_softmax(&late, 1.0, 0.0).unwrap(), (550, 0.0));
    assert!(draw_softmax(&late, 1.0, 1.0).unwrap_err().to_string().contains("[0, 1)"));
    assert!(draw_softmax(&[0.0, f32::NAN], 1.0, 0.5).unwrap_err().to_string().contains("NaN at outcome 1"));
    assert!(draw_softmax(&[f32::NEG_INFINITY; 3], 1.0, 0.5).unwrap_err().to_string().contains("no mass"));
    assert!(draw_softmax(&[], 1.0, 0.5).is_err());
    assert!(
        format!("{:#}", draw_softmax_rows(&[0.0, f32::INFINITY], 1, 1.0, &[0.1, 0.1]).unwrap_err()).contains("row 1")
    );
    // A token without mass is never drawn, wherever the point lies.
    let masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    for uniform in [0.0, 0.5, 1.0 - f64::EPSILON] {
        assert_eq!(draw_softmax(&masked, 1.0, uniform).unwrap().0, 1);
        assert_eq!(draw(&masked, &masked, &Rule::Q_STAR, &Temperature::ONE, uniform).unwrap().token, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Every start and both steps end at the same root.
    #[test]
    fn every_start_finds_the_same_root(seed in 0u64..1_000, v in 2usize..3_000, scale in 0.2f32..8.0) {
        let (p, t) = (gaussian(v, scale, seed), gaussian(v, scale, seed + 1_000));
        let pair = Pair::from_logits(&p, &t).unwrap();
        let right = pair.solve(&Rule::Q_STAR).unwrap().alpha;
        for start in [Start::Ends, Start::Entropy, Start::Table, Start::At(0.5), Start::At(0.0), Start::At(1.0)] {
            for solver in [Solver::Hermite(start), Solver::Newton(start)] {
                let found = pair.solve(&Rule::KlSymmetry(solver)).unwrap();
                prop_assert!((found.alpha - right).abs() < 1e-6, "{solver:?}: {} {right}", found.alpha);
            }
        }
    }
}
