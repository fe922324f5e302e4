//! PPO, DPO, GRPO and RLOO beside TRL: fixtures by `tests/fixtures/trl_losses.py` (TRL 1.16.0) and
//! `tests/fixtures/trl_ppo.py` (TRL 1.12.0, the last with PPO), whose heads say how each was made.
//!
//! Of TRL's variants these have no counterpart here and are not compared: whitened rewards, a score behind the last token
//! (PPO); the robust loss (DPO); scaling by the batch's deviation, the mean log-ratio of a sequence (GRPO); normalised
//! advantages (RLOO).

#[path = "trl/update.rs"]
mod update;

use qstar::method::{
    Advantage, Aggregate, Dpo, KlEstimator, Level, Penalty, Ppo, Share, Surrogate, Tokens, generalized_advantages,
    policy_loss, value_loss, whiten,
};
use serde_json::Value;

/// Both sides compute in f64.
const CLOSE: f64 = 1e-9;

pub fn fixture(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn lengths(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

#[track_caller]
fn check(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < CLOSE, "{what}, place {i}: {a} and TRL's {b}");
    }
}

#[test]
fn ppo() {
    let fixture = fixture("trl_ppo.json");
    let (constants, given) = (&fixture["constants"], &fixture["given"]);
    let constant = |name: &str| constants[name].as_f64().unwrap();
    let (log_probs, reference) = (rows(&given["log_probs"]), rows(&given["reference_log_probs"]));
    let (new_log_probs, scores) = (rows(&given["new_log_probs"]), numbers(&given["scores"]));
    // A place behind the last token belongs to the other convention.
    let own = |name: &str| -> Vec<Vec<f64>> {
        let rows = rows(&given[name]);
        rows.into_iter().zip(&log_probs).map(|(row, tokens)| row[..tokens.len()].to_vec()).collect()
    };
    let (values, new_values) = (own("values"), own("new_values"));
    assert_eq!(constant("lambda"), Ppo::DEFAULT.gae_lambda);
    assert_eq!([constant("clip"), constant("value_clip")], [Ppo::DEFAULT.clip, Ppo::DEFAULT.value_clip]);
    assert_eq!(constant("value_coefficient"), Ppo::DEFAULT.value_coefficient);
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        if case["score_at"] != "last" || case["whiten_rewards"] == true {
            continue;
        }
        compared += 1;
        let estimator = match case["kl_estimator"].as_str().unwrap() {
            "k1" => KlEstimator::K1,
            "k3" => KlEstimator::K3,
            other => panic!("{other}"),
        };
        let (mut rewards, mut advantages, mut returns) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..scores.len() {
            let kl = |(p, r): (&f64, &f64)| -constant("kl_coefficient") * estimator.of(*p, *r);
            let mut row: Vec<f64> = log_probs[i].iter().zip(&reference[i]).map(kl).collect();
            *row.last_mut().unwrap() += scores[i];
            let (a, r) = generalized_advantages(&row, &values[i], constant("lambda"));
            rewards.extend(row);
            advantages.extend(a);
            returns.extend(r);
        }
        check("rewards", &rewards, &rows(&case["rewards"]).concat());
        check("advantages", &advantages, &rows(&case["advantages"]).concat());
        check("returns", &returns, &rows(&case["returns"]).concat());
        whiten(&mut advantages);
        check("whitened advantages", &advantages, &rows(&case["whitened_advantages"]).concat());
        let tokens = rewards.len() as f64;
        let policy = policy_loss(&new_log_probs.concat(), &log_probs.concat(), &advantages, constant("clip"), tokens);
        let value = value_loss(&new_values.concat(), &values.concat(), &returns, constant("value_clip"), tokens);
        let theirs = ["policy_loss", "value_loss"].map(|name| case[name].as_f64().unwrap());
        check("losses", &[policy.value, value.value], &theirs);
        check("gradient", &policy.derivatives, &rows(&case["gradient_log_probs"]).concat());
        let value = value.times(constant("value_coefficient"));
        check("gradient of the values", &value.derivatives, &rows(&case["gradient_values"]).concat());
    }
    assert_eq!(compared, 2);
    let kl = &fixture["kl"];
    let (p, r) = (rows(&kl["log_probs"]).concat(), rows(&kl["reference_log_probs"]).concat());
    let of = |estimator: KlEstimator| p.iter().zip(&r).map(|(p, r)| estimator.of(*p, *r)).collect::<Vec<_>>();
    check("k1", &of(KlEstimator::K1), &rows(&kl["k1"]).concat());
    check("k3", &of(KlEstimator::K3), &rows(&kl["k3"]).concat());
    let mean = of(KlEstimator::K2).iter().sum::<f64>() / p.len() as f64;
    check("the mean of k2", &[mean], &[kl["k2_mean"].as_f64().unwrap()]);
}

