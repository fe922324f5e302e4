//! A pair of rows of logits, split into the few outcomes that hold most of the mass and the many that hold the rest.
//!
//! q depends on d = log p − log t through E_q\[d\] − (log Z_p − log Z_t), a small difference. Everything is therefore
//! kept relative: exponents to one outcome of large mass, the reference, and the differences of logits to a `zero`
//! near their mean, δ = d − zero, formed before anything is rounded. The heavy outcomes are then summed in f64 and the
//! light ones, whose rounding averages out, in f32 ([`super::tail`]). Short rows and rows of f64 are all head.

use anyhow::{Result, ensure};

use super::Moments;
use super::head::{self, Head};
use super::solve::not_negative;
use super::support::{NOTHING, Support};
use super::tail::{self, BLOCK, Tail};

/// An outcome with more than this share of the mass of p or of t belongs to the head.
pub(super) const HEAVY: f64 = 1.0 / 64.0;

/// Rows up to this length are all head.
const SHORT: usize = 1024;

/// Where every |δ| is below this many nats, K is integrated from K' and K'': the logarithm of a sum that is
/// nearly 1 would leave no digits of it.
const CLOSE: f64 = 1.0 / 16.0;

/// Where the logarithms of two sums differ by less than this, the sum of the differences is the better one,
const NEAR_1: f64 = 0.5;

/// and it is worth its time where the variance of d is below this.
const SMALL_VARIANCE: f64 = 0.1;

/// With a standard deviation of d below this, f32 differences of weights have too few digits.
const WIDE: f64 = 0.3;

/// How many standard deviations `zero` may lie from the mean of d in the fast reading of f32 rows.
const OUTLIER: f64 = 4.0;

/// Where the light outcomes of p and those of t have d this many nats apart, and both hold more than [`SOME`] of their
/// side's mass, f32 exponents are too coarse.
const APART: f64 = 22.0;
const SOME: f64 = 1e-3;

/// How far, in nats, `zero` may lie from the reference's d: at α = 1 every exponent is moved by as much, and f32 has
/// only so many.
const FAR: f64 = 16.0;

/// Outcomes of both sides in one place; the buffers are used again from row to row.
#[derive(Debug, Clone, Default)]
pub(super) struct Split {
    pub size: usize,
    pub reference: usize,
    /// Logits of policy and target above these count as mass.
    pub least: [f64; 2],
    pub head: Head,
    tail: Tail,
    /// What is taken from every difference of logits; the reference's δ.
    zero: f64,
    pub reference_delta: f64,
    /// log Σ exp(y + δ) over the policy's outcomes, log Σ exp(y) over the target's.
    pub log_z_p: f64,
    pub log_z_t: f64,
    /// log Σ exp(y) over the joint support.
    log_w_t: f64,
    /// Whether the differences of logits are exact enough for sums of differences of weights.
    careful: bool,
    /// log_z_p − log_z_t, exact also where the two are nearly the same.
    shift_of_d: f64,
    pub entropy_p: f64,
    pub entropy_t: f64,
    /// Whether p (t) has mass where t (p) has none.
    pub p_outside: bool,
    pub t_outside: bool,
    /// Moments at α = 0 and α = 1.
    pub ends: [Moments; 2],
    /// The largest exponents of t and of p relative to the reference, in nats; at least 0.
    tops: [f64; 2],
    /// The largest |δ|, in nats.
    furthest: f64,
}

/// Weights exp(a y + b δ) of all outcomes, summed.
#[derive(Debug, Clone, Default)]
pub(super) struct Weighed {
    pub a: f64,
    pub b: f64,
    /// log Σ w.
    pub log_w: f64,
    /// Mean and variance of δ, and the mean of y, under w.
    pub delta: f64,
    pub variance: f64,
    pub y: f64,
    /// What was taken from every exponent, in nats, and the weights of reference, head and tail with it.
    pub shift: f64,
    pub reference: f64,
    pub head: f64,
    pub blocks: Vec<f32>,
}

/// Σ w, Σ w δ, Σ w δ², and Σ w times the own exponent, with the weights of one side.
type OwnSums = [f64; 4];

impl Split {
    /// From two rows of f32 logits.
    ///
    /// # Errors
    /// Rows of different or zero length, NaN or +∞, a row without mass, disjoint supports.
    pub fn fill_f32(&mut self, policy: &[f32], target: &[f32]) -> Result<()> {
        same_length(policy.len(), target.len())?;
        if policy.len() <= SHORT {
            return self.fill_head(policy, target);
        }
        if self.fill_fast(policy, target) { Ok(()) } else { self.fill_carefully(policy, target) }
    }

