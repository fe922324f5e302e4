//! Matrix products of slices: a new matrix, or added to one.

use crate::simd::Real;

/// A matrix in row-major order, its rows `step` apart, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    step: usize,
    transposed: bool,
}

impl<'a, T> Matrix<'a, T> {
    pub fn new(values: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// Of a larger matrix, whose rows are `step` long, the part that begins with `values`.
    pub fn strided(values: &'a [T], rows: usize, cols: usize, step: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * step + cols <= values.len(), "a matrix lies inside its memory");
        Self { values, rows, cols, step, transposed: false }
    }

    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Steps from a row to the next and from a column to the next.
    fn steps(&self) -> (isize, isize) {
        if self.transposed { (1, self.step as isize) } else { (self.step as isize, 1) }
    }
}

/// a · b, over all threads of the pool.
pub(super) fn product<T: Real>(a: Matrix<T>, b: Matrix<T>) -> Vec<T> {
    let size = a.rows * b.cols;
    let mut out = Vec::with_capacity(size);
    // SAFETY: the memory has room for the product, and gemm writes every element of it without reading it.
    unsafe {
        gemm_into(out.as_mut_ptr(), b.cols, false, a, b, all_threads());
        out.set_len(size);
    }
    out
}

/// out += a · b, over all threads of the pool.
pub(super) fn add_product<T: Real>(out: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(out.len(), a.rows * b.cols, "the product has another shape than what it is added to");
    // SAFETY: the slice has the product's size and is initialised.
    unsafe { gemm_into(out.as_mut_ptr(), b.cols, true, a, b, all_threads()) }
}

/// out = a · b, or out += a · b with `add`, on this thread, into rows that are `step` apart.
pub(super) fn product_into<T: Real>(out: &mut [T], step: usize, add: bool, a: Matrix<T>, b: Matrix<T>) {
    assert!(a.rows == 0 || (a.rows - 1) * step + b.cols <= out.len(), "the product lies inside its memory");
    // SAFETY: checked in the line above; the slice is initialised.
    unsafe { gemm_into(out.as_mut_ptr(), step, add, a, b, gemm::Parallelism::None) }
}

fn all_threads() -> gemm::Parallelism {
    match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    }
}

/// # Safety
/// `out` points to room for `a.rows` rows of `b.cols` elements, `step` apart, initialised if `add`.
unsafe fn gemm_into<T: Real>(
    out: *mut T,
    step: usize,
    add: bool,
    a: Matrix<T>,
    b: Matrix<T>,
    parallelism: gemm::Parallelism,
) {
    assert_eq!(a.cols, b.rows, "the inner dimensions of a product agree");
    let ((a_rs, a_cs), (b_rs, b_cs)) = (a.steps(), b.steps());
    // SAFETY: pointers and steps describe the matrices' own slices; the caller answers for `out`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            step as isize,
            add,
            a.values.as_ptr(),
            a_cs,
            a_rs,
            b.values.as_ptr(),
            b_cs,
            b_rs,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}
