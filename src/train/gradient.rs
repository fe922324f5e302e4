//! Gradients of all variables: taken, summed over microbatches, measured, clipped.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use crate::nn::{GradientSum, Params, on_gpu, sum_dtype, with_values, with_values_mut};
use crate::ranks::Ranks;
use crate::simd::{self, Real};

/// A gradient, or a sum of them, in the order of the variables' names.
#[derive(Debug, Clone)]
pub struct Gradient {
    values: Vec<Tensor>,
    /// What the values are to be multiplied by.
    scale: f64,
    /// The squared norm of the values, where it is known.
    squared_norm: Option<f64>,
    microbatches: usize,
    sum_of_squared_norms: f64,
}

impl Gradient {
    /// The gradient of a loss: goes back from it and takes what reached the variables. What another way back left there
    /// is not part of it.
    ///
    /// # Errors
    /// A variable that the loss does not reach, and a gradient that is not a number; it is named.
    pub fn of(loss: &Tensor, params: &Params) -> Result<Self> {
        params.gradients().for_each(|(_, sum)| drop(sum.take()));
        loss.backward()?;
        let take = |(name, sum): (&str, &GradientSum)| {
            sum.take().with_context(|| format!("the loss gives {name} no gradient"))
        };
        let values: Vec<Tensor> = params.gradients().map(take).collect::<Result<_>>()?;
        let squared_norms = squared_norms(&values)?;
        for ((name, _), own) in params.gradients().zip(&squared_norms) {
            ensure!(own.is_finite(), "the gradient of {name} is not a number");
        }
        let squared_norm = squared_norms.iter().sum();
        let squared = Some(squared_norm);
        Ok(Self { values, scale: 1.0, squared_norm: squared, microbatches: 1, sum_of_squared_norms: squared_norm })
    }

    /// Adds the gradient of another microbatch; neither has been scaled.
    pub fn add(&mut self, other: Gradient) -> Result<()> {
        ensure!(self.scale == 1.0 && other.scale == 1.0, "a gradient that was scaled cannot be added to");
        for (sum, value) in self.values.iter().zip(&other.values) {
            add(sum, value)?;
        }
        self.squared_norm = None;
        self.microbatches += other.microbatches;
        self.sum_of_squared_norms += other.sum_of_squared_norms;
        Ok(())
    }

    /// The sum over no microbatch.
    pub fn zeros(params: &Params) -> Result<Self> {
        let zeros = |(_, var): (&str, &Var)| Tensor::zeros(var.shape(), sum_dtype(var.dtype()), var.device());
        let values = params.iter().map(zeros).collect::<candle_core::Result<_>>()?;
        Ok(Self { values, scale: 1.0, squared_norm: Some(0.0), microbatches: 0, sum_of_squared_norms: 0.0 })
    }

    /// Turns a rank's sum over its microbatches into that over the microbatches of all ranks. Neither has been scaled.
    /// Collective.
    pub fn sum_over(&mut self, ranks: &Ranks) -> Result<()> {
        ensure!(self.scale == 1.0, "a gradient that was scaled is not summed over ranks");
        if ranks.size() == 1 {
            return Ok(());
        }
        self.values.iter().try_for_each(|value| ranks.mean_tensor(value))?;
        // The values are the mean over the ranks.
        self.scale = ranks.size() as f64;
        self.squared_norm = None;
        let counted = ranks.exchange((self.microbatches, self.sum_of_squared_norms))?;
        (self.microbatches, self.sum_of_squared_norms) =
            counted.into_iter().fold((0, 0.0), |sum, rank| (sum.0 + rank.0, sum.1 + rank.1));
        Ok(())
    }

    /// Turns the sum into the mean over microbatches and returns the unbiased estimate of
    /// E‖g − E g‖² of one microbatch, Σ‖g_i − ḡ‖²/(m − 1); none for fewer than two.
    pub fn into_mean(&mut self) -> Result<Option<f64>> {
        if self.microbatches < 2 {
            return Ok(None);
        }
        let m = self.microbatches as f64;
        self.scale /= m;
        let mean_square = self.norm()?.powi(2);
        Ok(Some(((self.sum_of_squared_norms - m * mean_square) / (m - 1.0)).max(0.0)))
    }

    /// The Euclidean norm over all variables.
    pub fn norm(&mut self) -> Result<f64> {
        let squared = match self.squared_norm {
            Some(squared) => squared,
            None => squared_norms(&self.values)?.iter().sum(),
        };
        self.squared_norm = Some(squared);
        Ok(squared.sqrt() * self.scale)
    }

    /// Scales down to the norm `max`, if it is longer; returns the norm from before.
    pub fn clip(&mut self, max: f64) -> Result<f64> {
        let norm = self.norm()?;
        if norm > max {
            self.scale *= max / norm;
        }
        Ok(norm)
    }

    /// One tensor a variable, in f32 (f64 for variables in f64), to be multiplied by [`Gradient::scale`].
    pub fn values(&self) -> &[Tensor] {
        &self.values
    }

    pub fn scale(&self) -> f64 {
        self.scale
    }
}

/// Values in a piece of work; a constant, so that sums have the same bits for any number of threads.
const PIECE: usize = 1 << 14;

fn squared_norms(tensors: &[Tensor]) -> candle_core::Result<Vec<f64>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    on_gpu!(tensors[0], cuda::squared_norms(tensors));
    tensors.iter().map(squared_norm).collect()
}

fn squared_norm(x: &Tensor) -> candle_core::Result<f64> {
    fn of<T: Real>(x: &[T]) -> f64 {
        let piece = |x: &[T]| {
            simd::dispatch(
                #[inline(always)]
                || simd::sum([x], |[x]| x * x).into_f64(),
            )
        };
        x.par_chunks(PIECE).map(piece).collect::<Vec<_>>().into_iter().sum()
    }
    match x.dtype() {
        DType::F64 => with_values::<f64, _>(x, |x| Ok(of(x))),
        _ => with_values::<f32, _>(x, |x| Ok(of(x))),
    }
}

/// a += b.
fn add(a: &Tensor, b: &Tensor) -> candle_core::Result<()> {
    on_gpu!(a, cuda::add_in_place(a, b));
    with_values::<f32, _>(b, |b| {
        with_values_mut(a, |a: &mut [f32]| {
            a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            })
        })
    })
}