    /// From two rows of f64 logits.
    ///
    /// # Errors
    /// As [`Split::fill_f32`].
    pub fn fill_f64(&mut self, policy: &[f64], target: &[f64]) -> Result<()> {
        same_length(policy.len(), target.len())?;
        self.fill_head(policy, target)
    }

    fn clear<T: Copy + Into<f64>>(&mut self, policy: &[T], target: &[T], reference: usize, zero: Option<f64>) {
        self.head.clear();
        (self.size, self.reference) = (policy.len(), reference);
        let d: f64 = policy[reference].into() - target[reference].into();
        self.zero = zero.map_or(d, |zero| zero.clamp(d - FAR, d + FAR));
        self.reference_delta = d - self.zero;
        (self.p_outside, self.t_outside) = (false, false);
        self.least = [f64::NEG_INFINITY; 2];
    }

    /// One reading of rows of finite logits, around a reference taken from their first block. False where the
    /// rows turn out to need more care.
    fn fill_fast(&mut self, policy: &[f32], target: &[f32]) -> bool {
        let (p, t) = (&policy[..BLOCK], &target[..BLOCK]);
        let sum = |i: usize| p[i] + t[i];
        let reference = (0..BLOCK).fold(0, |best, i| if sum(i) > sum(best) { i } else { best });
        let zero = p.iter().zip(t).map(|(p, t)| p - t).sum::<f32>() / BLOCK as f32;
        let furthest = p.iter().zip(t).fold(0.0f32, |far, (p, t)| far.max((p - t - zero).abs()));
        if !zero.is_finite() || f64::from(furthest) < 2.0 * WIDE {
            return false;
        }
        self.clear(policy, target, reference, Some(f64::from(zero)));
        if self.zero != f64::from(zero) {
            return false;
        }
        self.tail.fill(policy, target, reference, zero);
        let (target_sums, policy_sums) = self.tail_ends();
        let tops = self.tail_tops();
        let furthest = self.tail.ends.iter().fold(0.0f32, |far, ends| far.max(ends.furthest));
        let finite = target_sums.iter().chain(&policy_sums).all(|x| x.is_finite());
        // A δ that large is a mask on one side.
        if !finite || furthest > -tail::NO_MASS || tops.iter().any(|&x| x > tail::NO_SHIFT) {
            return false;
        }
        for sums in [target_sums, policy_sums] {
            let (mean, variance) = mean_and_variance(sums);
            let sd = variance.sqrt();
            let good = sd >= WIDE && mean.abs() <= OUTLIER * sd && f64::from(zero.abs()) <= 16.0 * OUTLIER * sd;
            if !good {
                return false;
            }
        }
        self.take_the_heavy(policy, target, target_sums[0], policy_sums[0]);
        if self.is_torn_apart(target_sums[0], policy_sums[0]) {
            return false;
        }
        let in_nats = tops.map(|bits| bits * std::f64::consts::LN_2);
        let top_p = f64::from(policy[reference]) + in_nats[1] - self.reference_delta;
        self.least = [top_p, f64::from(target[reference]) + in_nats[0]].map(|top| top - NOTHING);
        self.finish(Vec::new(), Vec::new(), false);
        true
    }

