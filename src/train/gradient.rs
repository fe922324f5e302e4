//! Gradients of all variables as plain numbers: summed over microbatches, measured, clipped.

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;

use crate::nn::Params;

/// A gradient, or a sum of them, in the order of the variables' names.
#[derive(Debug, Clone)]
pub struct Gradient {
    values: Vec<Vec<f32>>,
    microbatches: usize,
    sum_of_squared_norms: f64,
}

impl Gradient {
    pub fn zeros(params: &Params) -> Self {
        let values = params.iter().map(|(_, var)| vec![0.0; var.elem_count()]).collect();
        Self { values, microbatches: 0, sum_of_squared_norms: 0.0 }
    }

    /// Adds the gradient of one microbatch.
    ///
    /// # Errors
    /// A variable that the loss does not reach, and a gradient that is not a number; it is named.
    pub fn add(&mut self, params: &Params, grads: &GradStore) -> Result<()> {
        let mut squared = 0.0;
        for ((name, var), sum) in params.iter().zip(&mut self.values) {
            let grad = grads.get(var).with_context(|| format!("the loss gives {name} no gradient"))?;
            let grad = grad.flatten_all()?.to_vec1::<f32>()?;
            let mut own = 0.0;
            for (sum, &g) in sum.iter_mut().zip(&grad) {
                *sum += g;
                own += f64::from(g) * f64::from(g);
            }
            ensure!(own.is_finite(), "the gradient of {name} is not a number");
            squared += own;
        }
        self.microbatches += 1;
        self.sum_of_squared_norms += squared;
        Ok(())
    }

    /// Turns the sum into the mean over microbatches and returns the unbiased estimate of
    /// E‖g − E g‖² of one microbatch, Σ‖g_i − ḡ‖²/(m − 1); none for fewer than two.
    pub fn into_mean(&mut self) -> Option<f64> {
        let m = self.microbatches as f64;
        for value in self.values.iter_mut().flatten() {
            *value /= m as f32;
        }
        (self.microbatches > 1).then(|| {
            let mean_square = self.norm().powi(2);
            ((self.sum_of_squared_norms - m * mean_square) / (m - 1.0)).max(0.0)
        })
    }

    /// The Euclidean norm over all variables.
    pub fn norm(&self) -> f64 {
        self.values.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt()
    }

    /// Scales down to the norm `max`, if it is longer.
    pub fn clip(&mut self, max: f64) {
        let norm = self.norm();
        if norm > max {
            let scale = (max / norm) as f32;
            for value in self.values.iter_mut().flatten() {
                *value *= scale;
            }
        }
    }

    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// The values of every variable, for [`crate::ranks::Ranks::mean`].
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.iter_mut().map(Vec::as_mut_slice)
    }
}
