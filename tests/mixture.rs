//! The reference values of the mixture, its degenerate cases, and what holds for every pair.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use qstar::mixture::{Pair, Rule, Solver, Start, Status, solve_batch, solve_rows};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn softmax(logits: &[f64]) -> Vec<f64> {
    let z: f64 = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - z).collect()
}

fn logs(p: &[f64]) -> Vec<f64> {
    p.iter().map(|x| x.ln()).collect()
}

struct Reference {
    p: Vec<f64>,
    t: Vec<f64>,
    alpha_kl: f64,
    /// −K(α_KL), both divergences.
    divergence: f64,
    alpha_ess: f64,
    alpha_entropy: f64,
    ess_ratio: f64,
}

/// Computed to 50 digits, independently of this library.
fn references() -> Vec<Reference> {
    let mut peaked = vec![0.0; 10];
    peaked[0] = 10.0;
    let row = |p, t, [alpha_kl, divergence, alpha_ess, alpha_entropy, ess_ratio]: [f64; 5]| Reference {
        p,
        t,
        alpha_kl,
        divergence,
        alpha_ess,
        alpha_entropy,
        ess_ratio,
    };
    vec![
        row(logs(&[0.7, 0.3]), logs(&[0.3, 0.7]), [0.5, 0.0871766936, 0.5, 0.5, 1.0]),
        row(logs(&[0.9, 0.1]), logs(&[0.4, 0.6]), [0.4603839139, 0.1696041811, 0.3936329, 0.3257036, 1.148215]),
        row(
            softmax(&[3.0, 2.0, 1.0, 0.5, 0.2]),
            softmax(&[0.5, 1.0, 2.0, 3.0, 2.0]),
            [0.5155164031, 0.4283865683, 0.5357477, 0.4635288, 0.9171095],
        ),
        row(softmax(&peaked), softmax(&[0.0; 10]), [0.3404307181, 1.2572059913, 0.239707, 0.001947416, 2.7206299]),
    ]
}

/// Agreement to the digits that the table shows.
fn close(found: f64, expected: f64, unit: f64) {
    assert!((found - expected).abs() <= 0.5 * unit + 1e-15, "{found} is not {expected}");
}

#[test]
fn the_reference_table() {
    for r in references() {
        let pair = Pair::from_log_probs(&r.p, &r.t).unwrap();
        let q = pair.solve(&Rule::Q_STAR).unwrap();
        assert_eq!(q.status, Status::Ok);
        close(q.alpha, r.alpha_kl, 1e-10);
        close(-q.k, r.divergence, 1e-10);
        close(q.kl_p, r.divergence, 1e-10);
        close(q.kl_t, r.divergence, 1e-10);
        let unit = if r.ess_ratio > 2.0 || r.ess_ratio < 1.0 { 1e-7 } else { 1e-6 };
        close((q.log_ess_p - q.log_ess_t).exp(), r.ess_ratio, unit);
        let unit = if r.alpha_ess < 0.3 { 1e-6 } else { 1e-7 };
        let ess = pair.solve(&Rule::EssBalance).unwrap();
        close(ess.alpha, r.alpha_ess, unit);
        assert!((ess.log_ess_p - ess.log_ess_t).abs() < 1e-12);
        let unit = if r.alpha_entropy < 0.1 { 1e-9 } else { 1e-7 };
        close(pair.solve(&Rule::Entropy).unwrap().alpha, r.alpha_entropy, unit);
    }
}

/// The definitions of section 1 of the design, by plain sums over probabilities.
#[test]
fn every_diagnostic_is_what_its_definition_says() {
    for r in references() {
        let pair = Pair::from_log_probs(&r.p, &r.t).unwrap();
        for alpha in [0.0, 0.2, 0.5, 0.9, 1.0] {
            let s = pair.solve(&Rule::Fixed(alpha)).unwrap();
            let log_q = pair.log_q(alpha);
            let sum = |f: &dyn Fn(usize) -> f64| (0..r.p.len()).map(f).sum::<f64>();
            let q = |i: usize| log_q[i].exp();
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} {b}");
            near(sum(&q), 1.0);
            near(s.k, sum(&|i| (alpha * r.p[i] + (1.0 - alpha) * r.t[i]).exp()).ln());
            let d = |i: usize| r.p[i] - r.t[i];
            near(s.k1, sum(&|i| q(i) * d(i)));
            near(s.k2, sum(&|i| q(i) * d(i).powi(2)) - s.k1.powi(2));
            near(s.kl_p, sum(&|i| q(i) * (log_q[i] - r.p[i])));
            near(s.kl_t, sum(&|i| q(i) * (log_q[i] - r.t[i])));
            near(s.log_ess_p, -sum(&|i| (2.0 * r.p[i]).exp() / q(i)).ln());
            near(s.log_ess_t, -sum(&|i| (2.0 * r.t[i]).exp() / q(i)).ln());
            near(s.entropy_p, -sum(&|i| r.p[i].exp() * r.p[i]));
            near(s.entropy_t, -sum(&|i| r.t[i].exp() * r.t[i]));
            near(s.entropy_q, -sum(&|i| q(i) * log_q[i]));
            for i in 0..r.p.len() {
                let (log_p, log_t) = pair.log_probs_of(i);
                near(log_p, r.p[i]);
                near(log_t, r.t[i]);
            }
        }
    }
}