    /// Rows with masks, rows that are nearly the same, rows with one outcome far above the rest.
    fn fill_carefully(&mut self, policy: &[f32], target: &[f32]) -> Result<()> {
        let support = Support::of_f32(policy, target)?;
        let [top_p, top_t] = support.tops(policy, target);
        if top_p.max(top_t) * std::f64::consts::LOG2_E > tail::NO_SHIFT {
            return self.fill_head(policy, target);
        }
        let masked = |row: &[f32]| -> Vec<f32> {
            let nothing = row[support.reference] + tail::NO_MASS;
            row.iter().enumerate().map(|(i, &x)| if support.joint(policy, target, i) { x } else { nothing }).collect()
        };
        let rows = if support.everything { None } else { Some((masked(policy), masked(target))) };
        let (p, t) = rows.as_ref().map_or((policy, target), |(p, t)| (p, t));
        let sample = p.iter().zip(t).take(BLOCK).map(|(&p, &t)| f64::from(p) - f64::from(t)).sum::<f64>();
        self.clear(policy, target, support.reference, support.everything.then_some(sample / BLOCK as f64));
        let (mut target_sums, mut policy_sums) = self.fill_tail_exactly(p, t);
        let (mean_t, variance_t) = mean_and_variance(target_sums);
        let (mean_p, variance_p) = mean_and_variance(policy_sums);
        let mean = 0.5 * (mean_t + mean_p);
        if mean * mean > 0.25 * variance_t.min(variance_p) {
            // Where the reference has nearly all the mass, only its own d as zero keeps the digits of the rest.
            let certain = target_sums[0].max(policy_sums[0] / self.reference_delta.exp()) < 2.0;
            self.clear(policy, target, support.reference, (!certain).then_some(self.zero + mean));
            (target_sums, policy_sums) = self.fill_tail_exactly(p, t);
        }
        self.take_the_heavy(policy, target, target_sums[0], policy_sums[0]);
        if self.is_torn_apart(target_sums[0], policy_sums[0]) {
            return self.fill_head(policy, target);
        }
        self.least = support.least;
        let (p_only, t_only) = support.outside(policy, target, self.reference_delta);
        self.finish(p_only, t_only, true);
        Ok(())
    }

    /// Whether the two sides' light outcomes are too far apart for f32; given Σ w over all outcomes of t and of p.
    fn is_torn_apart(&self, mass_t: f64, mass_p: f64) -> bool {
        let (target, policy) = self.tail_ends();
        let both = target[0] > SOME * mass_t && policy[0] > SOME * mass_p;
        both && (mean_and_variance(target).0 - mean_and_variance(policy).0).abs() > APART
    }

    /// The tail of all outcomes but the reference, and the sums at both ends with it.
    fn fill_tail_exactly(&mut self, policy: &[f32], target: &[f32]) -> (OwnSums, OwnSums) {
        self.tail.fill_exactly(policy, target, self.reference, self.zero);
        self.tail.remove(self.reference);
        for block in 0..self.tail.ends.len() {
            self.tail.sum_ends(block);
        }
        let (mut target_sums, mut policy_sums) = self.tail_ends();
        add(&mut target_sums, self.reference_sums(0.0, 0.0));
        add(&mut policy_sums, self.reference_sums(1.0, 0.0));
        (target_sums, policy_sums)
    }

    /// The reference's share of the sums of the side at `alpha`.
    fn reference_sums(&self, alpha: f64, shift: f64) -> OwnSums {
        let delta = self.reference_delta;
        let w = (alpha * delta - shift).exp();
        [w, w * delta, w * delta * delta, w * alpha * delta]
    }

    /// All outcomes in f64.
    fn fill_head<T: Copy + Into<f64>>(&mut self, policy: &[T], target: &[T]) -> Result<()> {
        let support = Support::of(policy, target)?;
        let reference = support.reference;
        self.clear(policy, target, reference, None);
        self.tail.clear();
        for i in (0..policy.len()).filter(|&i| i != reference && support.joint(policy, target, i)) {
            let (y, delta) = self.relative(policy, target, i);
            self.head.push(i, y, delta);
        }
        self.least = support.least;
        let (p_only, t_only) = support.outside(policy, target, self.reference_delta);
        self.finish(p_only, t_only, true);
        Ok(())
    }

    /// Moves the outcomes with more than their share of the mass from the tail to the head, with all their digits.
    fn take_the_heavy(&mut self, policy: &[f32], target: &[f32], mass_t: f64, mass_p: f64) {
        let threshold = |mass: f64| (mass * HEAVY).log2() as f32;
        let (heavy_t, heavy_p) = (threshold(mass_t), threshold(mass_p));
        for block in 0..self.tail.ends.len() {
            let top = self.tail.ends[block].top;
            let has_reference = self.reference / BLOCK == block;
            if !(has_reference || top[0] > heavy_t || top[1] > heavy_p) {
                continue;
            }
            if has_reference {
                self.tail.remove(self.reference);
            }
            for i in self.tail.above(block, heavy_t, heavy_p) {
                let (y, delta) = self.relative(policy, target, i);
                self.head.push(i, y, delta);
                self.tail.remove(i);
            }
            self.tail.sum_ends(block);
        }
    }

    /// Σ over the tail at α = 0 and α = 1, in nats.
    fn tail_ends(&self) -> (OwnSums, OwnSums) {
        let sum = |f: &dyn Fn(&tail::EndSums) -> [f32; 4]| {
            let mut total = [0.0; 4];
            for ends in &self.tail.ends {
                for (sum, x) in total.iter_mut().zip(f(ends)) {
                    *sum += f64::from(x);
                }
            }
            in_nats(total)
        };
        (sum(&|ends| ends.target), sum(&|ends| ends.policy))
    }

