//! Which outcomes of two rows have mass on both sides, and mistakes in the rows.

use anyhow::{Result, bail, ensure};
use pulp::Simd;

use super::tail::BLOCK;

/// Logits this far below the largest of their row are taken for −∞: what a mask of f32::MIN or −1e9 means.
pub(super) const NOTHING: f64 = 1e8;

/// Which outcomes have mass.
pub(super) struct Support {
    /// The joint outcome with the largest sum of logits.
    pub reference: usize,
    /// Whether every outcome has mass on both sides.
    pub everything: bool,
    /// The least logit that counts as mass, and the largest logit, of each row.
    pub least: [f64; 2],
    tops: [f64; 2],
}

impl Support {
    pub fn of<T: Copy + Into<f64>>(policy: &[T], target: &[T]) -> Result<Self> {
        let mut tops = [0.0; 2];
        for (top, (name, row)) in tops.iter_mut().zip([("policy", policy), ("target", target)]) {
            *top = row.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(x.into()));
            // A sum tells of NaN and +∞ at once; −∞ alone is no mistake.
            let total: f64 = row.iter().map(|&x| x.into()).filter(|x| *x != f64::NEG_INFINITY).sum();
            if !total.is_finite() {
                for (i, &x) in row.iter().enumerate() {
                    let x: f64 = x.into();
                    ensure!(!x.is_nan() && x != f64::INFINITY, "the {name} row has {x} at outcome {i}");
                }
            }
            ensure!(top.is_finite(), "the {name} row has no mass at all");
        }
        let least = tops.map(|top| top - NOTHING);
        let mut support = Self { reference: usize::MAX, everything: true, least, tops };
        let mut best = f64::NEG_INFINITY;
        for i in 0..policy.len() {
            if !support.joint(policy, target, i) {
                support.everything = false;
                continue;
            }
            let sum = policy[i].into() + target[i].into();
            if sum > best {
                (best, support.reference) = (sum, i);
            }
        }
        if support.reference == usize::MAX {
            bail!("policy and target have disjoint supports: no mixture of them exists");
        }
        Ok(support)
    }

    /// As [`Support::of`]; one quick look is enough where every outcome has mass.
    pub fn of_f32(policy: &[f32], target: &[f32]) -> Result<Self> {
        let looked = look(policy, target).map(|look| {
            let least = [look.policy[1], look.target[1]].map(|top| f64::from(top) - NOTHING);
            let low = [look.policy[0], look.target[0]].map(f64::from);
            let tops = [look.policy[1], look.target[1]].map(f64::from);
            (low[0] > least[0] && low[1] > least[1]).then_some(Self {
                reference: look.reference,
                everything: true,
                least,
                tops,
            })
        });
        match looked.flatten() {
            Some(support) => Ok(support),
            None => Self::of(policy, target),
        }
    }

    pub fn joint<T: Copy + Into<f64>>(&self, policy: &[T], target: &[T], outcome: usize) -> bool {
        policy[outcome].into() > self.least[0] && target[outcome].into() > self.least[1]
    }

    /// The largest logits, relative to the reference's: bounds of those on the joint support.
    pub fn tops(&self, policy: &[f32], target: &[f32]) -> [f64; 2] {
        [self.tops[0] - f64::from(policy[self.reference]), self.tops[1] - f64::from(target[self.reference])]
    }

    /// The exponents of outcomes that only the policy and only the target has.
    pub fn outside<T: Copy + Into<f64>>(
        &self,
        policy: &[T],
        target: &[T],
        reference_delta: f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut outside = (Vec::new(), Vec::new());
        if self.everything {
            return outside;
        }
        let (p_reference, t_reference): (f64, f64) = (policy[self.reference].into(), target[self.reference].into());
        for (&p, &t) in policy.iter().zip(target) {
            let (p, t): (f64, f64) = (p.into(), t.into());
            match (p > self.least[0], t > self.least[1]) {
                (true, false) => outside.0.push(p - p_reference + reference_delta),
                (false, true) => outside.1.push(t - t_reference),
                _ => {}
            }
        }
        outside
    }
}

/// What one quick look at two rows of logits shows.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// The least and the largest logits of policy and target.
    policy: [f32; 2],
    target: [f32; 2],
    /// The outcome with the largest sum of both.
    reference: usize,
}

/// `None` where a logit is not a number or infinite.
fn look(policy: &[f32], target: &[f32]) -> Option<Look> {
    let (ranges, sums) = pulp::Arch::new().dispatch(Ranges { policy, target });
    let [low_p, high_p, low_t, high_t] = ranges;
    // A sum of products with zero is zero, unless one of them is no number.
    if sums.0 != 0.0 || !(high_p - low_p).is_finite() || !(high_t - low_t).is_finite() {
        return None;
    }
    let block = sums.1 * BLOCK;
    let sum = |i: usize| policy[i] + target[i];
    let best = |best: usize, i: usize| if sum(i) > sum(best) { i } else { best };
    let reference = (block..(block + BLOCK).min(policy.len())).fold(block, best);
    Some(Look { policy: [low_p, high_p], target: [low_t, high_t], reference })
}

struct Ranges<'a> {
    policy: &'a [f32],
    target: &'a [f32],
}

impl pulp::WithSimd for Ranges<'_> {
    /// Least and largest of both rows; Σ 0 · logit, and the block with the largest sum of both.
    type Output = ([f32; 4], (f32, usize));

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (up, down) = (simd.splat_f32s(f32::INFINITY), simd.splat_f32s(f32::NEG_INFINITY));
        let [mut low_p, mut high_p, mut low_t, mut high_t] = [up, down, up, down];
        let zero = simd.splat_f32s(0.0);
        let (mut nothing, mut best) = (zero, (f32::NEG_INFINITY, 0));
        for (block, (p, t)) in self.policy.chunks(BLOCK).zip(self.target.chunks(BLOCK)).enumerate() {
            let mut top = down;
            let mut see = |p: S::f32s, t: S::f32s| {
                let sum = simd.add_f32s(p, t);
                nothing = simd.mul_add_e_f32s(sum, zero, nothing);
                top = simd.max_f32s(top, sum);
                (low_p, high_p) = (simd.min_f32s(low_p, p), simd.max_f32s(high_p, p));
                (low_t, high_t) = (simd.min_f32s(low_t, t), simd.max_f32s(high_t, t));
            };
            let ((p, p_rest), (t, t_rest)) = (S::as_simd_f32s(p), S::as_simd_f32s(t));
            for (&p, &t) in p.iter().zip(t) {
                see(p, t);
            }
            for (&p, &t) in p_rest.iter().zip(t_rest) {
                see(simd.splat_f32s(p), simd.splat_f32s(t));
            }
            let top = simd.reduce_max_f32s(top);
            if top > best.0 {
                best = (top, block);
            }
        }
        let ranges = [
            simd.reduce_min_f32s(low_p),
            simd.reduce_max_f32s(high_p),
            simd.reduce_min_f32s(low_t),
            simd.reduce_max_f32s(high_t),
        ];
        (ranges, (simd.reduce_sum_f32s(nothing), best.1))
    }
}
