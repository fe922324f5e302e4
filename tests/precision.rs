//! The solver against 50 digits: 12,300 pairs, generated here, whose exact values `tests/fixtures/mixture_50_digits.py`
//! computed. To make the values again (some ten minutes on two cores):
//!
//! ```text
//! cargo test --release --test precision -- --ignored write_the_pairs
//! python tests/fixtures/mixture_50_digits.py target/pairs.bin tests/fixtures/mixture_50_digits.csv
//! ```

use std::io::Write;
use std::path::Path;

use qstar::mixture::{Pair, Rule, Status};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Pairs of f32, of every kind and of 2 to 256,000 outcomes.
const F32_PAIRS: u32 = 10_000;
/// Pairs whose numbers need f64.
const F64_PAIRS: u32 = 2_000;
/// Pairs of f32 whose target is the policy tilted by a reward, softly and hard.
const TILTED_PAIRS: u32 = 300;
const ALL_PAIRS: u32 = F32_PAIRS + F64_PAIRS + TILTED_PAIRS;

struct Case {
    kind: &'static str,
    /// Whether every number is one of f32.
    f32: bool,
    policy: Vec<f64>,
    target: Vec<f64>,
}

fn case(id: u32) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(id));
    let tilted = id >= F32_PAIRS + F64_PAIRS;
    let f32 = id < F32_PAIRS || tilted;
    let log_uniform = |rng: &mut ChaCha8Rng, low: f64, high: f64| low * (high / low).powf(rng.random::<f64>());
    let large = if f32 { id.is_multiple_of(100) } else { id.is_multiple_of(400) };
    let (low, high) = if large { (50_000.0, 256_001.0) } else { (2.0, 4_096.0) };
    let v = log_uniform(&mut rng, low, high) as usize;
    let gaussian = |rng: &mut ChaCha8Rng| -> f64 { StandardNormal.sample(rng) };
    let scale = log_uniform(&mut rng, 0.1, 12.0);
    let normal = |rng: &mut ChaCha8Rng, scale: f64| -> Vec<f64> { (0..v).map(|_| scale * gaussian(rng)).collect() };
    let none = f64::NEG_INFINITY;
    let (kind, mut policy, mut target) = match id % 10 {
        _ if tilted => {
            let beta = log_uniform(&mut rng, 1e-3, 1.0);
            let rare = rng.random::<bool>().then(|| 0.5 * rng.random::<f64>());
            let p = normal(&mut rng, scale);
            let reward = |rng: &mut ChaCha8Rng| {
                let x = rng.random::<f64>();
                rare.map_or(x, |share| f64::from(u8::from(x < share)))
            };
            let t = p.iter().map(|x| x + reward(&mut rng) / beta).collect();
            ("tilted", p, t)
        }
        0 => {
            let mut row = || (0..v).map(|_| scale * (rng.random::<f64>() - 0.5)).collect();
            ("uniform", row(), row())
        }
        1 | 2 => ("gaussian", normal(&mut rng, scale), normal(&mut rng, scale)),
        3 => {
            let exponent = log_uniform(&mut rng, 0.5, 3.0);
            let ranks = |rng: &mut ChaCha8Rng| -> Vec<f64> {
                (0..v).map(|_| -exponent * (1.0 + (v as f64) * rng.random::<f64>()).ln()).collect()
            };
            ("zipf", ranks(&mut rng), ranks(&mut rng))
        }
        4 => {
            let (mut p, mut t) = (normal(&mut rng, 0.1), normal(&mut rng, 0.1));
            p[rng.random_range(0..v)] += log_uniform(&mut rng, 3.0, 60.0);
            t[rng.random_range(0..v)] += log_uniform(&mut rng, 3.0, 60.0);
            ("one_hot_like", p, t)
        }
        5 => {
            let top = rng.random_range(0..v);
            let (mut p, mut t) = (normal(&mut rng, 1.0), normal(&mut rng, 1.0));
            p[top] += log_uniform(&mut rng, 5.0, 40.0);
            t[top] += log_uniform(&mut rng, 5.0, 40.0);
            ("nearly_certain", p, t)
        }
        6 => {
            let (mut p, mut t) = (normal(&mut rng, scale), normal(&mut rng, scale));
            for i in 1..v {
                if rng.random::<f64>() < 0.3 {
                    (p[i], t[i]) = (none, none);
                }
            }
            ("shared_zeros", p, t)
        }
        7 => {
            let (mut p, mut t) = (normal(&mut rng, scale), normal(&mut rng, scale));
            let share = 0.3 * rng.random::<f64>();
            for i in 1..v {
                if rng.random::<f64>() < share {
                    if rng.random() { p[i] = none } else { t[i] = none }
                }
            }
            ("partial_supports", p, t)
        }
        _ => {
            // Step 0 of a training: two models that hardly differ.
            let gap = log_uniform(&mut rng, 1e-4, 0.1);
            let p = normal(&mut rng, scale);
            let t = p.iter().map(|x| x + gap * gaussian(&mut rng)).collect();
            ("small_gap", p, t)
        }
    };
    if f32 {
        for x in policy.iter_mut().chain(&mut target) {
            *x = f64::from(*x as f32);
        }
    }
    Case { kind, f32, policy, target }
}

