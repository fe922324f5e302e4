//! The frames of notebook 00: the mathematics of one pair of distributions, and where equal KL is not equal ESS.
//!
//! Notation and conventions are those of [`crate::mixture`]: policy p, target t, `d = log p − log t`,
//! `K(α) = log Σ p^α t^(1−α)`, `q_α ∝ p^α t^(1−α)`; α weights the policy; divergences and log ESS are in nats.
//! What is a distribution over three outcomes (a point of a triangle) has the columns `q1`, `q2`, `q3`.

mod balance;
mod curves;
mod limits;
mod proposals;
mod simplex;
mod solvers;

pub use balance::{BalanceRow, BalanceTableRow, balance_table, gaussian_gaps, gaussian_pair, tilts};
pub use curves::{CurveRow, NewtonRow, RuleRow, ValueRow, curves, newton, rules, third_cumulant, values};
pub use limits::{EpsilonRow, SmallGapRow, epsilon_shifts, small_gaps};
pub use proposals::{EstimateRow, ProposalRow, estimates, proposals};
pub use simplex::{PathRow, SearchRow, TestingRow, least_worst_kl, nearest_within, paths, testing_errors};
pub use solvers::{SolverRow, solvers};

use anyhow::{Result, ensure};

use crate::mixture::Pair;

/// log p and log t.
///
/// # Errors
/// Supports that differ: the mixture does not know the mass outside of the joint one.
fn both_sides(pair: &Pair) -> Result<(Vec<f64>, Vec<f64>)> {
    let (log_p, log_t) = (pair.log_q(1.0), pair.log_q(0.0));
    ensure!(
        log_p.iter().chain(&log_t).all(|x| x.is_finite()),
        "policy and target must both have mass on every outcome"
    );
    Ok((log_p, log_t))
}

pub(super) fn log_sum_exp(row: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = row.clone().fold(f64::NEG_INFINITY, f64::max);
    top + row.map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// To twelve decimals: what should be zero is shown as zero, and not as its rounding.
fn rounded(x: f64) -> f64 {
    // The sum turns −0 into 0.
    if x.is_finite() { (x * 1e12).round() / 1e12 + 0.0 } else { x }
}

/// KL(q‖p) of two rows of log-probabilities.
pub(super) fn kl(log_q: &[f64], log_p: &[f64]) -> f64 {
    let terms = log_q.iter().zip(log_p).filter(|(q, _)| **q > f64::NEG_INFINITY);
    terms.map(|(q, p)| q.exp() * (q - p)).sum::<f64>().max(0.0)
}

/// log ESS of draws from q for p: −log Σ p²/q.
pub(super) fn log_ess(log_p: &[f64], log_q: &[f64]) -> f64 {
    -log_sum_exp(log_p.iter().zip(log_q).map(|(p, q)| 2.0 * p - q))
}

/// The root of a falling function in \[low, high\], by halving to machine precision.
fn falling_root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
