//! What draws from a proposal are worth: exact variances beside simulated ones, and proposals off the geometric path.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;
use rand::Rng;

use super::{both_sides, falling_root, kl, log_ess, log_sum_exp, rounded};
use crate::metrics::{mean, sd};
use crate::mixture::{Pair, Rule};
use crate::record::record;
use crate::seed::{self, Purpose};

record! {
    /// One proposal and the two means that are estimated with draws from it.
    pub struct EstimateRow {
        pub draws_from: String,
        /// Standard deviation of the mean of n weighted draws: by the formula, and over the repetitions.
        pub sd_p: f64,
        pub sd_p_simulated: f64,
        pub sd_t: f64,
        pub sd_t_simulated: f64,
        /// How many draws from p one draw is worth when E_p f is wanted: for this f, and as ESS says for no f.
        pub worth_p: f64,
        pub ess_p: f64,
        pub worth_t: f64,
        pub ess_t: f64,
    }
}

record! {
    /// One proposal: how far from both sides, and what its draws are worth to both.
    pub struct ProposalRow {
        pub proposal: String,
        pub kl_p: f64,
        pub kl_t: f64,
        pub larger_kl: f64,
        pub log_ess_p: f64,
        pub log_ess_t: f64,
        /// ESS of the side that has less of it, as a share of the draws.
        pub smaller_ess: f64,
    }
}

/// E_p f and E_t f, each estimated by the mean of `draws` weighted draws from t, from p, from the middle (α = 1/2)
/// and from q*, `repeats` times. `f` has a value an outcome.
///
/// # Errors
/// Supports that differ, an `f` of another length, one that is constant on either side (its mean has no variance to
/// compare with), fewer than two repeats.
///
/// ```
/// use qstar::experiment::derivation::estimates;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let frame = estimates(&pair, &[0.0, 1.0, 3.0], 20, 500, 0)?;
/// let (exact, simulated) = (frame.column("sd_p")?.f64()?, frame.column("sd_p_simulated")?.f64()?);
/// assert!((exact.get(3).unwrap() / simulated.get(3).unwrap() - 1.0).abs() < 0.15);
/// # anyhow::Ok(())
/// ```
pub fn estimates(pair: &Pair, f: &[f64], draws: usize, repeats: usize, seed: u64) -> Result<DataFrame> {
    let (log_p, log_t) = both_sides(pair)?;
    ensure!(f.len() == pair.size(), "f has {} values for {} outcomes", f.len(), pair.size());
    ensure!(draws > 0 && repeats > 1, "a standard deviation needs at least two repeats of one draw");
    let sides = [&log_p, &log_t];
    for log_side in sides {
        ensure!(variance(log_side, log_side, f) > 0.0, "f is constant: its mean is known without any draw");
    }
    let star = pair.solve(&Rule::Q_STAR)?.alpha;
    let proposals = [("target", 0.0), ("middle", 0.5), ("q*", star), ("policy", 1.0)];
    let row = |(index, (name, alpha)): (usize, &(&str, f64))| {
        let log_q = pair.log_q(*alpha);
        let exact = sides.map(|side| variance(side, &log_q, f));
        let simulated = simulate(&sides, &log_q, f, draws, repeats, seed, index as u64);
        let worth = |side: usize| variance(sides[side], sides[side], f) / exact[side];
        EstimateRow {
            draws_from: (*name).to_owned(),
            sd_p: (exact[0] / draws as f64).sqrt(),
            sd_p_simulated: sd(&simulated[0]),
            sd_t: (exact[1] / draws as f64).sqrt(),
            sd_t_simulated: sd(&simulated[1]),
            worth_p: worth(0),
            ess_p: log_ess(&log_p, &log_q).exp(),
            worth_t: worth(1),
            ess_t: log_ess(&log_t, &log_q).exp(),
        }
    };
    EstimateRow::frame(&proposals.iter().enumerate().map(row).collect::<Vec<_>>())
}

/// Var_q[w f] with w = p/q: Σ p² f²/q − (E_p f)².
fn variance(log_p: &[f64], log_q: &[f64], f: &[f64]) -> f64 {
    let terms = || log_p.iter().zip(log_q).zip(f);
    let first: f64 = terms().map(|((p, _), f)| p.exp() * f).sum();
    let second: f64 = terms().map(|((p, q), f)| (2.0 * p - q).exp() * f * f).sum();
    (second - first * first).max(0.0)
}