#[test]
#[ignore = "writes the input of the script that computes the 50 digits"]
fn write_the_pairs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pairs.bin");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for id in 0..ALL_PAIRS {
        let case = case(id);
        let bits: u32 = if case.f32 { 32 } else { 64 };
        for word in [id, bits, case.policy.len() as u32] {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        for &x in case.policy.iter().chain(&case.target) {
            if case.f32 {
                file.write_all(&(x as f32).to_le_bytes()).unwrap();
            } else {
                file.write_all(&x.to_le_bytes()).unwrap();
            }
        }
    }
    println!("{}", path.display());
}

struct Exact {
    status: Status,
    alpha: f64,
    k: f64,
    k2: f64,
    status_ess: Status,
    alpha_ess: f64,
    log_ess_p: f64,
    log_ess_t: f64,
    total_variation: f64,
}

fn exact() -> Vec<Exact> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mixture_50_digits.csv");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let status = |s: &str| match s {
        "ok" => Status::Ok,
        "same" => Status::Same,
        "no_root" => Status::NoRoot,
        other => panic!("unknown status {other}"),
    };
    let rows = text.lines().skip(1).enumerate().map(|(i, line)| {
        let field: Vec<&str> = line.split(',').collect();
        assert_eq!(field[0], i.to_string(), "the rows are in order");
        let number = |i: usize| field[i].parse::<f64>().unwrap_or_else(|e| panic!("{line}: {e}"));
        // A single outcome in common: every alpha gives the same q, which the script calls `same`. Here only equal
        // distributions are.
        let status = |s: &str| if s == "same" && number(5) != 0.0 { Status::NoRoot } else { status(s) };
        Exact {
            status: status(field[3]),
            alpha: number(4),
            k: number(5),
            k2: number(6),
            status_ess: status(field[7]),
            alpha_ess: number(8),
            log_ess_p: number(9),
            log_ess_t: number(10),
            total_variation: number(11),
        }
    });
    rows.collect()
}

/// What one pair missed its exact values by.
struct Errors {
    kind: &'static str,
    wrong_status: bool,
    /// sd_q(d) at q*.
    sd: f64,
    /// α of q* and of ESS balance from f64 numbers.
    alpha_64: f64,
    alpha_ess_64: f64,
    /// K and log ESS from f64 numbers, relative to the larger of 1e-3 and their size.
    k_64: f64,
    /// From f32 numbers, where the pair has them: α where sd_q(d) is 0.1 or more, total variation of q,
    /// |K'| / max(−K, sd_q(d)), α of ESS balance, and the total variation between p and t.
    alpha_32: f64,
    q_32: f64,
    k1_32: f64,
    alpha_ess_32: f64,
    total_variation_32: f64,
    log_ess_32: f64,
    iterations: u32,
}

