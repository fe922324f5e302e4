//! The many light outcomes of a pair, in f32: the loops where the time goes.
//!
//! Exponents are in bits (base 2), so that 2^x needs no argument reduction. Sums run over blocks of [`BLOCK`]
//! outcomes in f32 and over blocks in f64: no outcome here has more than [`super::split::HEAVY`] of the mass of
//! either side, so the rounding of single weights averages out. The loops are written in explicit vectors; the
//! instruction set (AVX-512, AVX2, NEON, or none) is chosen when the program runs.

use pulp::Simd;

use super::exp2::{exp2, exp2_less_1};
use crate::simd;

/// Outcomes summed in f32 before their sum is added in f64.
pub(super) const BLOCK: usize = 512;

/// An exponent that stands for no mass. 2^x is clamped at 2^−126, so such an outcome weighs 1e−38.
pub(super) const NO_MASS: f32 = -1e6;

/// Exponents up to this many bits need no shift: a block's sums stay far from the largest f32.
pub(super) const NO_SHIFT: f64 = 60.0;

/// Below this an outcome is taken for one without mass.
const SOME_MASS: f32 = 0.9 * NO_MASS;

/// Rows are padded to a multiple of this many outcomes, which every vector length divides.
const PADDING: usize = 16;

/// `y` and `delta` for every outcome, in bits: log₂ t less the reference outcome's, and log₂ p − log₂ t less `zero`.
/// Outcomes that are not of the tail have [`NO_MASS`] and a delta of zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    pub y: Vec<f32>,
    pub delta: Vec<f32>,
    /// Sums at both ends, one entry a block.
    pub ends: Vec<EndSums>,
}

/// Sums over weights w, in bits: Σ w, Σ w δ, Σ w δ², Σ w y.
pub(super) type Sums = [f64; 4];

/// The largest |δ|, in bits, at which [`Tail::all_sums`] is right: below q = 2^−126, where 2^x is clamped, p²/q and
/// t²/q are then at most 2^−46.
pub(super) const ALL_AT_ONCE: f64 = 40.0;

/// What [`Tail::all_sums`] gives.
#[derive(Debug, Clone, Default)]
pub(super) struct AllSums {
    pub q: Sums,
    pub blocks: Vec<f32>,
    /// Σ p²/q and Σ t²/q, not normalised.
    pub squares: [f64; 2],
    pub absolute_difference: f64,
}

/// Sums of one block with the weights of the target (2^y) and of the policy (2^(y + δ)).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EndSums {
    /// Σ w, Σ w δ, Σ w δ², and Σ w times its own exponent.
    pub target: [f32; 4],
    pub policy: [f32; 4],
    /// The largest exponents of the target and of the policy.
    pub top: [f32; 2],
    /// The largest |δ|.
    pub furthest: f32,
}

impl Tail {
    pub fn clear(&mut self) {
        self.y.clear();
        self.delta.clear();
        self.ends.clear();
    }

    /// Takes an outcome out of the tail.
    pub fn remove(&mut self, outcome: usize) {
        (self.y[outcome], self.delta[outcome]) = (NO_MASS, 0.0);
    }

    /// Makes room; what was there is overwritten by whoever fills it.
    fn resize(&mut self, outcomes: usize) {
        let padded = outcomes.next_multiple_of(PADDING);
        self.y.resize(padded, NO_MASS);
        self.delta.resize(padded, 0.0);
        self.y[outcomes..].fill(NO_MASS);
        self.delta[outcomes..].fill(0.0);
        self.ends.clear();
        self.ends.resize(padded.div_ceil(BLOCK), EndSums::default());
    }

    /// Fills the tail from rows of logits and sums both ends, in one reading of the rows. The differences of
    /// logits are rounded to f32: good where they are not much smaller than the logits.
    pub fn fill(&mut self, policy: &[f32], target: &[f32], reference: usize, zero: f32) {
        self.resize(policy.len());
        pulp::Arch::new().dispatch(Fill { tail: self, policy, target, reference, zero });
    }

    /// As [`Tail::fill`], with differences that are exact before they are rounded, and without the sums.
    pub fn fill_exactly(&mut self, policy: &[f32], target: &[f32], reference: usize, zero: f64) {
        self.resize(policy.len());
        let log2_e = std::f64::consts::LOG2_E;
        let t_reference = f64::from(target[reference]);
        let rows = policy.iter().zip(target).zip(self.y.iter_mut().zip(&mut self.delta));
        simd::dispatch(
            #[inline(always)]
            || {
                for ((&p, &t), (y, delta)) in rows {
                    let t = f64::from(t);
                    *y = f64::max((t - t_reference) * log2_e, f64::from(NO_MASS)) as f32;
                    *delta = (((f64::from(p) - t) - zero) * log2_e) as f32;
                }
            },
        );
    }

