//! Convolution over time.

use std::sync::Arc;

use candle_core::{Result, Shape, bail};

use super::kernel::{fill_rows, for_dtype, tensor, with_values};
use super::matmul::{Matrix, product};
use super::{Traced, Weight, add_bias};
use crate::simd::Real;

/// A convolution over an odd number of positions around each one: weight `[out, in, positions]`, bias `[out]`. It reads
/// zeros before a sequence and behind its length.
#[derive(Debug, Clone)]
pub struct Conv1d {
    weight: Weight,
    bias: Weight,
}

impl Conv1d {
    pub fn new(weight: Weight, bias: Weight) -> Result<Self> {
        let (_, _, positions) = weight.value().dims3()?;
        if positions.is_multiple_of(2) {
            bail!("a convolution over {positions} positions has no middle")
        }
        Ok(Self { weight, bias })
    }

    /// `[B, T, in]` to `[B, T, out]`, as one product with every position's neighbours side by side.
    pub fn forward(&self, x: &Traced, lengths: &Arc<[usize]>) -> Result<Traced> {
        let value = x.tensor();
        let (batch, time, input) = value.dims3()?;
        let (output, expected, positions) = self.weight.value().dims3()?;
        if input != expected || lengths.len() != batch || lengths.iter().any(|&n| n > time) {
            bail!("a convolution of {expected} values got {:?} with lengths {lengths:?}", value.shape())
        }
        let window = Window { time, input, positions, lengths: lengths.clone() };
        let weight = self.weight.clone();
        let (rows, width) = (batch * time, input * positions);
        let shape = Shape::from((batch, time, output));
        let y = for_dtype!(value.dtype(), T => with_values::<T, _>(value, |x| with_values::<T, _>(weight.value(), |w| {
            let around = window.gather(x);
            tensor(product(Matrix::new(&around, rows, width), Matrix::new(w, output, width).t()), &shape, value)
        })))?;
        let saved = value.clone();
        let y = Traced::record(y, &[x], move |grad| {
            for_dtype!(saved.dtype(), T => with_values::<T, _>(&saved, |x| with_values::<T, _>(grad, |grad| {
                let grad = Matrix::new(grad, rows, output);
                weight.add_product(grad.t(), Matrix::new(&window.gather(x), rows, width))?;
                let back = with_values::<T, _>(weight.value(), |w| Ok(product(grad, Matrix::new(w, output, width))))?;
                Ok(vec![Some(tensor(window.scatter(&back), saved.shape(), &saved)?)])
            })))
        });
        add_bias(&y, &self.bias)
    }
}

/// Where a position's neighbours lie. Side by side they are in the order of the weight: by input, then by position.
struct Window {
    time: usize,
    input: usize,
    positions: usize,
    lengths: Arc<[usize]>,
}

impl Window {
    /// The row that lies `j` positions after the first neighbour of `row`, if it belongs to the same sequence.
    fn neighbour(&self, row: usize, j: usize) -> Option<usize> {
        let (sequence, t) = (row / self.time, row % self.time);
        let at = (t + j).checked_sub(self.positions / 2)?;
        (at < self.lengths[sequence]).then_some(sequence * self.time + at)
    }

    /// `[B·T, in]` to `[B·T, in · positions]`.
    fn gather<T: Real>(&self, x: &[T]) -> Vec<T> {
        let (input, positions) = (self.input, self.positions);
        let rows = self.lengths.len() * self.time;
        let piece = |first: usize, out: &mut [T]| {
            for (i, out) in out.chunks_exact_mut(input * positions).enumerate() {
                for j in 0..positions {
                    let Some(from) = self.neighbour(first + i, j) else { continue };
                    for (c, &x) in x[from * input..][..input].iter().enumerate() {
                        out[c * positions + j] = x;
                    }
                }
            }
        };
        fill_rows(rows, input * positions, piece).0
    }

    /// The transpose of [`Window::gather`]: every row gets the sum of what its neighbours hold of it.
    fn scatter<T: Real>(&self, around: &[T]) -> Vec<T> {
        let (input, positions) = (self.input, self.positions);
        let rows = self.lengths.len() * self.time;
        let piece = |first: usize, out: &mut [T]| {
            for (i, out) in out.chunks_exact_mut(input).enumerate() {
                let (sequence, t) = ((first + i) / self.time, (first + i) % self.time);
                if t >= self.lengths[sequence] {
                    continue;
                }
                for j in 0..positions {
                    // This row is neighbour j of the row `reader`.
                    let Some(reader) = (t + positions / 2).checked_sub(j).filter(|&r| r < self.time) else { continue };
                    let around = &around[(sequence * self.time + reader) * input * positions..][..input * positions];
                    for (c, out) in out.iter_mut().enumerate() {
                        *out += around[c * positions + j];
                    }
                }
            }
        };
        fill_rows(rows, input, piece).0
    }
}