#[test]
fn bisection_halves_its_error_every_round() {
    for r in references() {
        let pair = Pair::from_log_probs(&r.p, &r.t).unwrap();
        let exact = pair.solve(&Rule::Q_STAR).unwrap().alpha;
        for rounds in [5, 10, 20, 50] {
            let s = pair.solve(&Rule::KlSymmetry(Solver::Bisection(rounds))).unwrap();
            assert!((s.alpha - exact).abs() <= 0.5f64.powi(rounds as i32 + 1) + 1e-14);
            assert_eq!(s.iterations, rounds);
        }
    }
}

#[test]
fn equal_distributions_have_one_answer() {
    let p = softmax(&[0.3, -1.0, 2.0]);
    for rule in [Rule::Q_STAR, Rule::EssBalance, Rule::KlSymmetry(Solver::Bisection(20))] {
        let s = Pair::from_log_probs(&p, &p).unwrap().solve(&rule).unwrap();
        assert_eq!((s.alpha, s.status), (0.5, Status::Same));
        assert!(s.kl_p < 1e-15 && s.kl_t < 1e-15 && s.log_ess_p.abs() < 1e-15 && s.log_ess_t.abs() < 1e-15);
    }
    // Entropies of zero on both sides.
    let one = [0.0, f64::NEG_INFINITY];
    assert_eq!(Pair::from_log_probs(&one, &one).unwrap().solve(&Rule::Entropy).unwrap().alpha, 0.5);
}

/// K'' at 1/2 is below every threshold here, and yet the two are as different as can be.
#[test]
fn a_hard_tilt_is_not_taken_for_equality() {
    for beta in [1e-2, 1e-3, 1e-4] {
        let p = logs(&[0.01, 0.99]);
        let z = (0.01f64.ln() + 1.0 / beta).exp().min(f64::MAX).ln();
        let t = [(0.01f64.ln() + 1.0 / beta) - z, 0.99f64.ln() - z];
        let t =
            if z.is_finite() && z < 700.0 { softmax(&t) } else { vec![0.0, 0.99f64.ln() - 0.01f64.ln() - 1.0 / beta] };
        for rule in [Rule::Q_STAR, Rule::KlSymmetry(Solver::Newton(Start::At(0.5)))] {
            let s = Pair::from_log_probs(&p, &t).unwrap().solve(&rule).unwrap();
            assert_eq!(s.status, Status::Ok);
            assert!((s.kl_p - s.kl_t).abs() < 1e-9 * s.kl_p && s.kl_p > 0.1, "{beta}: {s:?}");
        }
    }
}

/// One token's logit raised in a long row of equal ones.
#[test]
fn one_token_of_many_makes_the_difference() {
    let mut t = vec![0.0f32; 2_000];
    t[1_000] = 0.69;
    let mut p = t.clone();
    p[1_000] += 3.0;
    let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let exact = Pair::from_logits_f64(&wide(&p), &wide(&t)).unwrap().solve(&Rule::Q_STAR).unwrap();
    for start in [Start::Ends, Start::At(0.9)] {
        let s = Pair::from_logits(&p, &t).unwrap().solve(&Rule::KlSymmetry(Solver::Hermite(start))).unwrap();
        assert!((s.alpha - exact.alpha).abs() < 1e-6 && (s.k - exact.k).abs() < 1e-7, "{s:?} {exact:?}");
    }
}

