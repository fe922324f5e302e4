//! The rule `SnrMax`: the α with the largest signal-to-noise ratio.
//!
//! With w = p/q_α and r = log t − log ref, Φ₁ = Σ (t − p) w r, Φ₂ = Var_p\[w r\], and α maximises |Φ₁| / √Φ₂ over
//! \[0, 1\]. The factor exp K(α) in w cancels. With ref = p the ratio is the same for every α where d takes two
//! values only, and elsewhere its maximum mostly lies at an end: the rule is there to be looked at.

use anyhow::Result;

use super::Rule;
use super::solve::{Root, Status};
use super::split::Split;

/// Points at which the ratio is looked at before the best interval is searched.
const GRID: usize = 64;

/// Relative differences of the ratio below this are none.
const FLAT: f64 = 1e-9;

/// The rows over the joint support.
pub(super) struct Snr {
    p: Vec<f64>,
    t: Vec<f64>,
    d: Vec<f64>,
    r: Vec<f64>,
}

impl Snr {
    /// From the rows that `split` was filled with, over the joint support. `log_ref` is the policy itself where
    /// there is none.
    pub fn of<T: Copy + Into<f64>>(split: &Split, policy: &[T], target: &[T], log_ref: Option<&[f64]>) -> Self {
        let mut snr = Self { p: Vec::new(), t: Vec::new(), d: Vec::new(), r: Vec::new() };
        for i in 0..policy.len() {
            let (y, delta) = split.relative(policy, target, i);
            if split.joint(policy, target, i) {
                let (log_p, log_t) = split.log_probs(y, delta);
                snr.p.push(log_p.exp());
                snr.t.push(log_t.exp());
                snr.d.push(log_p - log_t);
                snr.r.push(log_t - log_ref.map_or(log_p, |row| row[i]));
            }
        }
        snr
    }

    /// The rule's α.
    pub fn root(&self, split: &Split) -> Result<Root> {
        Ok(match self.best() {
            Some(alpha) => Root::at(alpha, Status::Ok, 0),
            None => Root { status: Status::Flat, ..split.root(&Rule::Q_STAR)? },
        })
    }

    /// |Φ₁| / √Φ₂ at α; 0 where both are zero.
    pub fn ratio(&self, alpha: f64) -> f64 {
        // w up to a factor, which cancels: e^{(1−α) d}, the largest 1.
        let exponent = |d: &f64| (1.0 - alpha) * d;
        let top = self.d.iter().map(exponent).fold(f64::NEG_INFINITY, f64::max);
        let wr: Vec<f64> = self.d.iter().zip(&self.r).map(|(d, r)| (exponent(d) - top).exp() * r).collect();
        let mean: f64 = self.p.iter().zip(&wr).map(|(p, x)| p * x).sum();
        let signal: f64 = self.t.iter().zip(&self.p).zip(&wr).map(|((t, p), x)| (t - p) * x).sum();
        let noise: f64 = self.p.iter().zip(&wr).map(|(p, x)| p * (x - mean).powi(2)).sum();
        if signal == 0.0 { 0.0 } else { signal.abs() / noise.sqrt() }
    }

    /// The α with the largest ratio; `None` where the ratio is the same for every α.
    fn best(&self) -> Option<f64> {
        let point = |i: usize| i as f64 / GRID as f64;
        let ratios: Vec<f64> = (0..=GRID).map(|i| self.ratio(point(i))).collect();
        let best = (0..=GRID).fold(0, |best, i| if ratios[i] > ratios[best] { i } else { best });
        let least = ratios.iter().fold(f64::INFINITY, |least, &x| least.min(x));
        // Rows so certain that the policy has nothing else leave no noise to divide by.
        if !ratios[best].is_finite() || ratios[best] - least <= FLAT * ratios[best] {
            return None;
        }
        let (mut low, mut high) = (point(best.saturating_sub(1)), point((best + 1).min(GRID)));
        // Golden section: the ratio is smooth, and its best point of the grid is within.
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        while high - low > 1e-9 {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if self.ratio(a) > self.ratio(b) { high = b } else { low = a }
        }
        let inside = 0.5 * (low + high);
        // An end of [0, 1] is reached only by trying it.
        let candidates = [inside, point(best)];
        Some(if self.ratio(candidates[1]) >= self.ratio(candidates[0]) { candidates[1] } else { candidates[0] })
    }
}