    /// The outcomes of a block with an exponent above `target` under t or above `policy` under p.
    pub fn above(&self, block: usize, target: f32, policy: f32) -> Vec<usize> {
        pulp::Arch::new().dispatch(Above { tail: self, block, target, policy })
    }

    /// Sums one block again, from what is stored.
    pub fn sum_ends(&mut self, block: usize) {
        pulp::Arch::new().dispatch(Ends { tail: self, block });
    }

    /// Sums at weights 2^(a y + b δ − shift), and Σ w of each block.
    pub fn sums(&self, a: f64, b: f64, shift: f64) -> (Sums, Vec<f32>) {
        let arch = pulp::Arch::new();
        if a == 1.0 && shift == 0.0 {
            arch.dispatch(Weigh::<false> { tail: self, a: 1.0, b: b as f32, shift: 0.0 })
        } else {
            arch.dispatch(Weigh::<true> { tail: self, a: a as f32, b: b as f32, shift: shift as f32 })
        }
    }

    /// Σ (2^(y + b δ) − 2^y), without cancellation where δ is small.
    pub fn difference(&self, b: f64) -> f64 {
        pulp::Arch::new().dispatch(Difference { tail: self, b: b as f32 })
    }

    /// The largest exponent a y + b δ of the tail.
    pub fn top(&self, a: f64, b: f64) -> f64 {
        pulp::Arch::new().dispatch(Top { tail: self, a: a as f32, b: b as f32 }).into()
    }

    /// What [`Tail::sums`] gives at a = 1 and no shift, and with it Σ p²/q, Σ t²/q and Σ |p − t|: three powers of
    /// two instead of five. p and t are 2^(y + δ) and 2^y, normalised (in bits) only for the last sum.
    /// No |δ| may be above [`ALL_AT_ONCE`].
    pub fn all_sums(&self, b: f64, log_p: f64, log_t: f64) -> AllSums {
        let norms = [-log_p, -log_t].map(|log| log.exp2() as f32);
        pulp::Arch::new().dispatch(WeighAll { tail: self, b: b as f32, norms })
    }

    /// Σ |2^(y + δ − log_p) − 2^(y − log_t)|, the two normalisers in bits.
    pub fn absolute_difference(&self, log_p: f64, log_t: f64) -> f64 {
        pulp::Arch::new().dispatch(AbsoluteDifference { tail: self, log_p: log_p as f32, log_t: log_t as f32 })
    }

    /// The weights of one block as [`Tail::sums`] saw them.
    pub fn weights(&self, block: usize, a: f64, b: f64, shift: f64) -> [f32; BLOCK] {
        pulp::Arch::new().dispatch(Weights { tail: self, block, a: a as f32, b: b as f32, shift: shift as f32 })
    }
}

/// a y + shift; what has no mass keeps none, also for a negative `a`.
#[inline(always)]
fn scaled<S: Simd>(simd: S, y: S::f32s, a: S::f32s, shift: S::f32s) -> S::f32s {
    let some = simd.greater_than_f32s(y, simd.splat_f32s(SOME_MASS));
    simd.select_f32s(some, simd.mul_add_e_f32s(a, y, shift), simd.splat_f32s(NO_MASS))
}

/// Running sums Σ w, Σ w δ, Σ w δ², Σ w e in vectors.
#[derive(Clone, Copy)]
struct Running<S: Simd>([S::f32s; 4]);

impl<S: Simd> Running<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self([simd.splat_f32s(0.0); 4])
    }

    #[inline(always)]
    fn add(&mut self, simd: S, w: S::f32s, delta: S::f32s, e: S::f32s) {
        let wd = simd.mul_f32s(w, delta);
        self.0[0] = simd.add_f32s(self.0[0], w);
        self.0[1] = simd.add_f32s(self.0[1], wd);
        self.0[2] = simd.mul_add_e_f32s(wd, delta, self.0[2]);
        self.0[3] = simd.mul_add_e_f32s(w, e, self.0[3]);
    }

    #[inline(always)]
    fn total(self, simd: S) -> [f32; 4] {
        let [w, wd, wdd, we] = self.0;
        let sum = |x| simd.reduce_sum_f32s(x);
        [sum(w), sum(wd), sum(wdd), sum(we)]
    }
}

