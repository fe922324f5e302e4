//! One pair, as α goes from the target to the policy.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::rounded;
use crate::mixture::{Pair, Rule};
use crate::record::record;

record! {
    /// A number with its name.
    pub struct ValueRow {
        pub quantity: String,
        pub value: f64,
    }
}

record! {
    /// K, its first two derivatives, the two divergences and the two log ESS at one α.
    pub struct CurveRow {
        pub alpha: f64,
        pub k: f64,
        pub k1: f64,
        pub k2: f64,
        pub kl_p: f64,
        pub kl_t: f64,
        pub log_ess_p: f64,
        pub log_ess_t: f64,
    }
}

record! {
    /// One of Newton's steps towards the root of K'.
    pub struct NewtonRow {
        pub step: i64,
        pub alpha: f64,
        pub k: f64,
        pub k1: f64,
        pub k2: f64,
        /// α − K'(α)/K''(α).
        pub next: f64,
        /// α − α*, and how many decimals of it are right: −log₁₀|α − α*|, at most 15.
        pub error: f64,
        pub decimals: f64,
    }
}

record! {
    /// The α of one rule, and what q_α is worth there.
    pub struct RuleRow {
        pub rule: String,
        pub alpha: f64,
        pub kl_p: f64,
        pub kl_t: f64,
        pub ess_p: f64,
        pub ess_t: f64,
        /// ESS_p / ESS_t.
        pub ess_ratio: f64,
    }
}

/// Named numbers as a frame, one below the other, to twelve decimals: what a formula says beside what it should be.
///
/// ```
/// let frame = qstar::experiment::derivation::values(&[("left side", 0.5), ("right side", 0.5)])?;
/// assert_eq!(frame.shape(), (2, 2));
/// # anyhow::Ok(())
/// ```
pub fn values(numbers: &[(&str, f64)]) -> Result<DataFrame> {
    let row = |(name, value): &(&str, f64)| ValueRow { quantity: (*name).to_owned(), value: rounded(*value) };
    ValueRow::frame(&numbers.iter().map(row).collect::<Vec<_>>())
}

/// A [`CurveRow`] at each of `points` values of α, evenly from 0 to 1.
///
/// # Errors
/// Fewer than two points.
///
/// ```
/// use qstar::experiment::derivation::curves;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 0.0], &[0.0, 1.0])?;
/// assert_eq!(curves(&pair, 101)?.shape(), (101, 8));
/// # anyhow::Ok(())
/// ```
pub fn curves(pair: &Pair, points: usize) -> Result<DataFrame> {
    ensure!(points >= 2, "a curve needs at least two points");
    let row = |i: usize| {
        let at = pair.solve(&Rule::Fixed(i as f64 / (points - 1) as f64))?;
        Ok(CurveRow {
            alpha: at.alpha,
            k: at.k,
            k1: at.k1,
            k2: at.k2,
            kl_p: at.kl_p,
            kl_t: at.kl_t,
            log_ess_p: at.log_ess_p,
            log_ess_t: at.log_ess_t,
        })
    };
    CurveRow::frame(&(0..points).map(row).collect::<Result<Vec<_>>>()?)
}

/// `steps` of Newton's method for K'(α) = 0 from `start`, bare: the library's solver also keeps a bracket around the
/// root, without which a start far from it may leave \[0, 1\].
///
/// # Errors
/// p = t, where K'' is zero.
///
/// ```
/// use qstar::experiment::derivation::newton;
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 0.0], &[0.0, 1.0])?;
/// let steps = newton(&pair, 0.9, 6)?;
/// assert!(steps.column("error")?.f64()?.get(5).unwrap().abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn newton(pair: &Pair, start: f64, steps: u32) -> Result<DataFrame> {
    let root = pair.solve(&Rule::Q_STAR)?.alpha;
    let mut rows = Vec::new();
    let mut alpha = start;
    for step in 0..steps {
        let m = pair.moments(alpha);
        ensure!(m.k2 > 0.0, "K'' is zero at {alpha}: policy and target are the same");
        let next = alpha - m.k1 / m.k2;
        let error = alpha - root;
        let decimals = -error.abs().max(1e-15).log10();
        rows.push(NewtonRow { step: i64::from(step), alpha, k: m.k, k1: m.k1, k2: m.k2, next, error, decimals });
        alpha = next;
    }
    NewtonRow::frame(&rows)
}

/// A row a rule: the two ends, the middle, and each rule of [`Rule`] that chooses an α of its own.
///
/// # Errors
/// As [`Pair::solve`].
///
/// ```
/// use qstar::mixture::Pair;
///
/// let pair = Pair::from_logits(&[2.0, 0.0], &[0.0, 1.0])?;
/// assert_eq!(qstar::experiment::derivation::rules(&pair)?.height(), 6);
/// # anyhow::Ok(())
/// ```
pub fn rules(pair: &Pair) -> Result<DataFrame> {
    let rules = [
        ("target (α = 0)", Rule::Fixed(0.0)),
        ("middle (α = 1/2)", Rule::Fixed(0.5)),
        ("policy (α = 1)", Rule::Fixed(1.0)),
        ("entropy", Rule::Entropy),
        ("KL symmetry (q*)", Rule::Q_STAR),
        ("ESS balance", Rule::EssBalance),
    ];
    let row = |(name, rule): &(&str, Rule)| {
        let at = pair.solve(rule)?;
        Ok(RuleRow {
            rule: (*name).to_owned(),
            alpha: at.alpha,
            kl_p: rounded(at.kl_p),
            kl_t: rounded(at.kl_t),
            ess_p: at.log_ess_p.exp(),
            ess_t: at.log_ess_t.exp(),
            ess_ratio: (at.log_ess_p - at.log_ess_t).exp(),
        })
    };
    RuleRow::frame(&rules.iter().map(row).collect::<Result<Vec<_>>>()?)
}

/// K'''(α), the third cumulant of d under q_α: the slope of K'' by a central difference, to about six digits.
///
/// ```
/// use qstar::experiment::derivation::third_cumulant;
/// use qstar::mixture::Pair;
///
/// // Two mirror images: K is symmetric about 1/2, and has no third derivative there.
/// let pair = Pair::from_log_probs(&[0.7f64.ln(), 0.3f64.ln()], &[0.3f64.ln(), 0.7f64.ln()])?;
/// assert!(third_cumulant(&pair, 0.5).abs() < 1e-9);
/// # anyhow::Ok(())
/// ```
pub fn third_cumulant(pair: &Pair, alpha: f64) -> f64 {
    const STEP: f64 = 1e-3;
    let k2 = |alpha: f64| pair.moments(alpha).k2;
    (k2(alpha + STEP) - k2(alpha - STEP)) / (2.0 * STEP)
}
