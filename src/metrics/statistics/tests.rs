//! Against scipy, rliable, statsmodels, scikit-learn and krippendorff: `tests/fixtures/statistics.py` says what is of whom.

use std::fmt::Debug;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::aggregate::stratified;
use super::bootstrap::{acceleration, resampled};
use super::distribution::{Student, hedges_factor, normal_cdf, normal_sf};
use super::*;

const CLOSE: f64 = 1e-9;
/// For distributions, against forty digits.
const EXACT: f64 = 2e-13;

static FIXTURE: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/statistics.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
});

fn cases<T: DeserializeOwned>(name: &str, least: usize) -> Vec<T> {
    let cases: Vec<T> = serde_json::from_value(FIXTURE[name].clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(cases.len() >= least, "{name} has {} cases", cases.len());
    cases
}

/// Relative where the expected value is larger than 1.
fn near(found: f64, expected: f64, case: &dyn Debug) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= CLOSE, "{found} instead of {expected}: {case:?}");
}

/// Relative, also of the smallest.
fn relative(found: f64, expected: f64, tolerance: f64, case: &dyn Debug) {
    let error = if found == expected { 0.0 } else { (found / expected - 1.0).abs() };
    assert!(error <= tolerance, "{found:e} instead of {expected:e}, {error:e}: {case:?}");
}

fn near_interval(found: Interval, [low, high]: [f64; 2], case: &dyn Debug) {
    near(found.low, low, case);
    near(found.high, high, case);
}

/// The generator of the script.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize, count: usize) -> Vec<usize> {
        let one = |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        };
        (0..count).map(one).collect()
    }
}

#[test]
fn distributions_have_all_digits() {
    for [z, p] in cases::<[f64; 2]>("normal", 10) {
        // Far out the argument's own rounding is multiplied by z².
        relative(normal_sf(z), p, EXACT * (1.0 + z * z / 100.0), &z);
        relative(normal_cdf(-z), p, EXACT * (1.0 + z * z / 100.0), &z);
    }
    for [df, t, p] in cases::<[f64; 3]>("student", 100) {
        relative(Student { df }.sf(t), p, EXACT, &(df, t));
        relative(Student { df }.beyond(t), 2.0 * p, EXACT, &(df, t));
        assert!((Student { df }.sf(-t) - (1.0 - p)).abs() < EXACT, "{df} {t}");
    }
    for [df, q, t] in cases::<[f64; 3]>("student_upper", 100) {
        // Near the middle, t hangs on 1/2 − q, which has lost digits.
        let tolerance = if q > 0.49 { 1e-11 } else { 1e-12 };
        relative(Student { df }.upper(q), t, tolerance, &(df, q));
        if q > 1e-3 {
            // 1 − q has lost digits of a smaller q.
            relative(-Student { df }.upper(1.0 - q), t, 1e-11, &(df, q));
        }
    }
    for [df, factor] in cases::<[f64; 2]>("hedges", 5) {
        relative(hedges_factor(df), factor, EXACT, &df);
    }
}

#[derive(Deserialize, Debug)]
struct OfMean {
    x: Vec<f64>,
    confidence: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize, Debug)]
struct OfTwo {
    a: Vec<f64>,
    b: Vec<f64>,
    t: f64,
    df: f64,
    p: f64,
    low: f64,
    high: f64,
    d: f64,
    g: f64,
}

#[test]
fn t_intervals_and_tests_are_those_of_scipy() {
    for case in cases::<OfMean>("t_interval", 10) {
        near_interval(t_interval(&case.x, case.confidence).unwrap(), [case.low, case.high], &case);
    }
    type Test = fn(&[f64], &[f64]) -> anyhow::Result<TTest>;
    for (name, test) in [("welch", welch_t as Test), ("paired", paired_t)] {
        for case in cases::<OfTwo>(name, 4) {
            let found = test(&case.a, &case.b).unwrap();
            near(found.t, case.t, &case);
            near(found.df, case.df, &case);
            // Far out too: a relative error of t is multiplied by df.
            relative(found.p, case.p, CLOSE, &case);
            near(found.d, case.d, &case);
            near(found.g, case.g, &case);
            near_interval(found.interval(0.95).unwrap(), [case.low, case.high], &case);
        }
    }
}

#[derive(Deserialize, Debug)]
struct OfDesign {
    a: usize,
    b: Option<usize>,
    effect: f64,
    alpha: f64,
    power: f64,
}

#[test]
fn power_and_detectable_effects_are_those_of_statsmodels() {
    let design = |case: &OfDesign| case.b.map_or(Design::Paired(case.a), |b| Design::TwoSample(case.a, b));
    for case in cases::<OfDesign>("power", 30) {
        near(design(&case).power(case.effect, case.alpha).unwrap(), case.power, &case);
    }
    for case in cases::<OfDesign>("detectable", 20) {
        let found = design(&case).detectable_effect(case.alpha, case.power).unwrap();
        near(found, case.effect, &case);
    }
}