struct Fill<'a> {
    tail: &'a mut Tail,
    policy: &'a [f32],
    target: &'a [f32],
    reference: usize,
    zero: f32,
}

impl pulp::WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tail, policy, target, reference, zero } = self;
        let at = [policy[reference], target[reference]];
        let rows = policy.chunks(BLOCK).zip(target.chunks(BLOCK));
        let parts = tail.y.chunks_mut(BLOCK).zip(tail.delta.chunks_mut(BLOCK));
        for (((p, t), (y, delta)), ends) in rows.zip(parts).zip(&mut tail.ends) {
            *ends = if p.len() == y.len() {
                fill_block(simd, [p, t], at[1], zero, y, delta)
            } else {
                // The row's end is not the end of a vector: a copy, padded with outcomes that have no mass.
                let padded = |row: &[f32], reference: f32| {
                    let mut block = [reference + NO_MASS; BLOCK];
                    block[..row.len()].copy_from_slice(row);
                    block
                };
                let (p, t) = (padded(p, at[0]), padded(t, at[1]));
                fill_block(simd, [&p[..y.len()], &t[..y.len()]], at[1], zero, y, delta)
            };
        }
    }
}

/// y and δ of one block of `rows` (policy, target), and their sums.
#[inline(always)]
fn fill_block<S: Simd>(
    simd: S,
    rows: [&[f32]; 2],
    t_reference: f32,
    zero: f32,
    y: &mut [f32],
    delta: &mut [f32],
) -> EndSums {
    let log2_e = simd.splat_f32s(std::f32::consts::LOG2_E);
    let (t_reference, zero) = (simd.splat_f32s(t_reference), simd.splat_f32s(zero));
    let no_mass = simd.splat_f32s(NO_MASS);
    let (mut target, mut policy) = (Running::new(simd), Running::new(simd));
    let mut top = [simd.splat_f32s(f32::NEG_INFINITY); 2];
    let mut furthest = simd.splat_f32s(0.0);
    let rows = S::as_simd_f32s(rows[0]).0.iter().zip(S::as_simd_f32s(rows[1]).0);
    let parts = S::as_mut_simd_f32s(y).0.iter_mut().zip(S::as_mut_simd_f32s(delta).0);
    for ((&p, &t), (y, delta)) in rows.zip(parts) {
        // A mask on both sides has a δ of zero; its exponent must not weigh in sums. A NaN stays one in δ.
        let exponent = simd.max_f32s(simd.mul_f32s(simd.sub_f32s(t, t_reference), log2_e), no_mass);
        let d = simd.mul_f32s(simd.sub_f32s(simd.sub_f32s(p, t), zero), log2_e);
        (*y, *delta) = (exponent, d);
        let z = simd.add_f32s(exponent, d);
        top = [simd.max_f32s(top[0], exponent), simd.max_f32s(top[1], z)];
        furthest = simd.max_f32s(furthest, simd.abs_f32s(d));
        target.add(simd, exp2(simd, exponent), d, exponent);
        policy.add(simd, exp2(simd, z), d, z);
    }
    EndSums {
        target: target.total(simd),
        policy: policy.total(simd),
        top: [simd.reduce_max_f32s(top[0]), simd.reduce_max_f32s(top[1])],
        furthest: simd.reduce_max_f32s(furthest),
    }
}

struct Ends<'a> {
    tail: &'a mut Tail,
    block: usize,
}

impl pulp::WithSimd for Ends<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tail, block } = self;
        let place = block * BLOCK..((block + 1) * BLOCK).min(tail.y.len());
        let (mut target, mut policy) = (Running::new(simd), Running::new(simd));
        let mut top = [simd.splat_f32s(f32::NEG_INFINITY); 2];
        let mut furthest = simd.splat_f32s(0.0);
        let y = S::as_simd_f32s(&tail.y[place.clone()]).0;
        let delta = S::as_simd_f32s(&tail.delta[place]).0;
        for (&y, &delta) in y.iter().zip(delta) {
            let z = simd.add_f32s(y, delta);
            top = [simd.max_f32s(top[0], y), simd.max_f32s(top[1], z)];
            target.add(simd, exp2(simd, y), delta, y);
            policy.add(simd, exp2(simd, z), delta, z);
            furthest = simd.max_f32s(furthest, simd.abs_f32s(delta));
        }
        tail.ends[block] = EndSums {
            target: target.total(simd),
            policy: policy.total(simd),
            top: [simd.reduce_max_f32s(top[0]), simd.reduce_max_f32s(top[1])],
            furthest: simd.reduce_max_f32s(furthest),
        };
    }
}

