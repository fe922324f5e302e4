//! The frames of the exact world, what they are relative to and how they are judged; the figure; the errors.

use anyhow::Result;
use qstar::experiment::exact::{
    Baseline, Estimator, RULES, Setting, TabularProposal, Tree, Unit, treated, variances, verdict, verdict_table,
};
use qstar::method::{Level, Over, Treatment, Weight};
use qstar::mixture::Rule;
use qstar::plot;

fn tree() -> Tree {
    Tree::new(3, 3, false).unwrap()
}

fn world(seed: u64) -> Setting {
    Setting::new(&tree(), seed, 0.1).unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn number(frame: &polars::prelude::DataFrame, column: &str, row: usize) -> f64 {
    frame.column(column).unwrap().f64().unwrap().get(row).unwrap()
}

fn text(frame: &polars::prelude::DataFrame, column: &str, row: usize) -> String {
    frame.column(column).unwrap().str().unwrap().get(row).unwrap().to_owned()
}

#[test]
fn the_frames_are_relative_to_the_gradient_and_judged_by_row() -> Result<()> {
    let pairs = [world(0).with_gap("medium", 1.0), world(1).with_gap("medium", 1.0)];
    let weights = treated(&[Treatment::None, Treatment::Raw]);
    let frame = variances(&pairs, Unit::Token, &[0.0, 0.9, 1.0], &weights, Baseline::LeaveOneOut, 4)?;
    assert_eq!(frame.height(), 2 * 10 * 4);
    let rows = |rule: &str, seed: i64, level: &str| -> Vec<usize> {
        let seeds = frame.column("seed").unwrap().i64().unwrap();
        let of = |row: &usize| {
            text(&frame, "rule", *row) == rule && seeds.get(*row) == Some(seed) && text(&frame, "level", *row) == level
        };
        (0..frame.height()).filter(of).collect()
    };
    let star = rows("qstar", 0, "token")[0];
    let q = TabularProposal::new(&pairs[0], Unit::Token, &Rule::Q_STAR)?.q;
    let weight = Weight { level: Level::Token, treatment: Treatment::Raw };
    let found = Estimator { weight, baseline: Baseline::LeaveOneOut, k: 4 }.estimate(&pairs[0], &q)?;
    let exact = pairs[0].gradient();
    let (scale, bias) = (
        norm(&exact).powi(2),
        norm(&found.mean.iter().zip(&exact).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(&exact),
    );
    assert!((number(&frame, "variance", star) - found.variance / scale).abs() < 1e-12);
    assert!((number(&frame, "bias", star) - bias).abs() < 1e-12);
    assert!((number(&frame, "mse", star) - found.variance / scale - bias * bias).abs() < 1e-12);
    let signal = norm(&found.mean).powi(2);
    assert!((number(&frame, "noise_to_signal", star) - found.variance / signal).abs() < 1e-12);
    let ess: f64 = pairs[0]
        .tree
        .paths()
        .iter()
        .map(|path| {
            path.iter()
                .map(|step| (2.0 * pairs[0].policy.row(step.prefix)[step.token] - q.row(step.prefix)[step.token]).exp())
                .product::<f64>()
        })
        .sum();
    assert!((number(&frame, "ess_sequence", star) - 1.0 / ess).abs() < 1e-12);

    let verdicts = verdict(&frame)?;
    assert_eq!(verdicts.height(), 2 * 4 * 3);
    for row in 0..verdicts.height() {
        let seed = verdicts.column("seed")?.i64()?.get(row).unwrap();
        let (level, measure) = (text(&verdicts, "level", row), text(&verdicts, "measure", row));
        let value = |rule: &str| number(&frame, &measure, rows(rule, seed, &level)[0]);
        let (star, all) = (value("qstar"), RULES.map(|(name, _)| value(name)));
        let rank = 1 + all.iter().filter(|x| **x < star * (1.0 - 1e-9)).count() as i64;
        assert_eq!(verdicts.column("qstar_rank")?.i64()?.get(row), Some(rank));
        let lowest = all.iter().copied().fold(f64::INFINITY, f64::min);
        // Draws from the policy and a rule that comes to α = 1 are one proposal: the name is the first of them.
        let first = all.iter().position(|x| *x <= lowest * (1.0 + 1e-9)).unwrap();
        assert_eq!(text(&verdicts, "lowest", row), RULES[first].0);
        assert!((number(&verdicts, "to_on_policy", row) - star / value("reinforce")).abs() < 1e-12);
        assert!((number(&verdicts, "to_lowest", row) - star / lowest).abs() < 1e-9);
        let grid: Vec<f64> = rows("fixed", seed, &level).into_iter().map(|i| number(&frame, &measure, i)).collect();
        let best = [0.0, 0.9, 1.0].iter().position(|alpha| *alpha == number(&verdicts, "best_alpha", row)).unwrap();
        assert!(grid.iter().all(|x| *x >= grid[best]));
    }
    let table = verdict_table(&verdicts)?;
    assert_eq!(table.height(), 4 * 3);
    let both: Vec<f64> = [0, 4].map(|row| number(&verdicts, "to_on_policy", row)).into();
    assert!((number(&table, "to_on_policy", 0) - (both[0] * both[1]).sqrt()).abs() < 1e-12);
    Ok(())
}

#[test]
fn what_cannot_be_computed_is_told() -> Result<()> {
    let error = |result: Result<polars::prelude::DataFrame>| format!("{:#}", result.unwrap_err());
    let tilted = world(0).with_tilt("tilted", 0.1)?;
    let there = Setting { policy: tilted.target.clone(), ..tilted };
    let raw = treated(&[Treatment::Raw]);
    let flat = error(variances(&[there], Unit::Token, &[], &raw, Baseline::LeaveOneOut, 4));
    assert!(flat.contains("`tilted` (seed 0) is where ∇J is zero"), "{flat}");
    let medium = world(0).with_gap("medium", 1.0);
    let alone = error(variances(std::slice::from_ref(&medium), Unit::Token, &[], &raw, Baseline::LeaveOneOut, 1));
    assert!(alone.contains("leaves no others for its baseline"), "{alone}");
    let normalised = treated(&[Treatment::Normalized { over: Over::Batch }]);
    let many = error(variances(std::slice::from_ref(&medium), Unit::Token, &[], &normalised, Baseline::LeaveOneOut, 9));
    assert!(many.contains("take fewer responses or a smaller world"), "{many}");
    let outside = error(variances(&[medium], Unit::Token, &[1.5], &raw, Baseline::LeaveOneOut, 4));
    assert!(outside.contains("1.5"), "{outside}");
    assert!(Tree::new(10, 4, false).is_err() && Tree::new(1, 4, false).is_err() && Tree::new(3, 0, false).is_err());
    assert!(Setting::new(&tree(), 0, -0.1).is_err() && world(0).with_tilt("tilted", 0.0).is_err());
    Ok(())
}

#[test]
fn the_figure_has_a_line_a_weight_and_three_marks_on_each() -> Result<()> {
    let pairs = [world(0).with_gap("medium", 1.0), world(0).with_gap("far", 2.0)];
    let weights = treated(&[Treatment::Raw]);
    let frame = variances(&pairs, Unit::Token, &[0.0, 0.5, 1.0], &weights, Baseline::LeaveOneOut, 4)?;
    let figure = plot::exact_variance(&frame, "variance")?;
    for label in ["medium", "far", "prefix weight, raw", "on-policy draws", "tr Cov(g)/‖∇J‖²"] {
        assert!(figure.svg.contains(label), "no {label}");
    }
    // Two panels of three lines, each with three marks; and three in the legend.
    assert_eq!(figure.svg.matches("<polygon").count(), 2 * 3 * 3 + 3);
    figure.png()?;
    let error = |frame: &polars::prelude::DataFrame, measure: &str| {
        format!("{:#}", plot::exact_variance(frame, measure).unwrap_err())
    };
    assert!(error(&frame, "bias").contains("none of variance, mse and noise_to_signal"));
    assert!(error(&frame.drop("rule")?, "mse").contains("needs a column `rule`"));
    let twice = frame.vstack(&frame)?;
    assert!(error(&twice, "mse").contains("two rows of the grid at one α"));
    let without = variances(&pairs, Unit::Token, &[], &weights, Baseline::LeaveOneOut, 4)?;
    assert!(error(&without, "mse").contains("has no grid of α"));
    let both = frame.vstack(&variances(&pairs, Unit::Sequence, &[0.5], &weights, Baseline::LeaveOneOut, 4)?)?;
    assert!(error(&both, "mse").contains("one seed and one unit"));
    Ok(())
}