#[test]
fn dpo() {
    let fixture = &fixture("trl_losses.json")["dpo"];
    let sides = |name: &str| [rows(&fixture[format!("chosen_{name}")]), rows(&fixture[format!("rejected_{name}")])];
    let [chosen, rejected] = sides("log_probs");
    let reference = [rows(&fixture["reference_chosen_log_probs"]), rows(&fixture["reference_rejected_log_probs"])];
    let flat = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<f64> {
        a.iter().zip(b).flat_map(|(a, b)| [&a[..], &b[..]].concat()).collect()
    };
    let lengths: Vec<usize> = chosen.iter().zip(&rejected).flat_map(|(a, b)| [a.len(), b.len()]).collect();
    let (beta, smoothing) = (fixture["beta"].as_f64().unwrap(), fixture["label_smoothing"].as_f64().unwrap());
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        let (label_smoothing, length_normalized) = match case["loss"].as_str().unwrap() {
            "sigmoid" => (0.0, false),
            "conservative" => (smoothing, false),
            "sigmoid_norm" => (0.0, true),
            _ => continue,
        };
        compared += 1;
        let dpo = Dpo { beta, label_smoothing, length_normalized };
        let found =
            dpo.loss(&flat(&chosen, &rejected), &flat(&reference[0], &reference[1]), &lengths, chosen.len() as f64);
        check("the mean loss", &[found.loss.value], &[case["mean"].as_f64().unwrap()]);
        let (a, b) = (numbers(&case["gradient_chosen"]), numbers(&case["gradient_rejected"]));
        let theirs: Vec<f64> = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b]).collect();
        let theirs: Vec<f64> = lengths.iter().zip(theirs).flat_map(|(&n, g)| std::iter::repeat_n(g, n)).collect();
        check("the gradient", &found.loss.derivatives, &theirs);
        if !length_normalized {
            check("rewards of the chosen", &found.chosen, &numbers(&fixture["chosen_rewards"]));
            check("rewards of the rejected", &found.rejected, &numbers(&fixture["rejected_rewards"]));
        }
    }
    assert_eq!(compared, 3);
}

#[test]
fn grpo() {
    let fixture = &fixture("trl_losses.json")["grpo"];
    let (rewards, lengths) = (numbers(&fixture["rewards"]), lengths(&fixture["lengths"]));
    let of = |name: &str| rows(&fixture[name]).concat();
    let (old, reference, new) = (of("log_probs"), of("reference_log_probs"), of("new_log_probs"));
    let share = Share {
        responses: lengths.len() as f64,
        tokens: old.len() as f64,
        longest: fixture["max_completion_length"].as_u64().unwrap() as usize,
    };
    let centred = Surrogate { advantage: Advantage::Group, ..Surrogate::GRPO };
    let advantages = Surrogate::GRPO.advantages(&rewards, 4);
    check("advantages", &advantages, &numbers(&fixture["advantages"]["group"]));
    check("centred advantages", &centred.advantages(&rewards, 4), &numbers(&fixture["advantages"]["none"]));
    let tokens = Tokens { old_log_probs: &old, reference: &reference, advantages: &advantages, lengths: &lengths };
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        if case["level"] != "token" {
            continue;
        }
        compared += 1;
        let aggregate = match case["loss_type"].as_str().unwrap() {
            "grpo" => Aggregate::Response,
            // On one device both divide by the number of tokens.
            "bnpo" | "dapo" => Aggregate::Tokens,
            "dr_grpo" => Aggregate::Length,
            other => panic!("{other}"),
        };
        let times_ratio = case["kl_times_ratio"].as_bool().unwrap();
        let kl = Penalty::Loss { estimator: KlEstimator::K3, times_ratio };
        let surrogate = Surrogate { aggregate, kl, clip: fixture["clip"].as_f64().unwrap(), ..Surrogate::GRPO };
        let found = surrogate.loss(&new, &tokens, case["beta"].as_f64().unwrap(), &share);
        let what = format!("{} {} {times_ratio}", case["loss_type"], case["beta"]);
        check(&what, &[found.value], &[case["loss"].as_f64().unwrap()]);
        check(&what, &found.derivatives, &rows(&case["gradient"]).concat());
    }
    assert!(compared >= 12, "{compared}");
}

#[test]
fn rloo() {
    let fixture = fixture("trl_losses.json");
    let (given, fixture) = (&fixture["grpo"], &fixture["rloo"]);
    let (rewards, lengths) = (numbers(&given["rewards"]), lengths(&given["lengths"]));
    let of = |name: &str| rows(&given[name]);
    let (old, reference, new) = (of("log_probs"), of("reference_log_probs"), of("new_log_probs"));
    let share = Share { responses: lengths.len() as f64, tokens: 0.0, longest: 8 };
    let mut compared = 0;
    for case in fixture["cases"].as_array().unwrap() {
        if case["normalized"] == true {
            continue;
        }
        compared += 1;
        let beta = case["beta"].as_f64().unwrap();
        let kl = |i: usize| old[i].iter().zip(&reference[i]).map(|(p, r)| p - r).sum::<f64>();
        let returns: Vec<f64> = rewards.iter().enumerate().map(|(i, r)| r - beta * kl(i)).collect();
        let surrogate = Surrogate { clip: fixture["clip"].as_f64().unwrap(), ..Surrogate::RLOO };
        assert_eq!((surrogate.ratio, surrogate.aggregate), (Level::Sequence, Aggregate::Sum));
        let advantages = surrogate.advantages(&returns, 4);
        check("advantages", &advantages, &numbers(&case["advantages"]));
        let tokens = Tokens {
            old_log_probs: &old.concat(),
            reference: &reference.concat(),
            advantages: &advantages,
            lengths: &lengths,
        };
        let found = surrogate.loss(&new.concat(), &tokens, beta, &share);
        check("the loss", &[found.value], &[case["loss"].as_f64().unwrap()]);
        let theirs = numbers(&case["gradient"]);
        let theirs: Vec<f64> = lengths.iter().zip(theirs).flat_map(|(&n, g)| std::iter::repeat_n(g, n)).collect();
        check("the gradient", &found.derivatives, &theirs);
    }
    assert_eq!(compared, 2);
}
