//! Softmax of many short rows, and its gradient.
//!
//! No vectors in closures below: what the compiler does not inline would run without their instructions.

use pulp::Simd;

use super::{LANES, Real, max, sum};

/// See [`Real::softmax_rows`].
pub(super) struct Softmax<'a, T, F> {
    pub rows: &'a mut [T],
    pub width: usize,
    pub scale: T,
    pub seen: F,
}

impl<T: Real, F: Fn(usize) -> usize> Softmax<'_, T, F> {
    #[inline(always)]
    pub fn plain(self) {
        for (i, row) in self.rows.chunks_exact_mut(self.width).enumerate() {
            let (row, rest) = row.split_at_mut((self.seen)(i));
            rest.fill(T::ZERO);
            let top = max(row);
            for x in row.iter_mut() {
                *x = ((*x - top) * self.scale).exp();
            }
            let inverse = T::ONE / sum([row], |[x]| x);
            for x in row {
                *x *= inverse;
            }
        }
    }
}

impl<F: Fn(usize) -> usize> pulp::WithSimd for Softmax<'_, f32, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums in as many parts as elsewhere, whatever the machine's width.
        if S::F32_LANES != LANES {
            return self.plain();
        }
        for (i, row) in self.rows.chunks_exact_mut(self.width).enumerate() {
            softmax(simd, row, (self.seen)(i), self.scale);
        }
    }
}

#[inline(always)]
fn softmax<S: Simd>(simd: S, row: &mut [f32], seen: usize, scale: f32) {
    let (row, rest) = row.split_at_mut(seen.next_multiple_of(LANES));
    rest.fill(0.0);
    let Some((last, row)) = S::as_mut_simd_f32s(row).0.split_last_mut() else { return };
    let low = simd.splat_f32s(f32::NEG_INFINITY);
    // What is not seen is left out in a register: a vector that a part of was just written to memory is slow to read.
    let mask = simd.mask_between_m32s(0, (seen - row.len() * LANES) as u32).mask();
    let mut end = simd.select_f32s(mask, *last, low);
    let mut top = end;
    for x in row.iter() {
        top = simd.max_f32s(top, *x);
    }
    let top = simd.splat_f32s(simd.reduce_max_f32s(top));
    let scale = simd.splat_f32s(scale);
    let mut sum = simd.splat_f32s(0.0);
    for x in row.iter_mut() {
        *x = exp(simd, simd.mul_f32s(simd.sub_f32s(*x, top), scale));
        sum = simd.add_f32s(sum, *x);
    }
    end = exp(simd, simd.mul_f32s(simd.sub_f32s(end, top), scale));
    let inverse = simd.splat_f32s(1.0 / simd.reduce_sum_f32s(simd.add_f32s(sum, end)));
    for x in row {
        *x = simd.mul_f32s(*x, inverse);
    }
    *last = simd.mul_f32s(end, inverse);
}

/// [`Real::exp`] of a vector.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const ROUND: f32 = 12_582_912.0;
    let constant = |c: f32| simd.splat_f32s(c);
    let clamped = simd.min_f32s(constant(88.37), simd.max_f32s(constant(-87.33), x));
    let shifted = simd.mul_add_f32s(clamped, constant(std::f32::consts::LOG2_E), constant(ROUND));
    let n = simd.sub_f32s(shifted, constant(ROUND));
    let r = simd.mul_add_f32s(n, constant(-0.693_359_4), clamped);
    let r = simd.mul_add_f32s(n, constant(2.121_944_4e-4), r);
    let mut y = constant(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        y = simd.mul_add_f32s(y, r, constant(c));
    }
    let y = simd.add_f32s(simd.mul_add_f32s(simd.mul_f32s(y, r), r, r), constant(1.0));
    let bits = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let power = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23)));
    let none = simd.equal_f32s(x, constant(f32::NEG_INFINITY));
    simd.select_f32s(none, constant(0.0), simd.mul_f32s(y, power))
}

/// See [`Real::softmax_slopes`].
pub(super) struct Slopes<'a, T> {
    pub p: &'a [T],
    pub slopes: &'a mut [T],
    pub width: usize,
    pub scale: T,
}

impl<T: Real> Slopes<'_, T> {
    #[inline(always)]
    pub fn plain(self) {
        for (p, slopes) in self.p.chunks_exact(self.width).zip(self.slopes.chunks_exact_mut(self.width)) {
            let mean = super::dot(p, slopes);
            for (slope, &p) in slopes.iter_mut().zip(p) {
                *slope = p * (*slope - mean) * self.scale;
            }
        }
    }
}

impl pulp::WithSimd for Slopes<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES != LANES {
            return self.plain();
        }
        let scale = simd.splat_f32s(self.scale);
        for (p, slopes) in self.p.chunks_exact(self.width).zip(self.slopes.chunks_exact_mut(self.width)) {
            let (p, slopes) = (S::as_simd_f32s(p).0, S::as_mut_simd_f32s(slopes).0);
            let mut sum = simd.splat_f32s(0.0);
            for (p, slope) in p.iter().zip(&*slopes) {
                sum = simd.mul_add_f32s(*p, *slope, sum);
            }
            let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum));
            for (p, slope) in p.iter().zip(slopes) {
                *slope = simd.mul_f32s(simd.mul_f32s(*p, simd.sub_f32s(*slope, mean)), scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_rows_is_that_of_plain_loops() {
        for width in [16, 32, 80] {
            let rows = width;
            let x: Vec<f64> = (0..rows * width).map(|i| 9.0 * (0.37 * i as f64).sin()).collect();
            let g: Vec<f64> = (0..rows * width).map(|i| (0.91 * i as f64).cos()).collect();
            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let (mut p, mut p_f32) = (x.clone(), narrow(&x));
            f64::softmax_rows(&mut p, width, 0.3, |i| i + 1);
            f32::softmax_rows(&mut p_f32, width, 0.3, |i| i + 1);
            for i in 0..rows {
                let (x, p) = (&x[i * width..][..width], &p[i * width..][..width]);
                let total: f64 = x[..=i].iter().map(|x| (0.3 * x).exp()).sum();
                for j in 0..width {
                    let plain = if j <= i { (0.3 * x[j]).exp() / total } else { 0.0 };
                    assert!((p[j] - plain).abs() < 1e-14, "{width}, place {i} {j}: {} {plain}", p[j]);
                    assert!((f64::from(p_f32[i * width + j]) - plain).abs() < 1e-6, "{width}, place {i} {j}");
                }
            }
            let (mut slopes, mut slopes_f32) = (g.clone(), narrow(&g));
            f64::softmax_slopes(&p, &mut slopes, width, 0.3);
            f32::softmax_slopes(&p_f32, &mut slopes_f32, width, 0.3);
            for i in 0..rows {
                let (p, g) = (&p[i * width..][..width], &g[i * width..][..width]);
                let mean: f64 = p.iter().zip(g).map(|(p, g)| p * g).sum();
                for j in 0..width {
                    let plain = 0.3 * p[j] * (g[j] - mean);
                    assert!((slopes[i * width + j] - plain).abs() < 1e-14, "{width}, place {i} {j}");
                    assert!((f64::from(slopes_f32[i * width + j]) - plain).abs() < 1e-6, "{width}, place {i} {j}");
                }
            }
        }
    }
}