struct Above<'a> {
    tail: &'a Tail,
    block: usize,
    target: f32,
    policy: f32,
}

impl pulp::WithSimd for Above<'_> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<usize> {
        let Self { tail, block, target, policy } = self;
        let place = block * BLOCK..((block + 1) * BLOCK).min(tail.y.len());
        let (y, delta) = (&tail.y[place.clone()], &tail.delta[place.clone()]);
        let mut found = Vec::new();
        for (i, (&a, &d)) in S::as_simd_f32s(y).0.iter().zip(S::as_simd_f32s(delta).0).enumerate() {
            let heavy_t = simd.greater_than_f32s(a, simd.splat_f32s(target));
            let heavy_p = simd.greater_than_f32s(simd.add_f32s(a, d), simd.splat_f32s(policy));
            if simd.first_true_m32s(simd.or_m32s(heavy_t, heavy_p)) < S::F32_LANES {
                let from = i * S::F32_LANES;
                let heavy = |&i: &usize| y[i] > target || y[i] + delta[i] > policy;
                found.extend((from..from + S::F32_LANES).filter(heavy).map(|i| place.start + i));
            }
        }
        found
    }
}

/// Sums at weights 2^(a y + b δ − shift); a = 1 and no shift where not `SHIFTED`.
struct Weigh<'a, const SHIFTED: bool> {
    tail: &'a Tail,
    a: f32,
    b: f32,
    shift: f32,
}

impl<const SHIFTED: bool> pulp::WithSimd for Weigh<'_, SHIFTED> {
    type Output = (Sums, Vec<f32>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (Sums, Vec<f32>) {
        let Self { tail, a, b, shift } = self;
        let (a, b, shift) = (simd.splat_f32s(a), simd.splat_f32s(b), simd.splat_f32s(-shift));
        let mut sums = Sums::default();
        let mut blocks = Vec::with_capacity(tail.ends.len());
        for (y, delta) in tail.y.chunks(BLOCK).zip(tail.delta.chunks(BLOCK)) {
            let mut running = Running::new(simd);
            for (&y, &delta) in S::as_simd_f32s(y).0.iter().zip(S::as_simd_f32s(delta).0) {
                let base = if SHIFTED { scaled(simd, y, a, shift) } else { y };
                running.add(simd, exp2(simd, simd.mul_add_e_f32s(b, delta, base)), delta, y);
            }
            let block = running.total(simd);
            blocks.push(block[0]);
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += f64::from(x);
            }
        }
        (sums, blocks)
    }
}

struct WeighAll<'a> {
    tail: &'a Tail,
    b: f32,
    norms: [f32; 2],
}

impl pulp::WithSimd for WeighAll<'_> {
    type Output = AllSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> AllSums {
        let Self { tail, b, norms } = self;
        let (to_p, to_t, b) = (simd.splat_f32s(1.0 - b), simd.splat_f32s(-b), simd.splat_f32s(b));
        let norms = norms.map(|norm| simd.splat_f32s(norm));
        let mut all = AllSums { blocks: Vec::with_capacity(tail.ends.len()), ..Default::default() };
        for (y, delta) in tail.y.chunks(BLOCK).zip(tail.delta.chunks(BLOCK)) {
            let mut q = Running::new(simd);
            let [mut p_square, mut t_square, mut difference] = [simd.splat_f32s(0.0); 3];
            for (&y, &delta) in S::as_simd_f32s(y).0.iter().zip(S::as_simd_f32s(delta).0) {
                let w = exp2(simd, simd.mul_add_e_f32s(b, delta, y));
                q.add(simd, w, delta, y);
                // p/q and t/q.
                let p_ratio = exp2(simd, simd.mul_f32s(to_p, delta));
                let t_ratio = exp2(simd, simd.mul_f32s(to_t, delta));
                let (p, t) = (simd.mul_f32s(w, p_ratio), simd.mul_f32s(w, t_ratio));
                p_square = simd.mul_add_e_f32s(p, p_ratio, p_square);
                t_square = simd.mul_add_e_f32s(t, t_ratio, t_square);
                let d = simd.sub_f32s(simd.mul_f32s(p, norms[0]), simd.mul_f32s(t, norms[1]));
                difference = simd.add_f32s(difference, simd.abs_f32s(d));
            }
            let block = q.total(simd);
            all.blocks.push(block[0]);
            for (sum, x) in all.q.iter_mut().zip(block) {
                *sum += f64::from(x);
            }
            all.squares[0] += f64::from(simd.reduce_sum_f32s(p_square));
            all.squares[1] += f64::from(simd.reduce_sum_f32s(t_square));
            all.absolute_difference += f64::from(simd.reduce_sum_f32s(difference));
        }
        all
    }
}

