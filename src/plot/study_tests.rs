//! The figures of the study from frames to pixels.

use polars::df;
use polars::prelude::*;

use super::tests::{check, error, with};
use super::*;
use crate::record::stack;

const METHODS: [&str; 6] = ["reinforce", "on_policy", "sft", "uniform", "mine", "qstar"];

/// A row an evaluation of every method and seed after 0, 10 and 20 steps, with everything that a figure reads.
fn evaluations(task: &str, parameters: i64, methods: &[&str], seeds: i64) -> DataFrame {
    let (mut method, mut seed, mut step, mut samples) = (vec![], vec![], vec![], vec![]);
    let (mut reward, mut kl, mut flops) = (vec![], vec![], vec![]);
    for (m, name) in methods.iter().enumerate() {
        for s in 0..seeds {
            for k in 0..3i64 {
                method.push(*name);
                seed.push(s);
                step.push(10 * k);
                samples.push(640 * k);
                reward.push(0.2 + (0.05 * m as f64 + 0.02 * s as f64) * k as f64);
                kl.push(0.3 * k as f64 * (1.0 + m as f64));
                flops.push(1e9 * (1.0 + m as f64 + 0.1 * s as f64) * k as f64);
            }
        }
    }
    let rows = method.len();
    df!(
        "task" => vec![task; rows], "parameters" => vec![parameters; rows], "target" => vec!["expert"; rows],
        "method" => method, "setting" => vec!["common"; rows], "seed" => seed, "step" => step, "samples" => samples,
        "reward" => reward, "entropy" => kl.clone(), "distinct_2" => kl.clone(), "length" => kl.clone(), "kl" => kl,
        "flops" => flops,
    )
    .unwrap()
}

/// A row a step; only `uniform`, `mine` and `qstar` have a mixture and weights.
fn steps(task: &str, parameters: i64, methods: &[&str], seeds: i64) -> DataFrame {
    let (mut method, mut seed, mut step, mut samples) = (vec![], vec![], vec![], vec![]);
    let (mut mixed, mut counts): (Vec<Option<f64>>, Vec<Option<Series>>) = (vec![], vec![]);
    for name in methods {
        for s in 0..seeds {
            for k in 0..20i64 {
                method.push(*name);
                seed.push(s);
                step.push(k);
                samples.push(64 * (k + 1));
                let has = ["uniform", "mine", "qstar"].contains(name);
                mixed.push(has.then_some(0.4 + 0.01 * k as f64));
                let bins = Series::new("".into(), (0..20).map(f64::from).collect::<Vec<_>>());
                counts.push(has.then_some(bins));
            }
        }
    }
    let rows = method.len();
    let times = |factor: f64| mixed.iter().map(|x| x.map(|x| factor * x)).collect::<Vec<_>>();
    let mut frame = df!(
        "task" => vec![task; rows], "parameters" => vec![parameters; rows], "target" => vec!["expert"; rows],
        "method" => method, "setting" => vec!["common"; rows], "seed" => seed, "step" => step, "samples" => samples,
        "alpha_q05" => times(0.5), "alpha_q50" => times(1.0), "alpha_q95" => times(1.5),
        "ess_token_raw" => times(0.1), "ess_token" => times(1.0), "ess_sequence_raw" => times(0.01), "ess_sequence" => times(0.1),
    )
    .unwrap();
    let counts = ListChunked::from_iter(counts).into_series();
    frame.with_column(counts.with_name("alpha_histogram".into()).into()).unwrap();
    frame
}

pub(super) fn noise() -> DataFrame {
    df!(
        "at" => ["start", "start", "end"], "method" => ["reinforce", "qstar", "qstar"], "noise" => [40.0, 400.0, 90.0],
        "low" => [Some(31.0), Some(200.0), None], "high" => [Some(52.0), Some(800.0), None],
    )
    .unwrap()
}