/// What frameworks write into masked logits all means the same as −∞.
#[test]
fn masks_of_every_kind_are_no_mass() {
    for size in [40, 3_000] {
        for shared in [true, false] {
            let masked = |value: f32| {
                let mut rng = ChaCha8Rng::seed_from_u64(7);
                let mut p: Vec<f32> = (0..size).map(|_| 4.0 * rng.random::<f32>() - 40.0).collect();
                let mut t: Vec<f32> = (0..size).map(|_| 4.0 * rng.random::<f32>() - 40.0).collect();
                for i in (size / 2..size).step_by(3) {
                    p[i] = value;
                    if shared {
                        t[i] = value;
                    }
                }
                Pair::from_logits(&p, &t).unwrap()
            };
            let right = masked(f32::NEG_INFINITY);
            for value in [-1e9, -1e10, -1e18, -1e30, -1e38, f32::MIN] {
                let pair = masked(value);
                for rule in [Rule::Q_STAR, Rule::Entropy, Rule::EssBalance, Rule::SnrMax] {
                    let (a, b) = (pair.solve(&rule).unwrap(), right.solve(&rule).unwrap());
                    let near = |a: f64, b: f64| a == b || (a - b).abs() < 1e-5;
                    assert!(
                        a.status == b.status
                            && near(a.alpha, b.alpha)
                            && near(a.entropy_p, b.entropy_p)
                            && near(a.entropy_q, b.entropy_q)
                            && near(a.log_ess_t, b.log_ess_t)
                            && near(a.total_variation, b.total_variation),
                        "{value} of {size}, {rule:?}: {a:?} {b:?}"
                    );
                }
                assert_eq!(pair.log_q(0.0)[size / 2], f64::NEG_INFINITY);
            }
        }
    }
}

#[test]
fn the_signal_to_noise_rule() {
    let all = references();
    for (i, r) in all.iter().enumerate() {
        let pair = Pair::from_log_probs(&r.p, &r.t).unwrap();
        let s = pair.solve(&Rule::SnrMax).unwrap();
        if i == 2 {
            // Computed to 40 digits.
            close(pair.snr(0.0), 1.261938856632437, 1e-14);
            close(pair.snr(1.0), 2.012142567775547, 1e-14);
            assert_eq!((s.alpha, s.status), (1.0, Status::Ok));
        } else {
            // d takes two values only.
            assert!((pair.snr(0.0) - pair.snr(0.77)).abs() < 1e-9 * pair.snr(0.0));
            assert_eq!((s.alpha, s.status), (pair.solve(&Rule::Q_STAR).unwrap().alpha, Status::Flat));
        }
    }
    // Mostly a corner solution: with the policy as reference in nearly every pair, with a random one in most.
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut row = || softmax(&std::array::from_fn::<f64, 4, _>(|_| 4.0 * rng.random::<f64>() - 2.0));
    let mut inside = [0, 0];
    for _ in 0..400 {
        let pair = Pair::from_log_probs(&row(), &row()).unwrap();
        let with_reference = pair.clone().with_reference(&row()).unwrap();
        for (inside, pair) in inside.iter_mut().zip([pair, with_reference]) {
            let best = pair.solve(&Rule::SnrMax).unwrap();
            *inside += usize::from(best.alpha > 1e-6 && best.alpha < 1.0 - 1e-6);
            for i in 0..=20 {
                assert!(pair.snr(f64::from(i) / 20.0) <= pair.snr(best.alpha) * (1.0 + 1e-9));
            }
        }
    }
    assert!(inside[0] <= 4, "{inside:?} of 400 inside");
    assert!((40..140).contains(&inside[1]), "{inside:?} of 400 inside");
}

#[test]
fn a_batch_is_its_rows() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (shape, v) = ((2, 3, 700), 700);
    let mut tensor = |dtype| {
        let values: Vec<f32> = (0..2 * 3 * v).map(|_| 6.0 * rng.random::<f32>() - 3.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let (p, t) = (tensor(dtype), tensor(dtype));
        let batch = solve_batch(&p, &t, &Rule::Q_STAR).unwrap();
        assert_eq!(batch.shape, [2, 3]);
        let rows = |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_to(1).unwrap().to_vec2::<f64>().unwrap();
        for ((p, t), s) in rows(&p).iter().zip(&rows(&t)).zip(&batch.solutions) {
            let alone = Pair::from_logits_f64(p, t).unwrap().solve(&Rule::Q_STAR).unwrap();
            assert!((alone.alpha - s.alpha).abs() < 1e-10 && (alone.log_ess_p - s.log_ess_p).abs() < 1e-9);
        }
        assert_eq!(batch.tensor(|s| s.alpha).unwrap().dims(), [2, 3]);
        // A view that is not contiguous gives the same.
        let turned = |x: &Tensor| x.transpose(0, 1).unwrap();
        let views = solve_batch(&turned(&p), &turned(&t), &Rule::Q_STAR).unwrap();
        assert_eq!(views.solutions[1], batch.solutions[3]);
    }
    let error = |p: &Tensor, t: &Tensor| format!("{:#}", solve_batch(p, t, &Rule::Q_STAR).unwrap_err());
    let p = tensor(DType::F32);
    assert!(error(&p, &p.narrow(0, 0, 1).unwrap()).contains("shape"));
    assert!(error(&p, &p.to_dtype(DType::F16).unwrap()).contains("F16"));
    let ids = p.to_dtype(DType::U32).unwrap();
    assert!(error(&ids, &ids).contains("U32"));
    let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
    assert!(error(&scalar, &scalar).contains("dimension"));
}

