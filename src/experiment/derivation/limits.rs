//! Two limits: policy and target that come ever closer, and an ε inside the logarithm.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::{both_sides, third_cumulant};
use crate::mixture::{Pair, Rule};
use crate::record::record;

record! {
    /// The pair of p and p^(1−s) t^s, at its q*.
    pub struct SmallGapRow {
        /// s: 1 is the pair itself.
        pub gap: f64,
        /// KL(q*‖p) = KL(q*‖t), nats.
        pub kl: f64,
        pub log_ess_p: f64,
        pub log_ess_t: f64,
        /// −log ESS over KL: tends to 2.
        pub minus_log_ess_p_over_kl: f64,
        pub minus_log_ess_t_over_kl: f64,
        /// What the third cumulant κ₃ and the second κ₂ of d under q_½ predict, as a share of what is found:
        /// α_KL − 1/2 ≈ κ₃/(24 κ₂), α_ESS − 1/2 ≈ κ₃/(8 κ₂), log(ESS_p/ESS_t) at α_KL ≈ −κ₃/6. Each tends to 1.
        pub found_over_predicted_alpha_kl: f64,
        pub found_over_predicted_alpha_ess: f64,
        pub found_over_predicted_log_ratio: f64,
    }
}

record! {
    /// α* of softmax(z, 0, …, 0) against the uniform distribution, with and without an ε in the logarithm.
    pub struct EpsilonRow {
        /// z, the logit of the first of the outcomes.
        pub logit: f64,
        pub epsilon: f64,
        /// The probability of each of the other outcomes, to compare ε with.
        pub smallest_p: f64,
        pub alpha: f64,
        pub alpha_with_epsilon: f64,
        pub shift: f64,
        /// At the α found with ε: the two divergences of the true q_α, which should be equal.
        pub kl_p: f64,
        pub kl_t: f64,
    }
}

/// A row a gap s in (0, 1]: policy p, and the target drawn towards it along the geometric path, p^(1−s) t^s.
///
/// Gaps below about 1e-3 leave too few digits for the differences. Where K is symmetric, both sides of the last three
/// columns are zero and what they show is rounding.
///
/// # Errors
/// A gap outside of (0, 1]; supports that differ; p = t.
///
/// ```
/// use qstar::experiment::derivation::small_gaps;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 1.0, 0.0], &[0.0, 0.5, 1.0])?;
/// let gaps = small_gaps(&pair, &[0.01])?;
/// assert!((gaps.column("minus_log_ess_p_over_kl")?.f64()?.get(0).unwrap() - 2.0).abs() < 0.01);
/// # anyhow::Ok(())
/// ```
pub fn small_gaps(pair: &Pair, gaps: &[f64]) -> Result<DataFrame> {
    let (log_p, _) = both_sides(pair)?;
    let row = |gap: &f64| {
        ensure!(0.0 < *gap && *gap <= 1.0, "a gap must lie in (0, 1]: {gap}");
        let near = Pair::from_log_probs(&log_p, &pair.log_q(1.0 - gap))?;
        let at = near.solve(&Rule::Q_STAR)?;
        ensure!(at.k < 0.0, "policy and target are the same at the gap {gap}");
        let balanced = near.solve(&Rule::EssBalance)?;
        let (k2, k3) = (near.moments(0.5).k2, third_cumulant(&near, 0.5));
        Ok(SmallGapRow {
            gap: *gap,
            kl: -at.k,
            log_ess_p: at.log_ess_p,
            log_ess_t: at.log_ess_t,
            minus_log_ess_p_over_kl: at.log_ess_p / at.k,
            minus_log_ess_t_over_kl: at.log_ess_t / at.k,
            found_over_predicted_alpha_kl: (at.alpha - 0.5) / (k3 / (24.0 * k2)),
            found_over_predicted_alpha_ess: (balanced.alpha - 0.5) / (k3 / (8.0 * k2)),
            found_over_predicted_log_ratio: (at.log_ess_p - at.log_ess_t) / (-k3 / 6.0),
        })
    };
    SmallGapRow::frame(&gaps.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// A row for each logit and each ε: policy softmax(logit, 0, …, 0) over `outcomes` outcomes, uniform target; K' is once
/// made from log p and log t, and once from log(p + ε) and log(t + ε), normalised again.
///
/// # Errors
/// Less than two outcomes; an ε so large that a row no longer sums to 1 within 1e-3.
///
/// ```
/// let shifts = qstar::experiment::derivation::epsilon_shifts(&[10.0], &[0.0], 10)?;
/// assert!(shifts.column("shift")?.f64()?.get(0).unwrap().abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn epsilon_shifts(logits: &[f32], epsilons: &[f64], outcomes: usize) -> Result<DataFrame> {
    ensure!(outcomes >= 2, "one outcome leaves nothing to choose");
    let row = |(logit, epsilon): (f32, f64)| {
        let mut policy = vec![0.0; outcomes];
        policy[0] = logit;
        let pair = Pair::from_logits(&policy, &vec![0.0; outcomes])?;
        let (log_p, log_t) = both_sides(&pair)?;
        let disturbed = |row: &[f64]| row.iter().map(|x| (x.exp() + epsilon).ln()).collect::<Vec<_>>();
        let alpha = pair.solve(&Rule::Q_STAR)?.alpha;
        let wrong = Pair::from_log_probs(&disturbed(&log_p), &disturbed(&log_t))?.solve(&Rule::Q_STAR)?.alpha;
        let there = pair.solve(&Rule::Fixed(wrong))?;
        Ok(EpsilonRow {
            logit: f64::from(logit),
            epsilon,
            smallest_p: log_p[outcomes - 1].exp(),
            alpha,
            alpha_with_epsilon: wrong,
            shift: wrong - alpha,
            kl_p: there.kl_p,
            kl_t: there.kl_t,
        })
    };
    let all = logits.iter().flat_map(|logit| epsilons.iter().map(move |epsilon| (*logit, *epsilon)));
    EpsilonRow::frame(&all.map(row).collect::<Result<Vec<_>>>()?)
}