pub(super) fn gains() -> DataFrame {
    df!(
        "target" => ["expert", "conditional", "expert", "conditional"], "family" => ["code", "code", "summary", "summary"],
        "gain" => [0.12, 0.03, -0.1, 0.05], "gain_low" => [0.08, -0.01, -0.2, 0.0], "gain_high" => [0.16, 0.07, 0.0, 0.1],
    )
    .unwrap()
}

#[test]
fn many_methods_have_a_panel_each_before_the_others() {
    let frame = evaluations("micro", 1000, &METHODS, 3);
    let figure = reward_curves(&frame).unwrap();
    let labels = ["mine", "the other methods", "qstar", "t-interval", "Held-out reward"];
    check(&figure, &labels, 864, 420);
    // Six panels of five grey lines, less the dashed one of qstar in five of them.
    assert_eq!(figure.svg.matches("stroke=\"#C8C8C8\"").count(), 6 * 5 - 5 + 1, "with the legend");
    assert_eq!(figure.svg.matches("Samples (responses used)").count(), 3, "below the lowest panels");
    let curves = reward_over_kl(&frame).unwrap();
    check(&curves, &["nats a response", "at the end: 95 % t-interval"], 864, 420);
    let few = reward_over_kl(&evaluations("micro", 1000, &METHODS[..2], 1)).unwrap();
    check(&few, &["reinforce", "on_policy"], 432, 318);
    assert!(!few.svg.contains("t-interval"));
    let tasks = stack([frame, evaluations("code", 2000, &METHODS[..5], 3)]).unwrap();
    let figure = reward_curves(&tasks).unwrap();
    check(&figure, &["micro: qstar", "code: mine"], 864, 812);
}

#[test]
fn rules_for_alpha_have_a_row_each() {
    let methods = ["reinforce", "uniform", "qstar"];
    let (steps, evaluations) = (steps("micro", 1000, &methods, 2), evaluations("micro", 1000, &methods, 2));
    let figure = alpha_rules(&steps, &evaluations).unwrap();
    check(&figure, &["distribution over tokens", "Held-out reward at the end", "uniform"], 864, 214);
    assert_eq!(figure.svg.matches("\nqstar\n").count(), 1, "names stand at the left alone");
    let lacking = error(alpha_rules(&steps, &evaluations.head(Some(6))));
    assert!(lacking.contains("steps of qstar on micro, and no evaluations"), "{lacking}");
}

#[test]
fn advantages_stand_against_sizes_and_samples() {
    let both = |make: fn(&str, i64, &[&str], i64) -> DataFrame| {
        let of = |task, size| make(task, size, &["reinforce", "qstar"], 3);
        stack([of("code", 124_439_808), of("code", 1_414_647_808), of("summary", 124_439_808)]).unwrap()
    };
    let (evaluations, steps) = (both(evaluations), both(steps));
    let figure = scalability(&evaluations, &steps, "qstar", "reinforce").unwrap();
    let labels =
        ["Advantage over reinforce", "Over training, 124M, 1.41B parameters", "no advantage", "summary", "\n1B\n"];
    check(&figure, &labels, 864, 528);
    let lacking = error(scalability(&evaluations, &steps, "qstar", "sft"));
    assert!(lacking.contains("qstar against sft on code with 124439808 parameters"), "{lacking}");
    let unmixed = error(scalability(&evaluations, &steps, "reinforce", "qstar"));
    assert!(unmixed.contains("`reinforce` has no row with quantiles"), "{unmixed}");
}

#[test]
fn costs_are_relative_to_the_baseline_of_the_same_seed() {
    let frame = evaluations("micro", 1000, &METHODS, 3);
    let figure = pareto(&frame, "flops", "on_policy").unwrap();
    check(&figure, &["FLOPs relative to on_policy", "Pareto front", "Gain in held-out reward", "mine"], 432, 358);
    assert!(error(pareto(&frame, "flops", "grpo")).contains("no run of `grpo` on micro with seed 0"));
    let free = error(pareto(&with(&frame, "flops", 0.0), "flops", "on_policy"));
    assert!(free.contains("`flops` must be positive"), "{free}");
    assert!(error(pareto(&frame, "seconds_charged", "on_policy")).contains("needs a column `seconds_charged`"));
}