/// The same bits whatever the number of threads, and whatever the rows beside it.
#[test]
fn threads_do_not_change_a_bit() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut rows = || -> Vec<f32> { (0..9 * 5_000).map(|_| 8.0 * rng.random::<f32>()).collect() };
    let (p, t) = (rows(), rows());
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| solve_rows(&p, &t, 5_000, &Rule::Q_STAR).unwrap())
    };
    assert_eq!(with(1), with(4));
    assert_eq!(with(4)[7], solve_rows(&p[35_000..40_000], &t[35_000..40_000], 5_000, &Rule::Q_STAR).unwrap()[0]);
}

#[test]
fn zero_mass_on_one_side_is_zero_mass_in_q() {
    let none = f64::NEG_INFINITY;
    let pair = Pair::from_log_probs(&[0.5f64.ln(), 0.5f64.ln(), none], &[none, 0.25f64.ln(), 0.75f64.ln()]).unwrap();
    let s = pair.solve(&Rule::Q_STAR).unwrap();
    // One common outcome: q is all there, whatever α.
    assert_eq!(pair.log_q(s.alpha)[0], none);
    assert!((pair.log_q(s.alpha)[1]).abs() < 1e-15);
    assert_eq!((s.log_ess_p, s.log_ess_t), (none, none));
    // p has mass outside, t has not; d is positive nowhere on the joint support: no root.
    let p = logs(&[0.1, 0.2, 0.7]);
    let t = [0.4f64.ln(), 0.6f64.ln(), none];
    let s = Pair::from_log_probs(&p, &t).unwrap().solve(&Rule::Q_STAR).unwrap();
    assert_eq!(s.status, Status::NoRoot);
    let (at_0, at_1) =
        (0.4 * (0.1f64 / 0.4).ln() + 0.6 * (0.2f64 / 0.6).ln(), (0.1 * 0.25f64.ln() + 0.2 * (1.0f64 / 3.0).ln()) / 0.3);
    assert_eq!(s.alpha, if at_0.abs() < at_1.abs() { 0.0 } else { 1.0 });
    assert_eq!(s.log_ess_p, none);
    assert!(s.log_ess_t > none);
}

/// p = (1 − e^−40, e^−40), t = (1 − e^−50, e^−50): the likely outcome's log-probabilities are −e^−40 and −e^−50,
/// far below what 1 − x resolves. By hand K' = 0 at 10 e^(−50 + 10α) = e^−40 − e^−50, to twelve digits.
#[test]
fn nearly_certain_distributions_keep_their_digits() {
    let pair = Pair::from_logits(&[40.0, 0.0], &[50.0, 0.0]).unwrap();
    let s = pair.solve(&Rule::Q_STAR).unwrap();
    let expected = (((-40f64).exp() - (-50f64).exp()) / 10.0).ln() / 10.0 + 5.0;
    assert_eq!(s.status, Status::Ok);
    assert!((s.alpha - expected).abs() < 1e-10, "{} {expected}", s.alpha);
}

#[test]
fn bad_rows_are_errors_that_say_what_is_wrong() {
    let good = logs(&[0.5, 0.5]);
    let error = |p: &[f64], t: &[f64]| Pair::from_log_probs(p, t).unwrap_err().to_string();
    assert!(error(&[0.5f64.ln(), f64::NAN], &good).contains("policy row has NaN at outcome 1"));
    assert!(error(&good, &[f64::INFINITY, 0.0]).contains("target row has inf at outcome 0"));
    assert!(error(&logs(&[0.5, 0.6]), &good).contains("sums to 1.1"));
    assert!(error(&good, &logs(&[0.2, 0.3, 0.5])).contains("2 outcomes and the target row 3"));
    assert!(error(&[], &[]).contains("empty"));
    let none = f64::NEG_INFINITY;
    assert!(error(&[0.0, none], &[none, 0.0]).contains("disjoint"));
    assert!(error(&[none, none], &good).contains("no mass"));
    // Within the bound a row is renormalised.
    let pair = Pair::from_log_probs(&logs(&[0.5004, 0.5]), &logs(&[0.25, 0.75])).unwrap();
    assert!((pair.moments(1.0).k).abs() < 1e-15);
    assert!(pair.solve(&Rule::Fixed(1.5)).is_err());
}