/// The estimates of both means, one a repetition.
fn simulate(
    sides: &[&Vec<f64>; 2],
    log_q: &[f64],
    f: &[f64],
    draws: usize,
    repeats: usize,
    seed: u64,
    stream: u64,
) -> [Vec<f64>; 2] {
    let mut rng = seed::rng(seed, Purpose::Derivation, 0, stream);
    let mut estimates = [Vec::with_capacity(repeats), Vec::with_capacity(repeats)];
    for _ in 0..repeats {
        let mut samples = [Vec::with_capacity(draws), Vec::with_capacity(draws)];
        for _ in 0..draws {
            let y = draw(log_q, rng.random());
            for (samples, side) in samples.iter_mut().zip(sides) {
                samples.push((side[y] - log_q[y]).exp() * f[y]);
            }
        }
        for (estimates, samples) in estimates.iter_mut().zip(&samples) {
            estimates.push(mean(samples));
        }
    }
    estimates
}

/// The outcome at which the distribution function passes `u` in [0, 1).
fn draw(log_q: &[f64], u: f64) -> usize {
    let mut below = 0.0;
    let passed = log_q.iter().position(|x| {
        below += x.exp();
        u < below
    });
    passed.unwrap_or(log_q.len() - 1)
}

/// Proposals on the geometric path beside two that are not on it: the arithmetic mixture (p + t)/2, whose ESS is at
/// least 1/2 on both sides for every pair, and q ∝ √(λp² + (1−λ)t²) with the λ that makes both ESS equal. Of **all**
/// distributions the latter has the largest smaller ESS (the stationary point of λ Σp²/q + (1−λ) Σt²/q under
/// Σq = 1; both sums are convex in q).
///
/// # Errors
/// Supports that differ.
///
/// ```
/// use qstar::experiment::derivation::proposals;
/// use qstar::mixture::Pair;
///
/// let frame = proposals(&Pair::from_logits(&[9.0, 0.0, 1.0], &[0.0, 9.0, 1.0])?)?;
/// let ess = frame.column("smaller_ess")?.f64()?;
/// assert!(ess.get(4).unwrap() >= 0.5 && ess.get(5) >= ess.get(4));
/// # anyhow::Ok(())
/// ```
pub fn proposals(pair: &Pair) -> Result<DataFrame> {
    let (log_p, log_t) = both_sides(pair)?;
    let mut rows = Vec::new();
    let mut add = |name: &str, log_q: Vec<f64>| {
        let (kl_p, kl_t) = (rounded(kl(&log_q, &log_p)), rounded(kl(&log_q, &log_t)));
        let (log_ess_p, log_ess_t) = (rounded(log_ess(&log_p, &log_q)), rounded(log_ess(&log_t, &log_q)));
        rows.push(ProposalRow {
            proposal: name.to_owned(),
            kl_p,
            kl_t,
            larger_kl: kl_p.max(kl_t),
            log_ess_p,
            log_ess_t,
            smaller_ess: log_ess_p.min(log_ess_t).exp(),
        });
    };
    add("target", pair.log_q(0.0));
    add("policy", pair.log_q(1.0));
    add("geometric, KL symmetry (q*)", pair.log_q(pair.solve(&Rule::Q_STAR)?.alpha));
    add("geometric, ESS balance", pair.log_q(pair.solve(&Rule::EssBalance)?.alpha));
    add("arithmetic, 1/2", mixture(&log_p, &log_t, 0.5, 1.0));
    // ESS_p rises with λ and ESS_t falls.
    let lambda = falling_root(0.0, 1.0, |lambda| {
        let log_q = mixture(&log_p, &log_t, lambda, 2.0);
        log_ess(&log_t, &log_q) - log_ess(&log_p, &log_q)
    });
    add("root mean square, ESS balance", mixture(&log_p, &log_t, lambda, 2.0));
    ProposalRow::frame(&rows)
}

/// log of (λ p^n + (1−λ) t^n)^(1/n), normalised.
fn mixture(log_p: &[f64], log_t: &[f64], lambda: f64, n: f64) -> Vec<f64> {
    let one = |(p, t): (&f64, &f64)| log_sum_exp([lambda.ln() + n * p, (1.0 - lambda).ln() + n * t].into_iter()) / n;
    let row: Vec<f64> = log_p.iter().zip(log_t).map(one).collect();
    let log_z = log_sum_exp(row.iter().copied());
    row.into_iter().map(|x| x - log_z).collect()
}