fn errors(case: &Case, exact: &Exact) -> Errors {
    let sd = exact.k2.sqrt();
    let pair = Pair::from_logits_f64(&case.policy, &case.target).unwrap();
    let q = pair.solve(&Rule::Q_STAR).unwrap();
    let ess = pair.solve(&Rule::EssBalance).unwrap();
    let relative = |found: f64, exact: f64| {
        if found == exact { 0.0 } else { (found - exact).abs() / exact.abs().max(1e-3) }
    };
    let mut errors = Errors {
        kind: case.kind,
        sd,
        wrong_status: q.status != exact.status || ess.status != exact.status_ess,
        alpha_64: (q.alpha - exact.alpha).abs(),
        alpha_ess_64: (ess.alpha - exact.alpha_ess).abs(),
        k_64: [(q.k, exact.k), (q.log_ess_p, exact.log_ess_p), (q.log_ess_t, exact.log_ess_t)]
            .into_iter()
            .fold(0.0, |worst, (found, exact)| worst.max(relative(found, exact))),
        alpha_32: 0.0,
        q_32: 0.0,
        k1_32: 0.0,
        alpha_ess_32: 0.0,
        total_variation_32: 0.0,
        log_ess_32: 0.0,
        iterations: 0,
    };
    if case.f32 {
        let narrow = |row: &[f64]| row.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let pair_32 = Pair::from_logits(&narrow(&case.policy), &narrow(&case.target)).unwrap();
        let q = pair_32.solve(&Rule::Q_STAR).unwrap();
        let ess = pair_32.solve(&Rule::EssBalance).unwrap();
        errors.wrong_status |= q.status != exact.status || ess.status != exact.status_ess;
        errors.alpha_32 = if sd >= 0.1 { (q.alpha - exact.alpha).abs() } else { 0.0 };
        let (found, right) = (pair_32.log_q(q.alpha), pair.log_q(exact.alpha));
        errors.q_32 = 0.5 * found.iter().zip(&right).map(|(a, b)| (a.exp() - b.exp()).abs()).sum::<f64>();
        if exact.status == Status::Ok {
            errors.k1_32 = pair.moments(q.alpha).k1.abs() / f64::max(-exact.k, sd);
        }
        errors.alpha_ess_32 = if sd >= 0.1 { (ess.alpha - exact.alpha_ess).abs() } else { 0.0 };
        errors.total_variation_32 = (q.total_variation - exact.total_variation).abs();
        errors.log_ess_32 =
            relative(q.log_ess_p, exact.log_ess_p).max(relative(q.log_ess_t, exact.log_ess_t)) * f64::from(sd >= 0.1);
        errors.iterations = q.iterations;
    }
    errors
}

#[test]
fn every_pair_against_50_digits() {
    let exact = exact();
    assert_eq!(exact.len() as u32, ALL_PAIRS);
    let all: Vec<Errors> = (0..exact.len()).into_par_iter().map(|id| errors(&case(id as u32), &exact[id])).collect();
    println!(
        "{:>17} {:>6} {:>9} {:>9} {:>9} | {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>5}",
        "worst", "pairs", "a64", "aESS64", "K,ESS64", "a32", "TV(q)32", "K'32", "aESS32", "TV(p,t)32", "ESS32", "steps"
    );
    let kinds: std::collections::BTreeSet<&str> = all.iter().map(|e| e.kind).collect();
    let worst = |kind: &str, of: &dyn Fn(&Errors) -> f64| {
        all.iter()
            .filter(|e| kind == "all" || e.kind == kind)
            .map(of)
            .fold(0.0, |worst, x| if x.is_nan() { f64::NAN } else { f64::max(worst, x) })
    };
    for kind in kinds.iter().copied().chain(["all"]) {
        let count = all.iter().filter(|e| kind == "all" || e.kind == kind).count();
        println!(
            "{kind:>17} {count:>6} {:>9.1e} {:>9.1e} {:>9.1e} | {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>5}",
            worst(kind, &|e| e.alpha_64),
            worst(kind, &|e| e.alpha_ess_64),
            worst(kind, &|e| e.k_64),
            worst(kind, &|e| e.alpha_32),
            worst(kind, &|e| e.q_32),
            worst(kind, &|e| e.k1_32),
            worst(kind, &|e| e.alpha_ess_32),
            worst(kind, &|e| e.total_variation_32),
            worst(kind, &|e| e.log_ess_32),
            worst(kind, &|e| f64::from(e.iterations)),
        );
    }
    let wrong: Vec<usize> = (0..all.len()).filter(|&id| all[id].wrong_status).collect();
    assert!(wrong.is_empty(), "a wrong status at {wrong:?}");
    let at_most = |name: &str, bound: f64, of: &dyn Fn(&Errors) -> f64| {
        for (id, e) in all.iter().enumerate() {
            assert!(of(e) <= bound, "{name} of pair {id} ({}) is off by {:e}", e.kind, of(e));
        }
    };
    // One tilted pair has an sd_q(d) of 2e-7, where f64 itself leaves α only nine digits: 1e-16 / sd_q(d).
    let f64_digits = |e: &Errors| f64::max(1.0, 1e-5 / e.sd);
    at_most("alpha (f64)", 1e-10, &|e| e.alpha_64 / f64_digits(e));
    at_most("alpha of ESS balance (f64)", 1e-10, &|e| e.alpha_ess_64 / f64_digits(e));
    at_most("K and log ESS (f64)", 1e-9, &|e| e.k_64);
    at_most("log ESS (f32)", 2e-5, &|e| e.log_ess_32);
    at_most("alpha (f32)", 1e-6, &|e| e.alpha_32);
    at_most("q (f32)", 1e-6, &|e| e.q_32);
    at_most("K' (f32)", 1e-6, &|e| e.k1_32);
    at_most("alpha of ESS balance (f32)", 1e-6, &|e| e.alpha_ess_32);
    at_most("total variation (f32)", 1e-6, &|e| e.total_variation_32);
}
