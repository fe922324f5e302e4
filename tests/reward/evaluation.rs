//! Evaluation on held-out pairs, against hand computations and against a law that is known.

use qstar::record::RunFolder;
use qstar::reward::evaluate_preferences;
use qstar::reward::{CalibrationRow, Preference, PreferenceEvaluation, Preferences, RewardEvaluationRow, RewardModel};
use qstar::seed::{Purpose, rng};
use rand::Rng;

use super::models::distilbert;

/// Margins whose probabilities are 0.77, 0.23, 0.92, 0.5 and 0.62 for the chosen side.
#[test]
fn numbers_are_those_of_a_hand_computation() {
    let probabilities = [0.77, 0.23, 0.92, 0.5, 0.62];
    let chosen: Vec<f64> = probabilities.iter().map(|p: &f64| 1.5 + (p / (1.0 - p)).ln()).collect();
    let evaluation = PreferenceEvaluation::of_scores(&chosen, &[1.5; 5]).unwrap();
    let row = &evaluation.row;
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    assert_eq!((row.pairs, row.ties, row.equal), (5, 1, 0));
    near(row.accuracy, 3.5 / 5.0);
    near(row.log_loss, -probabilities.iter().map(|p: &f64| p.ln()).sum::<f64>() / 5.0);
    near(row.margin, chosen.iter().map(|c| c - 1.5).sum::<f64>() / 5.0);
    // Likelier sides: 0.77 right, 0.77 wrong, 0.92 right, 0.5 half, 0.62 right.
    near(row.calibration_error, (2.0 * 0.27 + 0.08 + 0.0 + 0.38) / 5.0);
    let pairs: Vec<i64> = evaluation.calibration.iter().map(|bin| bin.pairs).collect();
    assert_eq!(pairs, [1, 0, 1, 0, 0, 2, 0, 0, 1, 0]);
    let bin = &evaluation.calibration[5];
    near(bin.low, 0.75);
    near(bin.predicted.unwrap(), 0.77);
    near(bin.observed.unwrap(), 0.5);
    assert!(bin.observed_low.unwrap() < 0.1 && bin.observed_high.unwrap() > 0.9);
    assert_eq!(evaluation.calibration[1].observed, None);
    assert!(row.accuracy_low < 0.4 && row.accuracy_high > 0.85 && row.margin_low < row.margin);
}

/// Preferences drawn from the model's own law: the truth is calibrated, the same rewards three times as large are not,
/// and lose by as much as the law says.
#[test]
fn the_true_rewards_are_calibrated() {
    let (mut chosen, mut rejected, mut expected) = (Vec::new(), Vec::new(), 0.0);
    let mut draw = rng(3, Purpose::Evaluate, 0, 0);
    let n = 20_000;
    for _ in 0..n {
        let (a, b) = (draw.random_range(-1.5..1.5f64), draw.random_range(-1.5..1.5f64));
        let p = 1.0 / (1.0 + (b - a).exp());
        expected += p.max(1.0 - p) / f64::from(n);
        let (c, r) = if draw.random::<f64>() < p { (a, b) } else { (b, a) };
        chosen.push(c);
        rejected.push(r);
    }
    let truth = PreferenceEvaluation::of_scores(&chosen, &rejected).unwrap().row;
    println!(
        "accuracy {:.4}, expected {expected:.4}; calibration error {:.4}",
        truth.accuracy, truth.calibration_error
    );
    // Four standard errors.
    assert!((truth.accuracy - expected).abs() < 4.0 * (0.25 / f64::from(n)).sqrt());
    assert!(truth.calibration_error < 0.015);
    let thrice = |x: &[f64]| x.iter().map(|x| 3.0 * x).collect::<Vec<_>>();
    let loud = PreferenceEvaluation::of_scores(&thrice(&chosen), &thrice(&rejected)).unwrap().row;
    assert_eq!(loud.accuracy, truth.accuracy);
    assert!(loud.calibration_error > 0.1 && loud.log_loss > truth.log_loss);
}

#[test]
fn rewards_that_are_no_pairs_are_refused() {
    let told = |c: &[f64], r: &[f64]| PreferenceEvaluation::of_scores(c, r).unwrap_err().to_string();
    assert!(told(&[], &[]).contains("pairs"));
    assert!(told(&[1.0], &[1.0, 2.0]).contains("pairs"));
    assert!(told(&[1.0, f64::NAN], &[0.0, 2.0]).contains("pair 1 has the rewards NaN and 2"));
}

#[test]
fn equal_pairs_are_left_out_and_named() {
    let pair = |a: &[u32], b: &[u32]| Preference::new(a.to_vec(), b.to_vec());
    let given = vec![pair(&[1, 2], &[1, 2]), pair(&[1, 2], &[3]), pair(&[4], &[4]), pair(&[5], &[6, 7])];
    let preferences = Preferences::new(given).unwrap();
    assert_eq!((preferences.pairs().len(), preferences.equal()), (2, &[0, 2][..]));
    let told = preferences.left_out().unwrap();
    assert_eq!(told, "2 of 4 pairs are left out, chosen and rejected are equal: rows 0, 2");
    let model = RewardModel::new(distilbert(), 0).unwrap();
    let evaluation = evaluate_preferences(&model, &preferences).unwrap();
    assert_eq!((evaluation.row.pairs, evaluation.row.equal), (2, 2));
    let scores = model.scores(&[vec![1, 2], vec![3], vec![5], vec![6, 7]]).unwrap();
    let by_hand = PreferenceEvaluation::of_scores(&[scores[0], scores[2]], &[scores[1], scores[3]]).unwrap();
    assert!((by_hand.row.log_loss - evaluation.row.log_loss).abs() < 1e-6);
    // The row is that of what was given.
    let long = Preferences::new(vec![pair(&[1], &[1]), pair(&[2], &[3; 17])]).unwrap();
    let message = format!("{:#}", evaluate_preferences(&model, &long).unwrap_err());
    assert!(message.contains("pair 1, rejected: 17 tokens do not fit the model's 16 positions"), "{message}");
    // Shortened, two sequences may become one.
    let ends = pair(&[9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1], &[9; 3]).keep_end(&model.network);
    assert_eq!(ends.chosen.len(), 16);
    let negative = Preferences::new(vec![Preference { margin: -0.5, ..pair(&[1], &[2]) }]);
    assert!(negative.unwrap_err().to_string().contains("pair 0: the margin -0.5"));
    let nothing = Preferences::new(vec![pair(&[1], &[1])]).unwrap_err().to_string();
    assert!(nothing.contains("of 1 pairs none has two different sequences"), "{nothing}");
}

#[test]
fn rows_become_frames_and_a_figure() {
    let evaluation = PreferenceEvaluation::of_scores(&[1.0, 0.2, 3.0, 0.5], &[0.0, 0.4, 1.0, 0.4]).unwrap();
    let frame = RewardEvaluationRow::frame(std::slice::from_ref(&evaluation.row)).unwrap();
    assert_eq!(frame.column("accuracy").unwrap().f64().unwrap().get(0), Some(0.75));
    let bins = CalibrationRow::frame(&evaluation.calibration).unwrap();
    // The likelier sides have 0.73, 0.55, 0.88 and 0.52: three bins of ten.
    assert_eq!((bins.height(), bins.column("observed").unwrap().null_count()), (10, 7));
    let figure = qstar::plot::calibration(&bins).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = RunFolder::new(folder.path()).file("calibration");
    figure.save(&path).unwrap();
    assert!(path.with_extension("png").exists());
}
