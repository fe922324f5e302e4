//! Products of a few rows with many, in vectors: the work of a decoding step, which reads every weight once.
//!
//! No closures below: what the compiler does not inline would run without the vectors' instructions.

use pulp::Simd;

/// `out` `[rows of x, rows of w]`: the products of all rows of x with all rows of w, `inner` long each. A row's products do
/// not depend on the other rows.
pub fn products_of_rows(x: &[f32], w: &[f32], inner: usize, out: &mut [f32]) {
    pulp::Arch::new().dispatch(Products { x, w, inner, out });
}

struct Products<'a> {
    x: &'a [f32],
    w: &'a [f32],
    inner: usize,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, inner, out } = self;
        let (rows, cols) = (x.len() / inner, w.len() / inner);
        let mut i = 0;
        while i + 4 <= rows {
            let x = &x[i * inner..][..4 * inner];
            let out = &mut out[i * cols..][..4 * cols];
            let mut j = 0;
            while j + 2 <= cols {
                let [a, b] = tile::<S, 4, 2>(simd, x, &w[j * inner..][..2 * inner], inner);
                for r in 0..4 {
                    out[r * cols + j] = a[r];
                    out[r * cols + j + 1] = b[r];
                }
                j += 2;
            }
            if j < cols {
                let [a] = tile::<S, 4, 1>(simd, x, &w[j * inner..][..inner], inner);
                for r in 0..4 {
                    out[r * cols + j] = a[r];
                }
            }
            i += 4;
        }
        while i < rows {
            let x = &x[i * inner..][..inner];
            for j in 0..cols {
                let [[value]] = tile::<S, 1, 1>(simd, x, &w[j * inner..][..inner], inner);
                out[i * cols + j] = value;
            }
            i += 1;
        }
    }
}

/// The products of C rows of w with R rows of x.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(simd: S, x: &[f32], w: &[f32], inner: usize) -> [[f32; R]; C] {
    let (mut xs, mut x_rests) = ([&[] as &[S::f32s]; R], [&[] as &[f32]; R]);
    for r in 0..R {
        (xs[r], x_rests[r]) = S::as_simd_f32s(&x[r * inner..][..inner]);
    }
    let (mut ws, mut w_rests) = ([&[] as &[S::f32s]; C], [&[] as &[f32]; C]);
    for c in 0..C {
        (ws[c], w_rests[c]) = S::as_simd_f32s(&w[c * inner..][..inner]);
    }
    let mut sums = [[simd.splat_f32s(0.0); R]; C];
    for i in 0..ws[0].len() {
        for c in 0..C {
            let w = ws[c][i];
            for r in 0..R {
                sums[c][r] = simd.mul_add_f32s(w, xs[r][i], sums[c][r]);
            }
        }
    }
    let mut out = [[0.0; R]; C];
    for c in 0..C {
        let w = simd.partial_load_f32s(w_rests[c]);
        for r in 0..R {
            let sum = simd.mul_add_f32s(w, simd.partial_load_f32s(x_rests[r]), sums[c][r]);
            out[c][r] = simd.reduce_sum_f32s(sum);
        }
    }
    out
}

/// `out` `[rows of x, n]` += x times the first n columns of w, whose rows are `step` apart; x has rows of `inner` values.
pub fn products_with_columns(x: &[f32], inner: usize, w: &[f32], step: usize, n: usize, out: &mut [f32]) {
    pulp::Arch::new().dispatch(Columns { x, inner, w, step, n, out });
}

struct Columns<'a> {
    x: &'a [f32],
    inner: usize,
    w: &'a [f32],
    step: usize,
    n: usize,
    out: &'a mut [f32],
}

impl pulp::WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, inner, w, step, n, out } = self;
        let rows = x.len() / inner;
        let mut k = 0;
        while k + 4 <= inner {
            let w =
                [&w[k * step..][..n], &w[(k + 1) * step..][..n], &w[(k + 2) * step..][..n], &w[(k + 3) * step..][..n]];
            let mut i = 0;
            while i + 4 <= rows {
                add_scaled::<S, 4, 4>(simd, &x[i * inner + k..], inner, w, &mut out[i * n..][..4 * n]);
                i += 4;
            }
            while i < rows {
                add_scaled::<S, 1, 4>(simd, &x[i * inner + k..], inner, w, &mut out[i * n..][..n]);
                i += 1;
            }
            k += 4;
        }
        while k < inner {
            for i in 0..rows {
                let w = [&w[k * step..][..n]];
                add_scaled::<S, 1, 1>(simd, &x[i * inner + k..], inner, w, &mut out[i * n..][..n]);
            }
            k += 1;
        }
    }
}

/// To each of R rows of `out` adds K rows of w, scaled by K values of its row of x.
#[inline(always)]
fn add_scaled<S: Simd, const R: usize, const K: usize>(
    simd: S,
    x: &[f32],
    inner: usize,
    w: [&[f32]; K],
    out: &mut [f32],
) {
    let n = w[0].len();
    let mut scales = [[simd.splat_f32s(0.0); K]; R];
    for r in 0..R {
        for k in 0..K {
            scales[r][k] = simd.splat_f32s(x[r * inner + k]);
        }
    }
    let (mut ws, mut w_rests) = ([&[] as &[S::f32s]; K], [&[] as &[f32]; K]);
    for k in 0..K {
        (ws[k], w_rests[k]) = S::as_simd_f32s(w[k]);
    }
    for r in 0..R {
        let (out, rest) = S::as_mut_simd_f32s(&mut out[r * n..][..n]);
        for j in 0..out.len() {
            let mut sum = out[j];
            for k in 0..K {
                sum = simd.mul_add_f32s(ws[k][j], scales[r][k], sum);
            }
            out[j] = sum;
        }
        if !rest.is_empty() {
            let mut sum = simd.partial_load_f32s(rest);
            for k in 0..K {
                sum = simd.mul_add_f32s(simd.partial_load_f32s(w_rests[k]), scales[r][k], sum);
            }
            simd.partial_store_f32s(rest, sum);
        }
    }
}