#[derive(Deserialize, Debug)]
struct OfBootstrap {
    samples: Vec<Vec<f64>>,
    statistic: String,
    paired: bool,
    resamples: usize,
    confidence: f64,
    percentile: [f64; 2],
    basic: [f64; 2],
    bca: [f64; 2],
    standard_error: f64,
    acceleration: f64,
    levels: [f64; 2],
}

#[test]
fn bootstraps_are_those_of_scipy_with_its_indices() {
    for case in cases::<OfBootstrap>("bootstrap", 8) {
        let statistic = |x: &[Vec<f64>]| match case.statistic.as_str() {
            "mean" => mean(&x[0]),
            "sd" => sd(&x[0]),
            "iqm" => iqm(&x[0]),
            "difference" => mean(&x[0]) - mean(&x[1]),
            "ratio" => mean(&x[0]) / mean(&x[1]),
            other => panic!("{other}"),
        };
        let samples: Vec<&[f64]> = case.samples.iter().map(Vec::as_slice).collect();
        // scipy draws the indices of all resamples of the first sample, then those of the second; of pairs once.
        let mut lcg = Lcg(1);
        let drawn: Vec<Vec<usize>> = samples
            .iter()
            .take(if case.paired { 1 } else { samples.len() })
            .map(|x| lcg.below(x.len(), x.len() * case.resamples))
            .collect();
        let of = |sample: usize, resample: usize| {
            let n = samples[sample].len();
            let drawn = &drawn[if case.paired { 0 } else { sample }];
            drawn[n * resample..n * (resample + 1)].to_vec()
        };
        let draw = |resample: u64| (0..samples.len()).map(|sample| of(sample, resample as usize)).collect();
        let found = resampled(&samples, statistic, case.resamples, draw).unwrap();
        let left_out = if case.paired { jackknife_paired(&samples, statistic) } else { jackknife(&samples, statistic) };
        let left_out = left_out.unwrap();
        near(found.standard_error(), case.standard_error, &case);
        near_interval(found.percentile(case.confidence).unwrap(), case.percentile, &case);
        near_interval(found.basic(case.confidence).unwrap(), case.basic, &case);
        near(acceleration(&left_out), case.acceleration, &case);
        // scipy gives the levels that come of bias and acceleration, not the bias.
        let (bias, a) = (found.bias_correction(), acceleration(&left_out));
        for (tail, level) in [0.5 * (1.0 - case.confidence), 0.5 * (1.0 + case.confidence)].into_iter().zip(case.levels)
        {
            let z = bias + normal_quantile(tail);
            near(normal_cdf(bias + z / (1.0 - a * z)), level, &case);
        }
        near_interval(found.bca(&left_out, case.confidence).unwrap(), case.bca, &case);
    }
}

#[derive(Deserialize, Debug)]
struct OfScores {
    scores: Vec<Vec<f64>>,
    enough: f64,
    resamples: usize,
    mean: f64,
    mean_interval: [f64; 2],
    median: f64,
    median_interval: [f64; 2],
    iqm: f64,
    iqm_interval: [f64; 2],
    optimality_gap: f64,
    optimality_gap_interval: [f64; 2],
}

/// rliable draws by run, then by task.
fn by_run(lcg: &mut Lcg, tasks: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let runs = tasks[0].len();
    let drawn = lcg.below(runs, runs * tasks.len());
    (0..tasks.len()).map(|task| (0..runs).map(|run| drawn[run * tasks.len() + task]).collect()).collect()
}

#[test]
fn aggregates_and_their_intervals_are_those_of_rliable() {
    for case in cases::<OfScores>("aggregates", 3) {
        let aggregates = [
            (Aggregate::Mean, case.mean, case.mean_interval),
            (Aggregate::Median, case.median, case.median_interval),
            (Aggregate::Iqm, case.iqm, case.iqm_interval),
            (Aggregate::OptimalityGap(case.enough), case.optimality_gap, case.optimality_gap_interval),
        ];
        for (aggregate, value, interval) in aggregates {
            near(aggregate.of(&case.scores).unwrap(), value, &case);
            let mut lcg = Lcg(1);
            let drawn: Vec<_> = (0..case.resamples).map(|_| vec![by_run(&mut lcg, &case.scores)]).collect();
            let statistic = |x: &[Vec<Vec<f64>>]| aggregate.of(&x[0]).unwrap();
            let draw = |resample: u64| drawn[resample as usize].clone();
            let found = stratified(&[&case.scores], statistic, case.resamples, draw).unwrap();
            near_interval(found.percentile(0.95).unwrap(), interval, &(aggregate, &case));
        }
    }
    #[derive(Deserialize)]
    struct OfIqm {
        x: Vec<f64>,
        iqm: f64,
    }
    for case in cases::<OfIqm>("iqm", 13) {
        near(iqm(&case.x), case.iqm, &case.x);
    }
}

#[derive(Deserialize, Debug)]
struct OfImprovement {
    x: Vec<Vec<f64>>,
    y: Vec<Vec<f64>>,
    probability: f64,
    resamples: usize,
    low: f64,
    high: f64,
}

