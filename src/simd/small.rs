//! Products of small matrices that are not arranged for it first: what attention of a short sequence is made of.
//!
//! No vectors in closures below: what the compiler does not inline would run without their instructions.

use pulp::Simd;

/// out\[i\]\[j\] = Σ_k a(i, k) · b(k, j), where a(i, k) = `a[i · a_row + k · a_step]` and b(k, j) = `b[k · b_step + j]`; with
/// `add` it is added. Sums run in the order of k, whatever the number of rows and columns.
pub struct SmallProduct<'a, T> {
    pub a: &'a [T],
    pub a_row: usize,
    pub a_step: usize,
    pub b: &'a [T],
    pub b_step: usize,
    pub rows: usize,
    pub inner: usize,
    pub cols: usize,
    pub out: &'a mut [T],
    pub out_step: usize,
    pub add: bool,
}

impl SmallProduct<'_, f64> {
    /// In plain loops: f64 is there to check with.
    pub(super) fn plain(self) {
        for i in 0..self.rows {
            for j in 0..self.cols {
                let term = |k: usize| self.a[i * self.a_row + k * self.a_step] * self.b[k * self.b_step + j];
                let sum: f64 = (0..self.inner).map(term).sum();
                let out = &mut self.out[i * self.out_step + j];
                *out = if self.add { *out + sum } else { sum };
            }
        }
    }
}

impl pulp::WithSimd for SmallProduct<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, a_row, a_step, b, b_step, rows, inner, cols, out, out_step, add } = self;
        if rows == 0 || cols == 0 {
            return;
        }
        let last = |n: usize, step: usize| (n - 1).saturating_mul(step);
        assert!(last(rows, out_step).saturating_add(cols) <= out.len(), "the product lies inside its memory");
        if inner == 0 {
            if !add {
                out.chunks_mut(out_step.max(cols)).take(rows).for_each(|row| row[..cols].fill(0.0));
            }
            return;
        }
        assert!(
            last(rows, a_row).saturating_add(last(inner, a_step)) < a.len(),
            "the left matrix lies inside its memory"
        );
        assert!(last(inner, b_step).saturating_add(cols) <= b.len(), "the right matrix lies inside its memory");
        let lanes = S::F32_LANES;
        // One that its masks alone make: loads through the table that pulp keeps cost a jump each.
        let mask = pulp::MemMask::new(simd.mask_between_m32s(0, (cols % lanes) as u32).mask());
        let strip = Strip { a: a.as_ptr(), a_row, a_step, b_step, rows, inner, out_step, add };
        let mut j = 0;
        // SAFETY: the three matrices lie inside their slices, as was checked above, and strips inside of them.
        unsafe {
            while j + 4 * lanes <= cols {
                strip.all_rows::<S, 6, 4, false>(simd, b.as_ptr().add(j), out.as_mut_ptr().add(j), mask);
                j += 4 * lanes;
            }
            while j + 2 * lanes <= cols {
                strip.all_rows::<S, 8, 2, false>(simd, b.as_ptr().add(j), out.as_mut_ptr().add(j), mask);
                j += 2 * lanes;
            }
            while j + lanes <= cols {
                strip.all_rows::<S, 8, 1, false>(simd, b.as_ptr().add(j), out.as_mut_ptr().add(j), mask);
                j += lanes;
            }
            if j < cols {
                strip.all_rows::<S, 8, 1, true>(simd, b.as_ptr().add(j), out.as_mut_ptr().add(j), mask);
            }
        }
    }
}

/// Some columns of b and of the product.
#[derive(Clone, Copy)]
struct Strip {
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b_step: usize,
    rows: usize,
    inner: usize,
    out_step: usize,
    add: bool,
}

impl Strip {
    /// # Safety
    /// `b` and `out` begin columns that lie inside their matrices, C vectors of them or what the mask leaves.
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const R: usize, const C: usize, const PART: bool>(
        self,
        simd: S,
        b: *const f32,
        out: *mut f32,
        mask: pulp::MemMask<S::m32s>,
    ) {
        let mut i = 0;
        // SAFETY: the caller's.
        unsafe {
            while i + R <= self.rows {
                self.tile::<S, R, C, PART>(simd, i, b, out, mask);
                i += R;
            }
            while i + 2 <= self.rows {
                self.tile::<S, 2, C, PART>(simd, i, b, out, mask);
                i += 2;
            }
            while i < self.rows {
                self.tile::<S, 1, C, PART>(simd, i, b, out, mask);
                i += 1;
            }
        }
    }

