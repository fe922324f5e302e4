//! Three outcomes: every distribution is a point of a triangle, and a search over all of them needs no calculus.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::{both_sides, falling_root, kl, log_sum_exp};
use crate::mixture::{Pair, Rule};
use crate::record::record;

record! {
    /// A point on a path through the triangle.
    pub struct PathRow {
        /// `geometric`: p^α t^(1−α), normalised. `arithmetic`: α p + (1−α) t. `equidistant`: KL(q‖p) = KL(q‖t).
        pub path: String,
        /// Null on the equidistant line, which no α follows.
        pub alpha: Option<f64>,
        pub q1: f64,
        pub q2: f64,
        pub q3: f64,
        /// What is written at the point, where something is: `p`, `t`, `q*`.
        pub label: String,
    }
}

record! {
    /// A distribution that a search found, or the geometric one that should equal it.
    pub struct SearchRow {
        pub found_by: String,
        pub alpha: Option<f64>,
        pub q1: f64,
        pub q2: f64,
        pub q3: f64,
        pub kl_p: f64,
        pub kl_t: f64,
    }
}

record! {
    /// How often the best test of p against t is wrong after so many draws.
    pub struct TestingRow {
        pub draws: i64,
        /// The probability of a mistake, if both are equally likely beforehand.
        pub error: f64,
        /// −log(error)/draws, nats.
        pub rate: f64,
        /// The same from these draws to twice as many, where the slowly varying factor before e^(−n·rate) nearly cancels.
        pub rate_to_double: f64,
    }
}

/// The ways from t to p through the triangle, each of `points` points: the geometric and the arithmetic mixture;
/// the ends of the straight line of all q with KL(q‖p) = KL(q‖t); and p, t and q*, each with its label.
///
/// # Errors
/// A pair that has not three outcomes, each with mass on both sides; fewer than two points.
///
/// ```
/// use qstar::experiment::derivation::paths;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// assert_eq!(paths(&pair, 50)?.height(), 50 + 50 + 2 + 3);
/// # anyhow::Ok(())
/// ```
pub fn paths(pair: &Pair, points: usize) -> Result<DataFrame> {
    ensure!(points >= 2, "a path needs at least two points");
    let (log_p, log_t) = three(pair)?;
    let row = |path: &str, alpha: Option<f64>, q: [f64; 3], label: &str| PathRow {
        path: path.to_owned(),
        alpha,
        q1: q[0],
        q2: q[1],
        q3: q[2],
        label: label.to_owned(),
    };
    let alphas = || (0..points).map(|i| i as f64 / (points - 1) as f64);
    let mut rows: Vec<PathRow> = alphas().map(|a| row("geometric", Some(a), exp3(&pair.log_q(a)), "")).collect();
    let (p, t) = (exp3(&log_p), exp3(&log_t));
    let mix = |a: f64| [0, 1, 2].map(|i| a * p[i] + (1.0 - a) * t[i]);
    rows.extend(alphas().map(|a| row("arithmetic", Some(a), mix(a), "")));
    // On the edge between outcomes i and j the line E_q[d] = 0 has q_i d_i + q_j d_j = 0.
    let d = [0, 1, 2].map(|i| log_p[i] - log_t[i]);
    for (i, j) in [(0, 1), (1, 2), (2, 0)] {
        if d[i] * d[j] < 0.0 {
            let mut q = [0.0; 3];
            q[i] = d[j] / (d[j] - d[i]);
            q[j] = 1.0 - q[i];
            rows.push(row("equidistant", None, q, ""));
        }
    }
    let star = pair.solve(&Rule::Q_STAR)?.alpha;
    for (label, alpha) in [("t", 0.0), ("p", 1.0), ("q*", star)] {
        rows.push(row("geometric", Some(alpha), exp3(&pair.log_q(alpha)), label));
    }
    // The labelled points stand at their places on the path.
    rows.sort_by(|a, b| {
        let at = |row: &PathRow| if row.path == "geometric" { row.alpha.unwrap_or(0.0) } else { 2.0 };
        at(a).total_cmp(&at(b))
    });
    PathRow::frame(&rows)
}

/// Among **all** distributions with KL(q‖p) ≤ `bound` (nats), the one with the least KL(q‖t): found on a grid of
/// `steps` parts to a side of the triangle, beside the geometric mixture with KL(q‖p) = `bound`.
///
/// # Errors
/// As [`paths`]; a bound that is not between 0 and KL(t‖p), where it would bind nothing.
///
/// ```
/// use qstar::experiment::derivation::nearest_within;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let found = nearest_within(&pair, 0.1, 100)?;
/// let kl_t = found.column("kl_t")?.f64()?;
/// // No point of the grid is nearer to t, and the nearest is hardly further away.
/// assert!(kl_t.get(0) >= kl_t.get(1) && kl_t.get(0).unwrap() < kl_t.get(1).unwrap() + 0.02);
/// # anyhow::Ok(())
/// ```
pub fn nearest_within(pair: &Pair, bound: f64, steps: usize) -> Result<DataFrame> {
    let (log_p, log_t) = three(pair)?;
    let most = kl(&log_t, &log_p);
    ensure!(0.0 < bound && bound < most, "the bound must lie between 0 and KL(t‖p) = {most}");
    let found = search(&log_p, &log_t, steps, |kl_p, kl_t| if kl_p <= bound { kl_t } else { f64::INFINITY })
        .context("no point of the grid is within the bound: take more steps")?;
    let alpha = falling_root(0.0, 1.0, |alpha| kl(&pair.log_q(alpha), &log_p) - bound);
    SearchRow::frame(&[found, geometric(pair, alpha, &log_p, &log_t)])
}