#[test]
fn probabilities_of_improvement_are_those_of_rliable() {
    for case in cases::<OfImprovement>("improvement", 6) {
        near(probability_of_improvement(&case.x, &case.y).unwrap(), case.probability, &case);
        let mut lcg = Lcg(1);
        let both = |_| [&case.x, &case.y].map(|scores| by_run(&mut lcg, scores)).to_vec();
        let drawn: Vec<_> = (0..case.resamples).map(both).collect();
        let statistic = |x: &[Vec<Vec<f64>>]| probability_of_improvement(&x[0], &x[1]).unwrap();
        let draw = |resample: u64| drawn[resample as usize].clone();
        let found = stratified(&[&case.x, &case.y], statistic, case.resamples, draw).unwrap();
        near_interval(found.percentile(0.95).unwrap(), [case.low, case.high], &case);
    }
}

#[derive(Deserialize, Debug)]
struct OfProfile {
    scores: Vec<Vec<f64>>,
    thresholds: Vec<f64>,
    shares: Vec<f64>,
}

#[derive(Deserialize, Debug)]
struct OfHolm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[derive(Deserialize, Debug)]
struct OfArea {
    curve: Vec<(f64, f64)>,
    mean: f64,
}

#[derive(Deserialize, Debug)]
struct OfRestricted {
    runs: Vec<(f64, bool)>,
    horizon: f64,
    mean: f64,
}

#[test]
fn profiles_corrections_areas_and_restricted_means_are_those_of_the_packages() {
    for case in cases::<OfProfile>("profile", 3) {
        for (threshold, share) in case.thresholds.iter().zip(&case.shares) {
            near(share_above(&case.scores, *threshold).unwrap(), *share, &case);
        }
    }
    for case in cases::<OfHolm>("holm", 5) {
        holm(&case.p).unwrap().iter().zip(&case.adjusted).for_each(|(found, p)| relative(*found, *p, 1e-12, &case));
    }
    for case in cases::<OfArea>("area", 3) {
        let (from, to) = (case.curve[0].0, case.curve[case.curve.len() - 1].0);
        near(area_under_curve(&case.curve, from, to).unwrap(), case.mean, &case);
    }
    for case in cases::<OfRestricted>("restricted", 3) {
        let run = |(at, arrived): &(f64, bool)| if *arrived { Reached::At(*at) } else { Reached::NotBy(*at) };
        let runs: Vec<Reached> = case.runs.iter().map(run).collect();
        near(restricted_mean(&runs, case.horizon).unwrap(), case.mean, &case);
    }
}

#[derive(Deserialize, Debug)]
struct OfCorrelation {
    x: Vec<f64>,
    y: Vec<f64>,
    confidence: f64,
    pearson: [f64; 4],
    spearman: [f64; 2],
    spearman_interval: [f64; 2],
}

#[test]
fn correlations_are_those_of_scipy() {
    for case in cases::<OfCorrelation>("correlation", 5) {
        let [r, p, low, high] = case.pearson;
        let found = pearson(&case.x, &case.y, case.confidence).unwrap();
        near(found.interval.mean, r, &case);
        // Near 1 a p hangs on 1 − r, of which r has lost digits.
        relative(found.p, p, 1e-8, &case);
        near_interval(found.interval, [low, high], &case);
        let found = spearman(&case.x, &case.y, case.confidence).unwrap();
        near(found.interval.mean, case.spearman[0], &case);
        relative(found.p, case.spearman[1], 1e-8, &case);
        near_interval(found.interval, case.spearman_interval, &case);
    }
}

#[derive(Deserialize, Debug)]
struct OfCohen {
    a: Vec<usize>,
    b: Vec<usize>,
    weights: String,
    kappa: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize, Debug)]
struct OfFleiss {
    counts: Vec<Vec<usize>>,
    kappa: f64,
}

#[derive(Deserialize, Debug)]
struct OfKrippendorff {
    ratings: Vec<Vec<Option<f64>>>,
    scale: String,
    alpha: f64,
}

#[test]
fn agreements_are_those_of_the_packages() {
    for case in cases::<OfCohen>("cohen", 9) {
        let weights = match case.weights.as_str() {
            "nominal" => KappaWeights::Nominal,
            "linear" => KappaWeights::Linear,
            "quadratic" => KappaWeights::Quadratic,
            other => panic!("{other}"),
        };
        let found = cohen_kappa(&case.a, &case.b, weights, 0.95).unwrap();
        near(found.mean, case.kappa, &case);
        near_interval(found, [case.low, case.high], &case);
    }
    for case in cases::<OfFleiss>("fleiss", 2) {
        near(fleiss_kappa(&case.counts).unwrap(), case.kappa, &case);
    }
    for case in cases::<OfKrippendorff>("krippendorff", 9) {
        let scale = match case.scale.as_str() {
            "nominal" => Scale::Nominal,
            "ordinal" => Scale::Ordinal,
            "interval" => Scale::Interval,
            other => panic!("{other}"),
        };
        near(krippendorff_alpha(&case.ratings, scale).unwrap(), case.alpha, &case);
    }
}