fn row(v: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-8.0..8.0f32, v)
}

fn pair_of_rows() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (2usize..40).prop_flat_map(|v| (row(v), row(v)))
}

/// Each side has all of its mass on an outcome of its own: neither has a variance of d, and they are not the same.
#[test]
fn two_certainties_are_not_the_same() {
    let s = Pair::from_logits(&[100.0, 0.0], &[0.0, 60.0]).unwrap().solve(&Rule::Q_STAR).unwrap();
    // E_q[d] = 60 q_1 − 100 q_2 = 0.
    assert_eq!(s.status, Status::Ok);
    assert!((s.alpha - (60.0 + f64::ln(5.0 / 3.0)) / 160.0).abs() < 1e-10, "{}", s.alpha);
    let s = Pair::from_logits(&[100.0, 0.0], &[0.0, 60.0]).unwrap().solve(&Rule::EssBalance).unwrap();
    assert!(s.status == Status::Ok && (s.log_ess_p - s.log_ess_t).abs() < 1e-9, "{s:?}");
}

proptest! {
    #[test]
    fn swapping_the_sides_gives_one_minus_alpha((p, t) in pair_of_rows()) {
        for rule in [Rule::Q_STAR, Rule::EssBalance, Rule::Entropy] {
            let a = Pair::from_logits(&p, &t).unwrap().solve(&rule).unwrap();
            let b = Pair::from_logits(&t, &p).unwrap().solve(&rule).unwrap();
            prop_assert!((a.alpha + b.alpha - 1.0).abs() < 1e-9);
            prop_assert!((a.kl_p - b.kl_t).abs() < 1e-8 && (a.log_ess_p - b.log_ess_t).abs() < 1e-6);
        }
    }

    #[test]
    fn a_constant_added_to_the_logits_changes_nothing((p, t) in pair_of_rows(), c in -8i32..8) {
        // Small whole numbers and a coarse grid: the sums are exact in f32.
        let grid = |row: &[f32]| row.iter().map(|x| (x * 64.0).round() / 64.0).collect::<Vec<_>>();
        let (p, t) = (grid(&p), grid(&t));
        let moved: Vec<f32> = p.iter().map(|x| x + c as f32).collect();
        let a = Pair::from_logits(&p, &t).unwrap().solve(&Rule::Q_STAR).unwrap();
        let b = Pair::from_logits(&moved, &t).unwrap().solve(&Rule::Q_STAR).unwrap();
        prop_assert!((a.alpha - b.alpha).abs() < 1e-10);
    }

    #[test]
    fn the_order_of_the_outcomes_changes_nothing((p, t) in pair_of_rows()) {
        let reversed = |row: &[f32]| row.iter().rev().copied().collect::<Vec<_>>();
        let a = Pair::from_logits(&p, &t).unwrap().solve(&Rule::Q_STAR).unwrap();
        let b = Pair::from_logits(&reversed(&p), &reversed(&t)).unwrap().solve(&Rule::Q_STAR).unwrap();
        prop_assert!((a.alpha - b.alpha).abs() < 1e-10);
    }

    #[test]
    fn q_star_is_the_root_and_ess_lies_in_0_to_1((p, t) in pair_of_rows()) {
        let pair = Pair::from_logits(&p, &t).unwrap();
        let s = pair.solve(&Rule::Q_STAR).unwrap();
        prop_assert!(s.status == Status::Ok && s.iterations < 60);
        prop_assert!((0.0..=1.0).contains(&s.alpha));
        prop_assert!((s.kl_p - s.kl_t).abs() < 1e-10 && s.k <= 1e-15);
        prop_assert!(s.log_ess_p <= 0.0 && s.log_ess_t <= 0.0);
        let ess = pair.solve(&Rule::EssBalance).unwrap();
        prop_assert!((ess.log_ess_p - ess.log_ess_t).abs() < 1e-9);
    }
}
