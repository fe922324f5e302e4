//! Selections: their probabilities are real, their estimates unbiased, their intervals as wide as they say.

use qstar::judge::{Selection, select, select_uniformly};

/// Scores of very different sizes, and values that go with them: what a selection by difference must not be misled by.
fn population(n: usize) -> (Vec<f64>, Vec<f64>) {
    let scores: Vec<f64> = (0..n).map(|i| ((i * 37 % 101) as f64 / 101.0).powi(3)).collect();
    let values = scores.iter().enumerate();
    let values =
        values.map(
            |(i, score)| {
                if score * 1.3 + (i * 53 % 97) as f64 / 97.0 > 0.75 { 1.0 } else { 0.5 * f64::from(i % 3 == 0) }
            },
        );
    let values = values.collect();
    (scores, values)
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

#[test]
fn rows_are_drawn_with_the_probabilities_that_are_stated() {
    const DRAWS: u64 = 20_000;
    // Two rows are certain.
    let scores = [50.0, 40.0, 1.0, 2.0, 3.0, 0.0, 4.0, 2.0];
    let mut counts = [0u64; 8];
    let mut together = [[0u64; 8]; 8];
    let mut probabilities = Vec::new();
    for seed in 0..DRAWS {
        let selection = select(&scores, 4, 0.2, seed).unwrap();
        assert_eq!(selection.rows().len(), 4);
        assert!(selection.rows().is_sorted());
        for (i, &row) in selection.rows().iter().enumerate() {
            counts[row] += 1;
            for &other in &selection.rows()[i + 1..] {
                together[row][other] += 1;
            }
        }
        probabilities = selection.probabilities().to_vec();
    }
    assert!((probabilities.iter().sum::<f64>() - 4.0).abs() < 1e-12);
    assert_eq!((counts[0], counts[1], probabilities[0]), (DRAWS, DRAWS, 1.0));
    for (count, p) in counts.iter().zip(&probabilities) {
        let errors = (p * (1.0 - p) / DRAWS as f64).sqrt();
        assert!((*count as f64 / DRAWS as f64 - p).abs() <= 4.5 * errors, "{count} of {DRAWS}, {p}");
    }
    // Any two rows can be drawn together: else no variance could be estimated.
    for (row, others) in together.iter().enumerate() {
        assert!(others[row + 1..].iter().all(|&count| count > 20), "{row} with those after it: {others:?}");
    }
    assert_eq!(select(&scores, 4, 0.2, 7).unwrap(), select(&scores, 4, 0.2, 7).unwrap());
}

/// Over many draws: the mean of an estimate, its standard deviation, how often its interval of 90 % holds the truth, the mean width.
fn simulate(truth: f64, estimate: impl Fn(u64) -> qstar::metrics::Interval) -> (f64, f64, f64, f64) {
    const DRAWS: u64 = 4_000;
    let all: Vec<_> = (0..DRAWS).map(estimate).collect();
    let means: Vec<f64> = all.iter().map(|interval| interval.mean).collect();
    let centre = mean(&means);
    let sd = mean(&means.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>()).sqrt();
    let covered = all.iter().filter(|interval| interval.low <= truth && truth <= interval.high).count();
    let width = mean(&all.iter().map(|interval| interval.high - interval.low).collect::<Vec<_>>());
    (centre - truth, sd / (DRAWS as f64).sqrt(), covered as f64 / DRAWS as f64, width)
}

fn of_rows<T: Copy>(selection: &Selection, values: &[T]) -> Vec<T> {
    selection.rows().iter().map(|&row| values[row]).collect()
}

#[test]
fn weighted_estimates_are_unbiased_where_plain_means_are_not() {
    let (scores, values) = population(300);
    let truth = mean(&values);
    let drawn = |seed| select(&scores, 60, 0.3, seed).unwrap();

    // The plain mean of what was selected is of the selected alone.
    let plain: Vec<f64> = (0..500).map(|seed| mean(&of_rows(&drawn(seed), &values))).collect();
    assert!(mean(&plain) - truth > 0.1, "the test's population is no test");

    let guesses = vec![0.5; 300];
    let (bias, error, covered, blind) = simulate(truth, |seed| {
        let selection = drawn(seed);
        selection.mean(&of_rows(&selection, &values), &guesses, 0.9).unwrap()
    });
    assert!(bias.abs() < 4.0 * error, "bias {bias}, error of the simulation {error}");
    assert!((0.86..0.94).contains(&covered), "{covered}");

    // Guesses that lean to the right side narrow the interval; wrong ones everywhere do no harm but width.
    let lean = |(i, v): (usize, &f64)| 0.5 + (v - 0.5) * [0.9, 0.4, 0.7][i % 3];
    let good: Vec<f64> = values.iter().enumerate().map(lean).collect();
    let (bias, error, covered, narrow) = simulate(truth, |seed| {
        let selection = drawn(seed);
        selection.mean(&of_rows(&selection, &values), &good, 0.9).unwrap()
    });
    assert!(bias.abs() < 4.0 * error, "{bias} {error}");
    assert!((0.86..0.94).contains(&covered), "{covered}");
    assert!(narrow < 0.8 * blind, "{narrow} of {blind}");

    // One guess in ten is wrong and all others are exact: among 60 rows are about six misses, too few for Student's interval.
    let sparse: Vec<f64> = values.iter().enumerate().map(|(i, v)| if i % 10 == 0 { 1.0 - v } else { *v }).collect();
    let (bias, error, covered, _) = simulate(truth, |seed| {
        let selection = drawn(seed);
        selection.mean(&of_rows(&selection, &values), &sparse, 0.9).unwrap()
    });
    assert!(bias.abs() < 4.0 * error, "{bias} {error}");
    assert!((0.80..0.90).contains(&covered), "what the documentation says: {covered}");
    let wrong: Vec<f64> = values.iter().map(|v| 3.0 - v).collect();
    let (bias, error, covered, _) = simulate(truth, |seed| {
        let selection = drawn(seed);
        selection.mean(&of_rows(&selection, &values), &wrong, 0.9).unwrap()
    });
    assert!(bias.abs() < 4.0 * error && covered > 0.86, "{bias} {error} {covered}");
}

/// A tenth of the verdicts cannot be read, and more often where models differ: the ratio is of those that can.
#[test]
fn rows_without_a_value_are_left_out_without_bias() {
    let (scores, values) = population(300);
    let known: Vec<Option<f64>> = values
        .iter()
        .enumerate()
        .map(|(i, &v)| (i % 10 != 0 && !(scores[i] > 0.5 && i % 4 == 0)).then_some(v))
        .collect();
    let truth = mean(&known.iter().flatten().copied().collect::<Vec<_>>());
    let (bias, _, covered, _) = simulate(truth, |seed| {
        let selection = select(&scores, 60, 0.3, seed).unwrap();
        selection.mean_of_known(&of_rows(&selection, &known), 0.9).unwrap()
    });
    assert!(bias.abs() < 0.01, "{bias}");
    assert!((0.85..0.95).contains(&covered), "{covered}");
}

#[test]
fn random_samples_have_the_interval_of_a_finite_population() {
    let values: Vec<f64> = (0..120).map(|i| f64::from(i % 5 < 2)).collect();
    let known: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
    let mut widths = Vec::new();
    for count in [30, 90] {
        let (bias, error, covered, width) = simulate(0.4, |seed| {
            let selection = select_uniformly(120, count, seed).unwrap();
            selection.proportion(&of_rows(&selection, &known), 0.9).unwrap()
        });
        assert!(bias.abs() < 4.0 * error, "{bias}");
        assert!((0.85..0.95).contains(&covered), "{count}: {covered}");
        widths.push(width);
    }
    // sd of the mean: sqrt(0.24/n · (N − n)/(N − 1)).
    let expected = f64::sqrt((90.0 / 30.0) / (30.0 / 90.0));
    assert!((widths[0] / widths[1] - expected).abs() < 0.1 * expected);
    let all = select_uniformly(120, 120, 0).unwrap();
    let interval = all.proportion(&known, 0.95).unwrap();
    assert_eq!((interval.mean, interval.low, interval.high), (0.4, 0.4, 0.4));
}

#[test]
fn nonsense_is_refused() {
    assert!(
        select(&[], 0, 0.2, 0).is_err() && select(&[1.0], 2, 0.2, 0).is_err() && select(&[1.0], 0, 0.2, 0).is_err()
    );
    assert!(select(&[1.0, -1.0], 1, 0.2, 0).unwrap_err().to_string().contains("row 1"));
    assert!(select(&[1.0, f64::NAN], 1, 0.2, 0).is_err() && select(&[1.0, 1.0], 1, 0.0, 0).is_err());
    // No differences at all, and one that dwarfs all others.
    assert_eq!(select(&[0.0; 4], 2, 0.2, 0).unwrap().probabilities(), [0.5; 4]);
    let extreme = select(&[1e308, 1e-308, 0.0, 1e308], 3, 0.01, 0).unwrap();
    assert!((extreme.probabilities().iter().sum::<f64>() - 3.0).abs() < 1e-9);
    let selection = select(&[1.0, 2.0, 3.0, 4.0], 2, 0.2, 0).unwrap();
    assert!(
        selection.mean(&[1.0], &[0.5; 4], 0.95).is_err() && selection.mean(&[1.0, f64::NAN], &[0.5; 4], 0.95).is_err()
    );
    assert!(
        selection.mean(&[1.0, 0.0], &[0.5; 3], 0.95).is_err() && selection.mean(&[1.0, 0.0], &[0.5; 4], 1.0).is_err()
    );
    assert!(selection.mean_of_known(&[None, None], 0.95).is_err());
    assert!(
        selection.proportion(&[Some(1.0), None], 0.95).unwrap_err().to_string().contains("different probabilities")
    );
}