    /// R rows of C vectors, masked with PART.
    ///
    /// # Safety
    /// As above, and there are R rows from row i on.
    #[allow(clippy::needless_range_loop)] // Registers and places in memory have one index.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize, const PART: bool>(
        self,
        simd: S,
        i: usize,
        b: *const f32,
        out: *mut f32,
        mask: pulp::MemMask<S::m32s>,
    ) {
        let lanes = S::F32_LANES;
        // SAFETY: the caller's.
        unsafe {
            let a = self.a.add(i * self.a_row);
            let out = out.add(i * self.out_step);
            let mut sums = [[simd.splat_f32s(0.0); C]; R];
            for k in 0..self.inner {
                let b = b.add(k * self.b_step);
                let mut bs = [simd.splat_f32s(0.0); C];
                for c in 0..C {
                    bs[c] = load::<S, PART>(simd, b.add(c * lanes), mask);
                }
                let a = a.add(k * self.a_step);
                for r in 0..R {
                    let x = simd.splat_f32s(*a.add(r * self.a_row));
                    for c in 0..C {
                        sums[r][c] = simd.mul_add_f32s(x, bs[c], sums[r][c]);
                    }
                }
            }
            for r in 0..R {
                for c in 0..C {
                    let out = out.add(r * self.out_step + c * lanes);
                    let mut sum = sums[r][c];
                    if self.add {
                        sum = simd.add_f32s(load::<S, PART>(simd, out, mask), sum);
                    }
                    match PART {
                        true => simd.mask_store_ptr_f32s(mask, out, sum),
                        false => out.cast::<S::f32s>().write_unaligned(sum),
                    }
                }
            }
        }
    }
}

/// # Safety
/// `from` points to a vector, or to what the mask leaves of one.
#[inline(always)]
unsafe fn load<S: Simd, const PART: bool>(simd: S, from: *const f32, mask: pulp::MemMask<S::m32s>) -> S::f32s {
    // SAFETY: the caller's.
    unsafe {
        match PART {
            true => simd.mask_load_ptr_f32s(mask, from),
            false => from.cast::<S::f32s>().read_unaligned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Real;

    /// Rows of the product, inner ones, columns.
    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 3, 5), (2, 8, 48), (13, 7, 16), (16, 33, 64), (9, 16, 100), (7, 5, 8), (3, 0, 20)];
    /// By how much rows of b and of the product are longer than they have columns.
    const B_ROOM: usize = 3;
    const OUT_ROOM: usize = 1;

    /// The product of a and b, in place of what stands in `start` or added to it.
    fn product<T: Real>(
        (rows, inner, cols): (usize, usize, usize),
        (a, a_row, a_step): (&[T], usize, usize),
        b: &[T],
        start: &[T],
        add: bool,
    ) -> Vec<T> {
        let mut product = start.to_vec();
        let (b_step, out_step, out) = (cols + B_ROOM, cols + OUT_ROOM, &mut product[..]);
        T::small_product(SmallProduct { a, a_row, a_step, b, b_step, rows, inner, cols, out, out_step, add });
        product
    }

    /// Every shape of tile and what is left of it, both ways that a may lie.
    #[test]
    fn small_products_are_those_of_plain_loops() {
        let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        for shape in SHAPES {
            let (rows, inner, cols) = shape;
            let a: Vec<f64> = (0..rows * inner).map(|i| (0.3 * i as f64).sin()).collect();
            let b: Vec<f64> = (0..inner * (cols + B_ROOM)).map(|i| (0.7 * i as f64).cos()).collect();
            let start: Vec<f64> = (0..rows * (cols + OUT_ROOM)).map(|i| i as f64 * 0.01).collect();
            let (a_f32, b_f32, start_f32) = (narrow(&a), narrow(&b), narrow(&start));
            for (a_row, a_step) in [(inner, 1), (1, rows)] {
                for add in [false, true] {
                    let expected = product(shape, (&a[..], a_row, a_step), &b, &start, add);
                    let found = product(shape, (&a_f32[..], a_row, a_step), &b_f32, &start_f32, add);
                    for (i, (x, y)) in expected.iter().zip(&found).enumerate() {
                        assert!((x - f64::from(*y)).abs() < 1e-5, "{rows} {inner} {cols}, place {i}: {x} {y}");
                    }
                }
            }
        }
    }
}
