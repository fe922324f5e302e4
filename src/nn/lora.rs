//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): what is trained is a product of two thin matrices beside a weight
//! that stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Result, Tensor};
use rand::Rng;

use super::Weight;
use super::linear::{add_outer, times};
use crate::seed::{self, Purpose};

/// `scale · B A x`, beside a linear map.
#[derive(Debug, Clone)]
pub struct Lora {
    /// `[rank, in]`.
    a: Weight,
    /// `[out, rank]`.
    b: Weight,
    scale: f64,
    dropout: Option<Dropout>,
}

/// Zeroes a share of the adapter's inputs and scales the others up, while training.
#[derive(Debug, Clone)]
pub struct Dropout {
    pub probability: f64,
    /// Distinguishes the layers of a model.
    pub layer: u64,
    pub clock: DropoutClock,
}

/// Which masks are drawn: they depend on the seed, the layer and this count alone. A clone is the same clock.
#[derive(Debug, Clone)]
pub struct DropoutClock {
    seed: u64,
    count: Arc<AtomicU64>,
}

impl DropoutClock {
    pub fn new(seed: u64) -> Self {
        Self { seed, count: Arc::default() }
    }

    /// From here on the masks of batch `count` are drawn. Not to be called between the way there and the way back.
    pub fn set(&self, count: u64) {
        self.count.store(count, Ordering::Relaxed);
    }
}

impl Dropout {
    /// What an input `[N, in]` is multiplied by.
    fn mask(&self, like: &Tensor) -> Result<Tensor> {
        let mut rng =
            seed::rng(self.clock.seed, Purpose::Dropout, self.clock.count.load(Ordering::Relaxed), self.layer);
        let kept = 1.0 / (1.0 - self.probability);
        let draw = |_| if rng.random::<f64>() < self.probability { 0.0 } else { kept };
        let mask: Vec<f64> = (0..like.elem_count()).map(draw).collect();
        Tensor::from_vec(mask, like.shape(), like.device())?.to_dtype(like.dtype())
    }
}

impl Lora {
    /// From `a` `[rank, in]` and `b` `[out, rank]`.
    pub fn new(a: Weight, b: Weight, scale: f64, dropout: Option<Dropout>) -> Self {
        Self { a, b, scale, dropout: dropout.filter(|dropout| dropout.probability > 0.0) }
    }

    /// What the adapter adds to the output: `[.., in]` to `[.., out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let low = self.low(&self.dropped(x)?)?;
        times(&low, self.b.value(), true)?.to_dtype(x.dtype())
    }

    /// Adds the gradients of both matrices; returns that of the input.
    pub(super) fn backward(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let dropped = self.dropped(x)?;
        let grad = grad.to_dtype(dropped.dtype())?;
        // d(scale · B A x): scale goes with the thin side.
        add_outer(&self.b, &grad, &self.low(&dropped)?)?;
        let dlow = (times(&grad, self.b.value(), false)? * self.scale)?;
        add_outer(&self.a, &dlow, &dropped)?;
        let dx = times(&dlow, self.a.value(), false)?;
        match &self.dropout {
            Some(dropout) => (dx * dropout.mask(&dropped)?)?.to_dtype(x.dtype()),
            None => dx.to_dtype(x.dtype()),
        }
    }

    /// scale · A x.
    fn low(&self, dropped: &Tensor) -> Result<Tensor> {
        times(dropped, self.a.value(), true)? * self.scale
    }

    /// The input in the adapter's dtype, with dropout.
    fn dropped(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.a.value().dtype())?;
        match &self.dropout {
            Some(dropout) => &x * dropout.mask(&x)?,
            None => Ok(x),
        }
    }
}
