//! Gradients of all variables: taken, summed over microbatches, measured, clipped.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::nn::{Params, with_values, with_values_mut};
use crate::simd::{self, Real};

/// A gradient, or a sum of them, in the order of the variables' names.
#[derive(Debug, Clone)]
pub struct Gradient {
    values: Vec<Tensor>,
    microbatches: usize,
    sum_of_squared_norms: f64,
}

impl Gradient {
    /// The gradient of a loss: goes back from it and takes what reached the variables.
    ///
    /// # Errors
    /// A variable that the loss does not reach, and a gradient that is not a number; it is named.
    pub fn of(loss: &Tensor, params: &Params) -> Result<Self> {
        loss.backward()?;
        let mut gradient = Self { values: Vec::new(), microbatches: 1, sum_of_squared_norms: 0.0 };
        for (name, sum) in params.gradients() {
            let value = sum.take().with_context(|| format!("the loss gives {name} no gradient"))?;
            let own = squared_norm(&value)?;
            ensure!(own.is_finite(), "the gradient of {name} is not a number");
            gradient.sum_of_squared_norms += own;
            gradient.values.push(value);
        }
        Ok(gradient)
    }

    /// Adds the gradient of another microbatch.
    pub fn add(&mut self, other: Gradient) -> Result<()> {
        for (sum, value) in self.values.iter().zip(&other.values) {
            add(sum, value)?;
        }
        self.microbatches += other.microbatches;
        self.sum_of_squared_norms += other.sum_of_squared_norms;
        Ok(())
    }

    /// Turns the sum into the mean over microbatches and returns the unbiased estimate of
    /// E‖g − E g‖² of one microbatch, Σ‖g_i − ḡ‖²/(m − 1); none for fewer than two.
    pub fn into_mean(&mut self) -> Result<Option<f64>> {
        let m = self.microbatches as f64;
        if self.microbatches < 2 {
            return Ok(None);
        }
        self.scale(1.0 / m)?;
        let mean_square = self.norm()?.powi(2);
        Ok(Some(((self.sum_of_squared_norms - m * mean_square) / (m - 1.0)).max(0.0)))
    }

    /// The Euclidean norm over all variables.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.values.iter().map(squared_norm).sum::<Result<f64>>()?.sqrt())
    }

    /// Scales down to the norm `max`, if it is longer. `norm` is the present one.
    pub fn clip(&mut self, norm: f64, max: f64) -> Result<()> {
        if norm > max { self.scale(max / norm) } else { Ok(()) }
    }

    /// One tensor a variable, in f32 (f64 for variables in f64).
    pub fn values(&self) -> &[Tensor] {
        &self.values
    }

    fn scale(&self, by: f64) -> Result<()> {
        self.values.iter().try_for_each(|value| change(value, |x| x.iter_mut().for_each(|x| *x *= by as f32)))
    }
}

/// Values in a piece of work; a constant, so that sums have the same bits for any number of threads.
const PIECE: usize = 1 << 14;

fn squared_norm(x: &Tensor) -> Result<f64> {
    fn of<T: Real>(x: &[T]) -> f64 {
        let piece = |x: &[T]| {
            simd::dispatch(
                #[inline(always)]
                || simd::sum(x.len(), |i| x[i].into_f64() * x[i].into_f64()),
            )
        };
        x.par_chunks(PIECE).map(piece).collect::<Vec<_>>().into_iter().sum()
    }
    Ok(match x.dtype() {
        DType::F64 => with_values::<f64, _>(x, |x| Ok(of(x)))?,
        _ => with_values::<f32, _>(x, |x| Ok(of(x)))?,
    })
}

/// Changes the values piece by piece, in place.
fn change(x: &Tensor, f: impl Fn(&mut [f32]) + Send + Sync) -> Result<()> {
    Ok(with_values_mut(x, |x| x.par_chunks_mut(PIECE).for_each(f))?)
}

/// a += b.
fn add(a: &Tensor, b: &Tensor) -> Result<()> {
    with_values::<f32, _>(b, |b| {
        with_values_mut(a, |a: &mut [f32]| {
            a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            })
        })
    })?;
    Ok(())
}
