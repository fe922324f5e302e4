//! Bradley-Terry training on a preference that can be learned: more of three tokens is better.

use candle_core::Tensor;
use qstar::models::Config;
use qstar::reward::{Preference, Preferences, RewardModel, evaluate_preferences};
use qstar::seed::{Purpose, rng};
use qstar::train::{BradleyTerry, RewardStepRow, train_reward_model};
use rand::Rng;

use super::models::{deberta, distilbert, gpt2};

const GOOD: [u32; 3] = [3, 5, 11];

/// Pairs of 4 to 12 tokens of 1 to 15, of which one has more good ones.
fn preferences(count: usize, seed: u64) -> Preferences {
    let mut draw = rng(seed, Purpose::Demonstrations, 0, 0);
    let mut sequence = || -> Vec<u32> {
        let length = draw.random_range(4..=12);
        (0..length).map(|_| draw.random_range(1..16)).collect()
    };
    let good = |tokens: &[u32]| tokens.iter().filter(|id| GOOD.contains(id)).count();
    let mut pairs = Vec::new();
    while pairs.len() < count {
        let (a, b) = (sequence(), sequence());
        match good(&a).cmp(&good(&b)) {
            std::cmp::Ordering::Less => pairs.push(Preference::new(b, a)),
            std::cmp::Ordering::Greater => pairs.push(Preference::new(a, b)),
            std::cmp::Ordering::Equal => {}
        }
    }
    Preferences::new(pairs).unwrap()
}

fn config(steps: usize) -> BradleyTerry {
    BradleyTerry { steps, batch: 16, microbatch: 16, learning_rate: 3e-3, warmup_steps: 10, seed: 7 }
}

fn train(model: &RewardModel, config: &BradleyTerry, preferences: &Preferences) -> Vec<RewardStepRow> {
    train_reward_model(model, config, "reward model", preferences).unwrap()
}

#[test]
fn every_kind_of_model_learns_the_preference() {
    let (pairs, held_out) = (preferences(1000, 1), preferences(500, 2));
    for kind in [distilbert(), deberta(), gpt2()] {
        let name = kind.model_type();
        let model = RewardModel::new(kind, 1).unwrap();
        let before = evaluate_preferences(&model, &held_out).unwrap().row;
        let rows = train(&model, &config(200), &pairs);
        let after = evaluate_preferences(&model, &held_out).unwrap().row;
        println!(
            "{name}: accuracy {:.3} to {:.3} ({:.3} to {:.3}), log loss {:.3} to {:.3}, calibration error {:.3}",
            before.accuracy,
            after.accuracy,
            after.accuracy_low,
            after.accuracy_high,
            before.log_loss,
            after.log_loss,
            after.calibration_error
        );
        assert_eq!(rows.len(), 200);
        assert!(rows.iter().all(|row| row.loss.is_finite() && row.gradient_norm > 0.0));
        assert!(after.accuracy_low > 0.9, "{name}: held-out accuracy {}", after.accuracy);
        assert!(after.log_loss < 0.5 * before.log_loss && after.margin > 0.0, "{name}: {after:?}");
    }
}

fn digest(kind: Config, threads: usize, seed: u64) -> (String, Vec<u64>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let model = RewardModel::new(kind, seed).unwrap();
        let rows = train(&model, &BradleyTerry { seed, ..config(12) }, &preferences(60, 1));
        (model.params.digest().unwrap(), rows.iter().map(|row| row.loss.to_bits()).collect())
    })
}

#[test]
fn same_seed_same_bits_whatever_the_threads() {
    for kind in [distilbert(), deberta(), gpt2()] {
        let one = digest(kind.clone(), 1, 5);
        assert_eq!(one, digest(kind.clone(), 4, 5), "{}", kind.model_type());
        assert_ne!(one.0, digest(kind, 1, 6).0);
    }
}

/// In parts, a step is the same but for rounding; parts need not be equal.
#[test]
fn microbatches_sum_to_the_batch() {
    let pairs = preferences(60, 1);
    let of =
        |microbatch| train(&RewardModel::new(deberta(), 1).unwrap(), &BradleyTerry { microbatch, ..config(5) }, &pairs);
    let whole = of(16);
    for microbatch in [5, 1] {
        for (a, b) in whole.iter().zip(&of(microbatch)) {
            assert!((a.loss - b.loss).abs() < 1e-4, "step {}: {} and {}", a.step, a.loss, b.loss);
            assert_eq!((a.accuracy, a.learning_rate), (b.accuracy, b.learning_rate));
        }
        let norms = (whole[0].gradient_norm, of(microbatch)[0].gradient_norm);
        assert!((norms.0 - norms.1).abs() < 1e-5 * norms.0, "{norms:?}");
    }
}

#[test]
fn a_margin_asks_for_more() {
    let model = || RewardModel::new(distilbert(), 1).unwrap();
    let plain = preferences(40, 1);
    let pairs = plain.pairs().iter().map(|pair| Preference { margin: 2.0, ..pair.clone() }).collect();
    let wide = Preferences::new(pairs).unwrap();
    let (a, b) = (&train(&model(), &config(1), &plain)[0], &train(&model(), &config(1), &wide)[0]);
    // A fresh model gives nearly the same reward to all: −log σ(0) and −log σ(−2).
    assert!((a.loss - 2f64.ln()).abs() < 0.02, "{}", a.loss);
    assert!((b.loss - 2f64.exp().ln_1p()).abs() < 0.05, "{}", b.loss);
    assert_eq!(a.margin, b.margin);
}

#[test]
fn a_loss_that_is_no_number_names_its_step() {
    let model = RewardModel::new(distilbert(), 1).unwrap();
    let var = model.params.get("classifier.bias").unwrap();
    var.set(&Tensor::new(&[f32::NAN], var.device()).unwrap()).unwrap();
    let told = train_reward_model(&model, &config(3), "reward model", &preferences(20, 1)).unwrap_err();
    assert_eq!(format!("{told:#}"), "reward model, step 0: the loss is NaN");
    let nothing = train_reward_model(&model, &BradleyTerry { batch: 0, ..config(3) }, "", &preferences(20, 1));
    assert!(nothing.unwrap_err().to_string().contains("a batch and a microbatch need a pair"));
}