/// Among **all** distributions, the one whose larger divergence of the two is least: found on a grid of `steps`
/// parts to a side of the triangle, beside q*.
///
/// # Errors
/// As [`paths`].
///
/// ```
/// use qstar::experiment::derivation::least_worst_kl;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let found = least_worst_kl(&pair, 100)?;
/// let q1 = found.column("q1")?.f64()?;
/// assert!((q1.get(0).unwrap() - q1.get(1).unwrap()).abs() < 0.02);
/// # anyhow::Ok(())
/// ```
pub fn least_worst_kl(pair: &Pair, steps: usize) -> Result<DataFrame> {
    let (log_p, log_t) = three(pair)?;
    let found = search(&log_p, &log_t, steps, f64::max).context("the grid is empty")?;
    let alpha = pair.solve(&Rule::Q_STAR)?.alpha;
    SearchRow::frame(&[found, geometric(pair, alpha, &log_p, &log_t)])
}

/// The best test of whether `draws` independent draws came from p or from t, both equally likely beforehand: its
/// probability of a mistake is half the sum of the smaller of both likelihoods over all that can be drawn. The rates
/// tend to the Chernoff information of p and t.
///
/// # Errors
/// As [`paths`].
///
/// ```
/// use qstar::experiment::derivation::testing_errors;
/// use qstar::mixture::{Pair, Rule};
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let errors = testing_errors(&pair, &[200])?;
/// let rate = errors.column("rate_to_double")?.f64()?.get(0).unwrap();
/// assert!((rate + pair.solve(&Rule::Q_STAR)?.k).abs() < 0.005);
/// # anyhow::Ok(())
/// ```
pub fn testing_errors(pair: &Pair, draws: &[u32]) -> Result<DataFrame> {
    let (log_p, log_t) = three(pair)?;
    let row = |n: &u32| {
        let (once, twice) = (log_error(&log_p, &log_t, *n), log_error(&log_p, &log_t, 2 * n));
        let n = f64::from(*n);
        TestingRow { draws: n as i64, error: once.exp(), rate: -once / n, rate_to_double: (once - twice) / n }
    };
    TestingRow::frame(&draws.iter().map(row).collect::<Vec<_>>())
}

fn log_error(log_p: &[f64], log_t: &[f64], draws: u32) -> f64 {
    let n = draws as usize;
    let mut log_factorial = vec![0.0; n + 1];
    for i in 1..=n {
        log_factorial[i] = log_factorial[i - 1] + (i as f64).ln();
    }
    let mut terms = Vec::with_capacity((n + 1) * (n + 2) / 2);
    for i in 0..=n {
        for j in 0..=n - i {
            let counts = [i, j, n - i - j];
            let ways = log_factorial[n] - counts.iter().map(|c| log_factorial[*c]).sum::<f64>();
            let likelihood = |log: &[f64]| counts.iter().zip(log).map(|(c, x)| *c as f64 * x).sum::<f64>();
            terms.push(ways + likelihood(log_p).min(likelihood(log_t)));
        }
    }
    log_sum_exp(terms.iter().copied()) - 2f64.ln()
}

/// The point of the grid at which `cost`(KL(q‖p), KL(q‖t)) is least, if it is finite anywhere.
fn search(log_p: &[f64], log_t: &[f64], steps: usize, cost: impl Fn(f64, f64) -> f64) -> Option<SearchRow> {
    let mut best = (f64::INFINITY, None);
    for i in 0..=steps {
        for j in 0..=steps - i {
            let q = [i, j, steps - i - j].map(|part| part as f64 / steps as f64);
            let log_q = q.map(f64::ln);
            let (kl_p, kl_t) = (kl(&log_q, log_p), kl(&log_q, log_t));
            let cost = cost(kl_p, kl_t);
            if cost < best.0 {
                let found_by = format!("grid of 1/{steps}");
                best = (cost, Some(SearchRow { found_by, alpha: None, q1: q[0], q2: q[1], q3: q[2], kl_p, kl_t }));
            }
        }
    }
    best.1
}

fn geometric(pair: &Pair, alpha: f64, log_p: &[f64], log_t: &[f64]) -> SearchRow {
    let log_q = pair.log_q(alpha);
    let [q1, q2, q3] = exp3(&log_q);
    let (kl_p, kl_t) = (kl(&log_q, log_p), kl(&log_q, log_t));
    SearchRow { found_by: "geometric mixture".to_owned(), alpha: Some(alpha), q1, q2, q3, kl_p, kl_t }
}

fn three(pair: &Pair) -> Result<(Vec<f64>, Vec<f64>)> {
    ensure!(pair.size() == 3, "a triangle has three outcomes, and the pair has {}", pair.size());
    both_sides(pair)
}

fn exp3(log_q: &[f64]) -> [f64; 3] {
    [0, 1, 2].map(|i| log_q[i].exp())
}
