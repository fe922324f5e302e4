//! How exactly α is found, what that does to q, and what it costs.

use std::time::Instant;

use anyhow::Result;
use polars::prelude::DataFrame;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::metrics::mean;
use crate::mixture::{Pair, Rule, Solver, Start, alphas_of_rows};
use crate::record::record;
use crate::seed::{self, Purpose};

/// Runs of which the median time counts.
const RUNS: usize = 7;

record! {
    /// One way to find α*, over all pairs of one kind.
    pub struct SolverRow {
        pub solver: String,
        /// Standard deviation of log p − log t over the vocabulary.
        pub gap: f64,
        pub pairs: i64,
        /// |α − α*|: mean and largest.
        pub alpha_error: f64,
        pub alpha_error_max: f64,
        /// ½ Σ |q − q*|: mean and largest.
        pub q_error: f64,
        pub q_error_max: f64,
        /// Microseconds a pair on all cores of this machine, the normalisation of both rows included.
        pub microseconds: f64,
    }
}

/// Bisection with 5, 10, 20 and 50 rounds, and the default solver, on f32 logits; the truth is the f64 solution.
/// The policy's logits are Gaussian with standard deviation 3, and the target's differ by Gaussians of standard
/// deviation `gap`.
///
/// # Errors
/// None but those of making a frame.
///
/// ```
/// let frame = qstar::experiment::derivation::solvers(2_000, &[0.5], 3, 0)?;
/// assert_eq!(frame.height(), 5);
/// # anyhow::Ok(())
/// ```
pub fn solvers(vocabulary: usize, gaps: &[f64], pairs: usize, seed: u64) -> Result<DataFrame> {
    let mut rows = Vec::new();
    for (setting, &gap) in gaps.iter().enumerate() {
        let (policy, target) = logits(vocabulary, gap, pairs, seed, setting as u64);
        let truth = (policy.par_chunks(vocabulary).zip(target.par_chunks(vocabulary)))
            .map(|(p, t)| {
                let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let pair = Pair::from_logits_f64(&wide(p), &wide(t))?;
                let alpha = pair.solve(&Rule::Q_STAR)?.alpha;
                Ok((pair, alpha))
            })
            .collect::<Result<Vec<_>>>()?;
        let bisections = [5, 10, 20, 50].map(|n| (format!("bisection, {n} rounds"), Solver::Bisection(n)));
        for (name, solver) in bisections.into_iter().chain([("the default".to_string(), Solver::Hermite(Start::Ends))])
        {
            let rule = Rule::KlSymmetry(solver);
            let mut times = Vec::new();
            let mut alphas = Vec::new();
            for _ in 0..RUNS {
                let start = Instant::now();
                alphas = alphas_of_rows(&policy, &target, vocabulary, &rule)?;
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            let errors: Vec<(f64, f64)> = (truth.par_iter().zip(&alphas))
                .map(|((pair, exact), alpha)| {
                    let (q, q_star) = (pair.log_q(*alpha), pair.log_q(*exact));
                    let distance = 0.5 * q.iter().zip(&q_star).map(|(a, b)| (a.exp() - b.exp()).abs()).sum::<f64>();
                    ((alpha - exact).abs(), distance)
                })
                .collect();
            let (alpha_errors, q_errors): (Vec<f64>, Vec<f64>) = errors.into_iter().unzip();
            let largest = |x: &[f64]| x.iter().fold(0.0, |most: f64, &x| most.max(x));
            rows.push(SolverRow {
                solver: name,
                gap,
                pairs: pairs as i64,
                alpha_error: mean(&alpha_errors),
                alpha_error_max: largest(&alpha_errors),
                q_error: mean(&q_errors),
                q_error_max: largest(&q_errors),
                microseconds: times[RUNS / 2] * 1e6 / pairs as f64,
            });
        }
    }
    SolverRow::frame(&rows)
}

fn logits(vocabulary: usize, gap: f64, pairs: usize, seed: u64, setting: u64) -> (Vec<f32>, Vec<f32>) {
    let mut rng = seed::rng(seed, Purpose::Derivation, 100 + setting, 0);
    let mut gaussian = || -> f64 { StandardNormal.sample(&mut rng) };
    (0..vocabulary * pairs)
        .map(|_| {
            let policy = 3.0 * gaussian();
            (policy as f32, (policy + gap * gaussian()) as f32)
        })
        .unzip()
}
