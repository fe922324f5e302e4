//! Matrix products of slices: a new matrix, or added to one.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::{LANES, Real};

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
    let whole = a.step == a.cols && (b.step == b.cols || b.transposed && b.step == b.rows);
    if a.rows <= FEW && !a.transposed && whole {
        return product_of_few(a.values, a.rows, b);
    }
    let size = a.rows * b.cols;
    let mut out = Vec::with_capacity(size);
    // SAFETY: the memory has room for the product, every element of which is written without being read.
    unsafe {
        multiply(&mut out.spare_capacity_mut()[..size], false, a, b);
        out.set_len(size);
    }
    out
}

/// out += a · b, over all threads of the pool.
pub(super) fn add_product<T: Real>(out: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    // SAFETY: the slice is initialised, and stays so; the two types have one layout.
    unsafe { multiply(&mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<T>]), true, a, b) }
}

/// Products of so many values are split here, where the transpose of a matrix in rows is multiplied: the gradient of a
/// small weight. What gemm splits itself has to wait for all threads several times.
const SPLIT: usize = 1 << 19;

/// Columns of a matrix whose rows are at least so far apart are copied to where they lie together: to sum along them as
/// they are would take another page of memory for every value.
const FAR: usize = 1024;

/// Over all threads of the pool; how the work is split does not depend on their number.
///
/// # Safety
/// `out` is initialised if `add`.
unsafe fn multiply<T: Real>(out: &mut [MaybeUninit<T>], add: bool, a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(out.len(), a.rows * b.cols, "the product has another shape than its place");
    if !a.transposed || out.is_empty() || out.len() > SPLIT {
        // SAFETY: `out` has the product's size.
        return unsafe { gemm_into(out.as_mut_ptr().cast(), b.cols, add, a, b, all_threads()) };
    }
    let width = a.rows.div_ceil(4).clamp(64, 256);
    let panel = |(i, out): (usize, &mut [MaybeUninit<T>])| {
        let n = out.len() / b.cols;
        let columns = Matrix::strided(&a.values[i * width..], a.cols, n, a.step);
        let copy: Vec<T>;
        let columns = if a.step < FAR {
            columns
        } else {
            copy = together(columns);
            Matrix::new(&copy, a.cols, n)
        };
        // SAFETY: `out` has room for n rows of `b.cols`.
        unsafe { gemm_into(out.as_mut_ptr().cast(), b.cols, add, columns.t(), b, gemm::Parallelism::None) }
    };
    match rayon::current_num_threads() {
        1 => out.chunks_mut(width * b.cols).enumerate().for_each(panel),
        _ => out.par_chunks_mut(width * b.cols).enumerate().for_each(panel),
    }
}

/// A part of a larger matrix as a matrix of its own.
fn together<T: Real>(part: Matrix<T>) -> Vec<T> {
    let mut values = Vec::with_capacity(part.rows * part.cols);
    for row in 0..part.rows {
        values.extend_from_slice(&part.values[row * part.step..][..part.cols]);
    }
    values
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

/// Up to so many rows the time goes into reading b once, and to arrange it for gemm would only add to that.
const FEW: usize = 16;

/// At most so many columns of b are in a piece of work: what is summed of them stays in the first-level cache.
const COLUMNS: usize = 512;

/// A matrix of so few values is read faster by one thread than by several that must be woken.
const SMALL: usize = 1 << 16;

/// x · b for few rows x; every row is computed in the same way, whatever their number.
fn product_of_few<T: Real>(x: &[T], rows: usize, b: Matrix<T>) -> Vec<T> {
    if rows * b.rows * b.cols == 0 {
        return vec![T::ZERO; rows * b.cols];
    }
    let count = if b.rows * b.cols <= SMALL { 1 } else { b.cols.div_ceil(COLUMNS) };
    let width = b.cols.div_ceil(count).next_multiple_of(LANES);
    let piece = |from: usize| {
        let n = width.min(b.cols - from);
        let mut out = vec![T::ZERO; rows * n];
        match b.transposed {
            true => T::products_of_rows(x, &b.values[from * b.rows..][..n * b.rows], b.rows, &mut out),
            false => T::products_with_columns(x, b.rows, &b.values[from..], b.step, n, &mut out),
        }
        out
    };
    if width >= b.cols {
        return piece(0);
    }
    let starts: Vec<usize> = (0..b.cols).step_by(width).collect();
    let pieces: Vec<Vec<T>> = match rayon::current_num_threads() {
        1 => starts.into_iter().map(piece).collect(),
        _ => starts.into_par_iter().map(piece).collect(),
    };
    let mut out = Vec::with_capacity(rows * b.cols);
    for row in 0..rows {
        for piece in &pieces {
            let n = piece.len() / rows;
            out.extend_from_slice(&piece[row * n..][..n]);
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Few rows and many, whole vectors and what is left of them, both ways that b may lie.
    #[test]
    fn products_are_those_of_plain_loops() {
        for (rows, inner, cols) in [
            (1, 7, 5),
            (3, 33, 300),
            (8, 64, 513),
            (9, 130, 700),
            (16, 19, 40),
            (17, 19, 40),
            (150, 5, 3),
            (1100, 40, 7),
        ] {
            let a: Vec<f64> = (0..rows * inner).map(|i| (0.3 * i as f64).sin()).collect();
            let b: Vec<f64> = (0..inner * cols).map(|i| (0.7 * i as f64).cos()).collect();
            for transposed in [false, true] {
                let matrix = if transposed { Matrix::new(&b, cols, inner).t() } else { Matrix::new(&b, inner, cols) };
                let of_b = |k: usize, j: usize| if transposed { b[j * inner + k] } else { b[k * cols + j] };
                let y = product(Matrix::new(&a, rows, inner), matrix);
                for i in 0..rows {
                    for j in 0..cols {
                        let plain: f64 = (0..inner).map(|k| a[i * inner + k] * of_b(k, j)).sum();
                        assert!((y[i * cols + j] - plain).abs() < 1e-12, "{rows} {inner} {cols}, place {i} {j}");
                    }
                }
                let columns: Vec<f64> = (0..inner * rows).map(|i| a[i % rows * inner + i / rows]).collect();
                let mut twice = product(Matrix::new(&columns, inner, rows).t(), matrix);
                add_product(&mut twice, Matrix::new(&columns, inner, rows).t(), matrix);
                assert!(
                    twice.iter().zip(&y).all(|(twice, y)| (twice - 2.0 * y).abs() < 1e-12),
                    "{rows} {inner} {cols}"
                );
            }
        }
    }
}