struct Difference<'a> {
    tail: &'a Tail,
    b: f32,
}

impl pulp::WithSimd for Difference<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (b, half) = (simd.splat_f32s(self.b), simd.splat_f32s(0.5));
        let mut total = 0.0;
        for (y, delta) in self.tail.y.chunks(BLOCK).zip(self.tail.delta.chunks(BLOCK)) {
            let mut sum = simd.splat_f32s(0.0);
            for (&y, &delta) in S::as_simd_f32s(y).0.iter().zip(S::as_simd_f32s(delta).0) {
                let x = simd.mul_f32s(b, delta);
                let weight = exp2(simd, y);
                let exact = simd.mul_f32s(weight, exp2_less_1(simd, x));
                let plain = simd.sub_f32s(exp2(simd, simd.add_f32s(y, x)), weight);
                let small = simd.less_than_f32s(simd.abs_f32s(x), half);
                sum = simd.add_f32s(sum, simd.select_f32s(small, exact, plain));
            }
            total += f64::from(simd.reduce_sum_f32s(sum));
        }
        total
    }
}

struct Top<'a> {
    tail: &'a Tail,
    a: f32,
    b: f32,
}

impl pulp::WithSimd for Top<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (a, b) = (simd.splat_f32s(self.a), simd.splat_f32s(self.b));
        let mut top = simd.splat_f32s(f32::NEG_INFINITY);
        for (&y, &delta) in S::as_simd_f32s(&self.tail.y).0.iter().zip(S::as_simd_f32s(&self.tail.delta).0) {
            top = simd.max_f32s(top, simd.mul_add_e_f32s(b, delta, scaled(simd, y, a, simd.splat_f32s(0.0))));
        }
        simd.reduce_max_f32s(top)
    }
}

struct AbsoluteDifference<'a> {
    tail: &'a Tail,
    log_p: f32,
    log_t: f32,
}

impl pulp::WithSimd for AbsoluteDifference<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (log_p, log_t) = (simd.splat_f32s(self.log_p), simd.splat_f32s(self.log_t));
        let mut total = 0.0;
        for (y, delta) in self.tail.y.chunks(BLOCK).zip(self.tail.delta.chunks(BLOCK)) {
            let mut sum = simd.splat_f32s(0.0);
            for (&y, &delta) in S::as_simd_f32s(y).0.iter().zip(S::as_simd_f32s(delta).0) {
                let p = exp2(simd, simd.sub_f32s(simd.add_f32s(y, delta), log_p));
                let t = exp2(simd, simd.sub_f32s(y, log_t));
                sum = simd.add_f32s(sum, simd.abs_f32s(simd.sub_f32s(p, t)));
            }
            total += f64::from(simd.reduce_sum_f32s(sum));
        }
        total
    }
}

struct Weights<'a> {
    tail: &'a Tail,
    block: usize,
    a: f32,
    b: f32,
    shift: f32,
}

impl pulp::WithSimd for Weights<'_> {
    type Output = [f32; BLOCK];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; BLOCK] {
        let place = self.block * BLOCK..((self.block + 1) * BLOCK).min(self.tail.y.len());
        let (a, b, shift) = (simd.splat_f32s(self.a), simd.splat_f32s(self.b), simd.splat_f32s(-self.shift));
        let mut weights = [0.0; BLOCK];
        let rows =
            S::as_simd_f32s(&self.tail.y[place.clone()]).0.iter().zip(S::as_simd_f32s(&self.tail.delta[place]).0);
        for (w, (&y, &delta)) in S::as_mut_simd_f32s(&mut weights).0.iter_mut().zip(rows) {
            *w = exp2(simd, simd.mul_add_e_f32s(b, delta, scaled(simd, y, a, shift)));
        }
        weights
    }
}
