//! A weight as a block reads it, and the sum of its gradients.

use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{Result, Shape, Tensor};

use super::kernel::{sum_dtype, with_values_mut};
use super::matmul::{Matrix, add_product, product};
use crate::simd::Real;

/// The value of a weight, and where its gradients are summed if it is trained.
#[derive(Debug, Clone)]
pub struct Weight {
    value: Tensor,
    gradient: Option<GradientSum>,
}

/// The sum of the gradients of one variable since it was last taken; a clone is the same sum.
/// It is in f32, or in f64 where the variable is.
#[derive(Debug, Clone, Default)]
pub struct GradientSum(Arc<Mutex<Option<Tensor>>>);

impl Weight {
    /// A weight that is not trained.
    pub fn frozen(value: Tensor) -> Self {
        Self { value, gradient: None }
    }

    /// A weight whose gradients are summed in `gradient`.
    pub fn trained(value: Tensor, gradient: GradientSum) -> Self {
        Self { value, gradient: Some(gradient) }
    }

    pub fn value(&self) -> &Tensor {
        &self.value
    }

    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// Whether a gradient is asked for.
    pub fn is_trained(&self) -> bool {
        self.gradient.is_some()
    }

    /// Adds a gradient of the weight's shape.
    pub(super) fn add_gradient(&self, gradient: &Tensor) -> Result<()> {
        let Some(sum) = &self.gradient else { return Ok(()) };
        let mut sum = sum.lock();
        let gradient = gradient.to_dtype(sum_dtype(self.value.dtype()))?.reshape(self.value.shape())?;
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
        Ok(())
    }

    /// The sum itself, to be added to in place: zeros if nothing was added yet, none where no gradient is asked for.
    #[cfg(feature = "cuda")]
    pub(super) fn sum(&self) -> Result<Option<Tensor>> {
        let Some(sum) = &self.gradient else { return Ok(None) };
        let mut sum = sum.lock();
        if sum.is_none() {
            *sum = Some(Tensor::zeros(self.value.shape(), sum_dtype(self.value.dtype()), self.value.device())?);
        }
        Ok(sum.clone())
    }

    /// Adds a gradient on the CPU, in the weight's order.
    pub(super) fn add_values<T: Real>(&self, gradient: Vec<T>) -> Result<()> {
        self.add_gradient(&Tensor::from_vec(gradient, self.value.shape(), self.value.device())?)
    }

    /// Adds the gradient a · b, on the CPU, in place.
    pub(super) fn add_product<T: Real>(&self, a: Matrix<T>, b: Matrix<T>) -> Result<()> {
        let Some(sum) = &self.gradient else { return Ok(()) };
        let mut sum = sum.lock();
        match &*sum {
            Some(sum) => with_values_mut(sum, |sum| add_product(sum, a, b)),
            None => {
                *sum = Some(Tensor::from_vec(product(a, b), self.value.shape(), self.value.device())?);
                Ok(())
            }
        }
    }

    /// Lets `f` add to the sum's values on the CPU, in place; they begin at zero.
    pub(super) fn add_in_place<T: Real>(&self, f: impl FnOnce(&mut [T])) -> Result<()> {
        let Some(sum) = &self.gradient else { return Ok(()) };
        let mut sum = sum.lock();
        if sum.is_none() {
            *sum = Some(Tensor::zeros(self.value.shape(), T::DTYPE, self.value.device())?);
        }
        let Some(values) = &*sum else { return Ok(()) };
        with_values_mut(values, f)
    }
}

impl GradientSum {
    /// The sum so far; the next one begins at zero. None if no gradient came.
    pub fn take(&self) -> Option<Tensor> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tensor>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