    /// The tail's largest exponents of t and p, in bits.
    fn tail_tops(&self) -> [f64; 2] {
        let top = |side: usize| self.tail.ends.iter().fold(f32::NEG_INFINITY, |top, ends| top.max(ends.top[side]));
        [top(0).into(), top(1).into()]
    }

    /// Normalisers, entropies and both ends from head, tail and the exponents of outcomes that only one side has.
    fn finish(&mut self, p_only: Vec<f64>, t_only: Vec<f64>, careful: bool) {
        self.careful = careful;
        (self.p_outside, self.t_outside) = (!p_only.is_empty(), !t_only.is_empty());
        let (tail_t, tail_p) = self.tail_ends();
        let in_tail = self.tail_tops().map(|bits| bits * std::f64::consts::LN_2);
        let biggest = |only: &[f64]| only.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(x));
        let top =
            |alpha: f64, tail: f64| self.head.top(1.0, alpha).max(tail).max(alpha * self.reference_delta).max(0.0);
        self.tops = [top(0.0, in_tail[0]), top(1.0, in_tail[1])];
        let side = |alpha: f64, tail: OwnSums, only: &[f64], top: f64| {
            let top = top.max(biggest(only));
            let shift = if top > head::NO_SHIFT { top } else { 0.0 };
            let mut sums = self.head.sums(1.0, alpha, shift);
            sums[3] += alpha * sums[1]; // the policy's own exponent is y + δ
            add(&mut sums, tail.map(|x| x * (-shift).exp()));
            let (mut outside, mut outside_exponent) = (0.0, 0.0);
            for x in only {
                let w = (x - shift).exp();
                outside += w;
                outside_exponent += w * x;
            }
            let reference = self.reference_sums(alpha, shift);
            // Where the reference weighs exactly 1, the rest keeps all its digits.
            let log = |rest: f64| {
                if reference[0] == 1.0 { rest.ln_1p() + shift } else { (reference[0] + rest).ln() + shift }
            };
            let log_z = log(sums[0] + outside);
            let joint_mass = if only.is_empty() { 0.0 } else { log(sums[0]) - log_z };
            add(&mut sums, reference);
            let entropy = log_z - (sums[3] + outside_exponent) / (sums[0] + outside);
            let (mean, variance) = mean_and_variance(sums);
            let z = if shift == 0.0 { sums[0] + outside } else { f64::INFINITY };
            (log_z, not_negative(entropy), Moments { k: joint_mass, k1: mean, k2: variance }, z)
        };
        let (log_z_t, entropy_t, mut at_0, z_t) = side(0.0, tail_t, &t_only, self.tops[0]);
        let (log_z_p, entropy_p, mut at_1, z_p) = side(1.0, tail_p, &p_only, self.tops[1]);
        let direct = log_z_p - log_z_t;
        let shift_of_d = if careful && z_p.is_finite() && z_t.is_finite() && direct.abs() < NEAR_1 {
            let outside = p_only.iter().map(|x| x.exp()).sum::<f64>() - t_only.iter().map(|x| x.exp()).sum::<f64>();
            ((self.difference(1.0) + outside) / z_t).ln_1p()
        } else {
            direct
        };
        at_0.k1 -= shift_of_d;
        at_1.k1 -= shift_of_d;
        (self.log_z_p, self.log_z_t, self.shift_of_d) = (log_z_p, log_z_t, shift_of_d);
        (self.entropy_p, self.entropy_t) = (entropy_p, entropy_t);
        self.ends = [at_0, at_1];
        self.log_w_t = log_z_t + at_0.k;
        let in_head = self.head.delta.iter().fold(0.0f64, |far, x| far.max(x.abs()));
        let in_tail = self.tail.ends.iter().fold(0.0f32, |far, ends| far.max(ends.furthest));
        self.furthest = in_head.max(f64::from(in_tail) * std::f64::consts::LN_2).max(self.reference_delta.abs());
    }

    /// Σ (e^(y + b δ) − e^y), without cancellation where δ is small.
    fn difference(&self, b: f64) -> f64 {
        let tail = if self.tail.y.is_empty() { 0.0 } else { self.tail.difference(b) };
        self.head.difference(b) + tail + (b * self.reference_delta).exp_m1()
    }

    /// Sums at weights exp(a y + b δ); with a = 1 and b = α these are the weights of q_α.
    pub fn weigh(&self, a: f64, b: f64) -> Weighed {
        // The tail's vectors take a and b in f32. Where they are large everything else takes the same numbers.
        let in_f32 = |x: f64| if self.is_f64() || a == 1.0 { x } else { f64::from(x as f32) };
        let (a, b) = (in_f32(a), in_f32(b));
        let between = a == 1.0 && (0.0..=1.0).contains(&b);
        // Between the ends no exponent is above the mean of theirs.
        let bound = if between { (1.0 - b) * self.tops[0] + b * self.tops[1] } else { f64::INFINITY };
        let bits = std::f64::consts::LOG2_E;
        let shift = if bound <= head::NO_SHIFT {
            0.0
        } else {
            let top = if self.tail.y.is_empty() { f64::NEG_INFINITY } else { self.tail.top(a, b) / bits };
            let top = top.max(self.head.top(a, b)).max(b * self.reference_delta);
            // A whole number of bits is exact in f32, too.
            if top.abs() > head::NO_SHIFT { (top * bits).round() / bits } else { 0.0 }
        };
        let (tail, blocks) = if self.tail.y.is_empty() {
            Default::default()
        } else {
            let (sums, blocks) = self.tail.sums(a, b, shift * bits);
            (in_nats(sums), blocks)
        };
        self.collect(a, b, shift, tail, blocks)
    }

    /// Head, tail and reference together.
    fn collect(&self, a: f64, b: f64, shift: f64, tail: [f64; 4], blocks: Vec<f32>) -> Weighed {
        let head = self.head.sums(a, b, shift);
        let reference = self.reference_sums(b, shift);
        let rest = head[0] + tail[0];
        let log_w = if reference[0] == 1.0 { rest.ln_1p() + shift } else { (reference[0] + rest).ln() + shift };
        let mut sums = head;
        add(&mut sums, tail);
        let y = sums[3] / (reference[0] + rest); // the reference's own y is 0
        add(&mut sums, reference);
        let (delta, variance) = mean_and_variance(sums);
        Weighed { a, b, log_w, delta, variance, y, shift, reference: reference[0], head: head[0], blocks }
    }

    /// The weights of q_α, K at 2 − α and at −α, and the total variation between p and t.
    pub fn weigh_all(&self, alpha: f64) -> (Weighed, [f64; 2], f64) {
        let bits = std::f64::consts::LOG2_E;
        let at_once = !self.is_f64() && !self.careful && self.furthest * bits <= tail::ALL_AT_ONCE;
        if !at_once {
            let k_at = |alpha: f64| self.moments(&self.weigh(1.0, alpha)).k;
            return (self.weigh(1.0, alpha), [k_at(2.0 - alpha), k_at(-alpha)], self.total_variation());
        }
        let all = self.tail.all_sums(alpha, self.log_z_p * bits, self.log_z_t * bits);
        let q = self.collect(1.0, alpha, 0.0, in_nats(all.q), all.blocks);
        let k_at = |b: f64, tail: f64| {
            let w = self.head.sums(1.0, b, 0.0)[0] + tail + self.reference_sums(b, 0.0)[0];
            w.ln() - self.log_w_t + self.ends[0].k - b * self.shift_of_d
        };
        let k = [k_at(2.0 - alpha, all.squares[0]), k_at(-alpha, all.squares[1])];
        (q, k, self.total_variation_with(all.absolute_difference))
    }

    /// K and its derivatives at α from the sums there.
    pub fn moments(&self, weighed: &Weighed) -> Moments {
        let alpha = weighed.b;
        let (k1, k2) = (weighed.delta - self.shift_of_d, weighed.variance);
        let near = weighed.log_w - self.log_w_t;
        let k = if self.furthest < CLOSE && !self.is_f64() && !self.p_outside && !self.t_outside {
            // The trapezoid with corrected ends: the third derivative and what follows are of the order of δ³.
            let (from, end) = if alpha < 0.5 { (0.0, self.ends[0]) } else { (1.0, self.ends[1]) };
            let h = alpha - from;
            end.k + 0.5 * h * (end.k1 + k1) + h * h / 12.0 * (end.k2 - k2)
        } else if self.careful
            && k2.min(self.ends[0].k2).min(self.ends[1].k2) < SMALL_VARIANCE
            && weighed.shift == 0.0
            && self.tops[0] <= head::NO_SHIFT
            && near.abs() < NEAR_1
        {
            // The sums at α and at 0 are nearly the same: their difference has more digits than their logarithms.
            (self.difference(alpha) / self.log_w_t.exp()).ln_1p() + self.ends[0].k - alpha * self.shift_of_d
        } else {
            near + self.ends[0].k - alpha * self.shift_of_d
        };
        Moments { k, k1, k2 }
    }

    /// log p and log t of an outcome from its y and δ; see [`Split::relative`].
    pub fn log_probs(&self, y: f64, delta: f64) -> (f64, f64) {
        (y + delta - self.log_z_p, y - self.log_z_t)
    }

    /// Whether an outcome has mass on both sides.
    pub fn joint<T: Copy + Into<f64>>(&self, policy: &[T], target: &[T], outcome: usize) -> bool {
        policy[outcome].into() > self.least[0] && target[outcome].into() > self.least[1]
    }

    /// y and δ of an outcome of the joint support, with all digits.
    pub fn relative<T: Copy + Into<f64>>(&self, policy: &[T], target: &[T], outcome: usize) -> (f64, f64) {
        let (p, t): (f64, f64) = (policy[outcome].into(), target[outcome].into());
        (t - target[self.reference].into(), (p - t) - self.zero)
    }

    /// ½ Σ |p − t| over all outcomes.
    pub fn total_variation(&self) -> f64 {
        let bits = std::f64::consts::LOG2_E;
        self.total_variation_with(if self.tail.y.is_empty() {
            0.0
        } else {
            self.tail.absolute_difference(self.log_z_p * bits, self.log_z_t * bits)
        })
    }

    fn total_variation_with(&self, tail: f64) -> f64 {
        let difference = |y: f64, delta: f64| ((y + delta - self.log_z_p).exp() - (y - self.log_z_t).exp()).abs();
        let head: f64 = self.head.y.iter().zip(&self.head.delta).map(|(&y, &delta)| difference(y, delta)).sum();
        // Outside of the joint support one side is zero, and the difference is that side's mass.
        let outside: f64 = self.ends.iter().map(|end| -end.k.exp_m1()).sum();
        (0.5 * (difference(0.0, self.reference_delta) + head + tail + outside)).clamp(0.0, 1.0)
    }

    /// The weights of one block of the tail, as `weighed` saw them, and the outcome at which it begins.
    pub fn tail_weights(&self, weighed: &Weighed, block: usize) -> (usize, [f32; BLOCK]) {
        let shift = weighed.shift * std::f64::consts::LOG2_E;
        (block * BLOCK, self.tail.weights(block, weighed.a, weighed.b, shift))
    }

    /// Whether an outcome is of the tail and has mass there.
    pub fn in_tail(&self, outcome: usize) -> bool {
        outcome < self.size && self.tail.y[outcome] > tail::NO_MASS
    }

    /// How far α may be moved by the rounding of K', where the weights are `weighed`.
    pub fn alpha_rounding(&self, weighed: &Weighed) -> f64 {
        // K' is rounded relative to E|δ|, which is at least E δ² / max |δ|.
        let square = weighed.variance + weighed.delta * weighed.delta;
        if weighed.variance <= 1e-12 * square {
            return 0.0; // a variance that is all rounding says nothing of the root
        }
        let scale = square / self.furthest;
        (if self.is_f64() { 4e-15 } else { 2e-8 }) * scale / weighed.variance
    }

    /// Whether nothing was rounded to f32.
    pub fn is_f64(&self) -> bool {
        self.tail.y.is_empty()
    }
}

/// Sums in bits (w, w δ, w δ², w e) to nats.
fn in_nats(sums: [f64; 4]) -> [f64; 4] {
    let bit = std::f64::consts::LN_2;
    [sums[0], sums[1] * bit, sums[2] * bit * bit, sums[3] * bit]
}

fn add(sums: &mut [f64; 4], more: [f64; 4]) {
    for (sum, x) in sums.iter_mut().zip(more) {
        *sum += x;
    }
}

/// Mean and variance of δ.
fn mean_and_variance([w, wd, wdd, _]: [f64; 4]) -> (f64, f64) {
    let mean = wd / w;
    (mean, not_negative(wdd / w - mean * mean))
}

fn same_length(policy: usize, target: usize) -> Result<()> {
    ensure!(policy == target, "the policy row has {policy} outcomes and the target row {target}");
    ensure!(policy > 0, "the rows are empty");
    Ok(())
}