#[test]
fn long_trainings_have_a_panel_a_measure() {
    let methods = ["reinforce", "qstar"];
    let (steps, few) = (steps("micro", 1000, &methods, 2), evaluations("micro", 1000, &methods, 2));
    let figure = long_training(&few, &steps).unwrap();
    check(
        &figure,
        &["Held-out reward", "KL, nats a response", "α over tokens", "Distinct bigrams", "Entropy"],
        864,
        468,
    );
    let plain = long_training(&few, &steps.head(Some(40))).unwrap();
    assert!(!plain.svg.contains("α over tokens"), "no method with a mixture");
    let many = error(long_training(&evaluations("micro", 1000, &METHODS, 2), &steps));
    assert!(many.contains("at most 4 methods, and the frame has 6"), "{many}");
}

#[test]
fn weights_have_a_row_a_variant() {
    let methods = ["reinforce", "mine", "qstar"];
    let (steps, evaluations) = (steps("micro", 1000, &methods, 2), evaluations("micro", 1000, &methods, 2));
    let figure = weights(&steps, &evaluations).unwrap();
    check(&figure, &["Tokens", "Whole responses", "raw weights", "Held-out reward at the end", "mine"], 864, 190);
    let wrong = error(weights(&with(&steps, "ess_token", 1.5), &evaluations));
    assert!(wrong.contains("`ess_token` is a share of draws in (0, 1]"), "{wrong}");
    let other = error(weights(&steps, &with(&evaluations, "task", "code")));
    assert!(other.contains("the steps of micro and the evaluations of code"), "{other}");
}

#[test]
fn noise_is_logarithmic_and_gains_have_their_zero() {
    let figure = gradient_noise(&noise()).unwrap();
    check(&figure, &["tr Cov(g)", "start", "end", "\n100\n"], 864, 166);
    assert!(error(gradient_noise(&with(&noise(), "low", 0.0))).contains("must be positive"));
    let figure = targets_by_family(&gains()).unwrap();
    check(&figure, &["conditional", "summary", "no gain", "Gain in held-out reward"], 864, 166);
    // The expert looks as in every figure of targets.
    assert!(figure.svg.contains("#56B4E9"));
}

#[test]
fn rows_of_two_comparisons_are_refused_by_the_name_of_their_column() {
    let methods = ["reinforce", "qstar"];
    let (a, b) = (steps("micro", 1000, &methods, 1), evaluations("micro", 1000, &methods, 1));
    type Draw = fn(&DataFrame, &DataFrame) -> anyhow::Result<Figure>;
    let figures: [Draw; 9] = [
        |_, b| reward_curves(b),
        |_, b| reward_over_kl(b),
        |_, b| pareto(b, "flops", "reinforce"),
        |a, _| ess_scatter(&renamed(&renamed(a, "ess_token_raw", "ess_p"), "ess_token", "ess_t")),
        |a, _| alpha_over_training(a),
        |a, b| alpha_rules(a, b),
        |a, b| long_training(b, a),
        |a, b| weights(a, b),
        |a, b| scalability(b, a, "qstar", "reinforce"),
    ];
    for (number, draw) in figures.into_iter().enumerate() {
        for (column, other) in [("target", "conditional"), ("setting", "tuned")] {
            let mixed = |frame: &DataFrame| stack([frame.clone(), with(frame, column, other)]).unwrap();
            let told = error(draw(&mixed(&a), &mixed(&b)));
            assert!(told.contains(&format!("`{column}`")) && told.contains("frames::only"), "{number}: {told}");
        }
    }
    let tasks = stack([a.clone(), with(&a, "task", "code")]).unwrap();
    assert!(error(weights(&tasks, &b)).contains("filter it by `task`"));
}

/// The frame with a column under another name.
fn renamed(frame: &DataFrame, from: &str, to: &str) -> DataFrame {
    let mut frame = frame.clone();
    frame.rename(from, to.into()).unwrap();
    frame
}
