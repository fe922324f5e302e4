//! Products of a few rows with many, in vectors: the work of a decoding step, which reads every weight once.
//!
//! No vectors in closures below: what the compiler does not inline would run without their instructions.

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
        let cols = w.len() / inner;
        let mut j = 0;
        while j + 4 <= cols {
            tiles::<S, 4>(simd, x, w, inner, j, out);
            j += 4;
        }
        while j < cols {
            tiles::<S, 1>(simd, x, w, inner, j, out);
            j += 1;
        }
    }
}

/// The products of all rows of x with the C rows of w from `j` on, which stay in the first-level cache meanwhile.
#[inline(always)]
fn tiles<S: Simd, const C: usize>(simd: S, x: &[f32], w: &[f32], inner: usize, j: usize, out: &mut [f32]) {
    let (rows, cols) = (x.len() / inner, w.len() / inner);
    let ahead = &w[(j + C) * inner..];
    let w = &w[j * inner..][..C * inner];
    let mut i = 0;
    while i + 4 <= rows {
        // The first tile fetches what the next ones read.
        let ahead = if i == 0 { ahead } else { &[] };
        let sums = tile::<S, 4, C>(simd, &x[i * inner..][..4 * inner], w, inner, ahead);
        for r in 0..4 {
            for c in 0..C {
                out[(i + r) * cols + j + c] = sums[c][r];
            }
        }
        i += 4;
    }
    while i < rows {
        let sums = tile::<S, 1, C>(simd, &x[i * inner..][..inner], w, inner, ahead);
        for c in 0..C {
            out[i * cols + j + c] = sums[c][0];
        }
        i += 1;
    }
}

/// The products of C rows of w with R rows of x.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: &[f32],
    w: &[f32],
    inner: usize,
    ahead: &[f32],
) -> [[f32; R]; C] {
    let (mut xs, mut x_rests) = ([&[] as &[S::f32s]; R], [&[] as &[f32]; R]);
    for r in 0..R {
        (xs[r], x_rests[r]) = S::as_simd_f32s(&x[r * inner..][..inner]);
    }
    let (mut ws, mut w_rests) = ([&[] as &[S::f32s]; C], [&[] as &[f32]; C]);
    for c in 0..C {
        (ws[c], w_rests[c]) = S::as_simd_f32s(&w[c * inner..][..inner]);
    }
    // Lengths that the compiler can see keep bounds checks out of the loop.
    let vectors = ws[0].len();
    for w in &mut ws {
        *w = &w[..vectors];
    }
    for x in &mut xs {
        *x = &x[..vectors];
    }
    let mut sums = [[simd.splat_f32s(0.0); R]; C];
    for i in 0..vectors {
        if !ahead.is_empty() {
            for c in 0..C {
                prefetch(ahead, c * inner + i * S::F32_LANES);
            }
        }
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
        let mut k = 0;
        while k + 4 <= inner {
            let ahead = if k + 4 < inner { &w[(k + 4) * step..] } else { &[] };
            let w =
                [&w[k * step..][..n], &w[(k + 1) * step..][..n], &w[(k + 2) * step..][..n], &w[(k + 3) * step..][..n]];
            add_to_rows(simd, &x[k..], inner, w, ahead, step, out);
            k += 4;
        }
        while k < inner {
            add_to_rows(simd, &x[k..], inner, [&w[k * step..][..n]], &[], step, out);
            k += 1;
        }
    }
}

/// To every row of `out` adds K rows of w, scaled by the first K values of its row of x.
#[inline(always)]
fn add_to_rows<S: Simd, const K: usize>(
    simd: S,
    x: &[f32],
    inner: usize,
    w: [&[f32]; K],
    ahead: &[f32],
    step: usize,
    out: &mut [f32],
) {
    let n = w[0].len();
    let rows = out.len() / n;
    let mut i = 0;
    while i + 8 <= rows {
        // The first rows fetch what the next step reads.
        let ahead = if i == 0 { ahead } else { &[] };
        add_scaled::<S, 8, K>(simd, &x[i * inner..], inner, w, ahead, step, &mut out[i * n..][..8 * n]);
        i += 8;
    }
    while i + 2 <= rows {
        let ahead = if i == 0 { ahead } else { &[] };
        add_scaled::<S, 2, K>(simd, &x[i * inner..], inner, w, ahead, step, &mut out[i * n..][..2 * n]);
        i += 2;
    }
    while i < rows {
        let ahead = if i == 0 { ahead } else { &[] };
        add_scaled::<S, 1, K>(simd, &x[i * inner..], inner, w, ahead, step, &mut out[i * n..][..n]);
        i += 1;
    }
}

/// [`add_to_rows`] for R rows; reads ahead from rows that are `step` apart.
#[inline(always)]
fn add_scaled<S: Simd, const R: usize, const K: usize>(
    simd: S,
    x: &[f32],
    inner: usize,
    w: [&[f32]; K],
    ahead: &[f32],
    step: usize,
    out: &mut [f32],
) {
    let n = w[0].len();
    let mut scales = [[simd.splat_f32s(0.0); K]; R];
    for r in 0..R {
        for k in 0..K {
            scales[r][k] = simd.splat_f32s(x[r * inner + k]);
        }
    }
    let mut ws = [&[] as &[S::f32s]; K];
    for k in 0..K {
        ws[k] = S::as_simd_f32s(w[k]).0;
    }
    // Lengths that the compiler can see keep bounds checks out of the loop.
    let vectors = ws[0].len();
    for w in &mut ws {
        *w = &w[..vectors];
    }
    let mut left = &mut *out;
    let rows: [&mut [S::f32s]; R] = std::array::from_fn(|_| {
        let (row, others) = std::mem::take(&mut left).split_at_mut(n);
        left = others;
        &mut S::as_mut_simd_f32s(row).0[..vectors]
    });
    for j in 0..vectors {
        if !ahead.is_empty() {
            for k in 0..K {
                prefetch(ahead, k * step + j * S::F32_LANES);
            }
        }
        let mut w = [simd.splat_f32s(0.0); K];
        for k in 0..K {
            w[k] = ws[k][j];
        }
        for r in 0..R {
            let mut sum = rows[r][j];
            for k in 0..K {
                sum = simd.mul_add_f32s(w[k], scales[r][k], sum);
            }
            rows[r][j] = sum;
        }
    }
    if vectors * S::F32_LANES < n {
        add_scaled_rest(simd, x, inner, w, &mut out[..R * n]);
    }
}

/// [`add_scaled`] for the columns that fill no vector; apart from it, so that its scales stay in registers.
#[inline(always)]
fn add_scaled_rest<S: Simd, const K: usize>(simd: S, x: &[f32], inner: usize, w: [&[f32]; K], out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(w[0].len()).zip(x.chunks(inner)) {
        let rest = S::as_mut_simd_f32s(out).1;
        let mut sum = simd.partial_load_f32s(rest);
        for k in 0..K {
            let w = simd.partial_load_f32s(S::as_simd_f32s(w[k]).1);
            sum = simd.mul_add_f32s(w, simd.splat_f32s(x[k]), sum);
        }
        simd.partial_store_f32s(rest, sum);
    }
}

/// Asks for the cache line of a value that will be read soon; the processor's own guess ends with every row.
#[inline(always)]
fn prefetch(values: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and reads nothing: it may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}
