//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of the hub's LLaMA.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, backend::BackendStorage};

use super::kernel::{for_dtype, output, slice, with_values};
use crate::simd::{self, Real};

/// The angles' cosines and sines for every position.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[positions, head_dim / 2]`, in f64.
    cos: Arc<Vec<f64>>,
    sin: Arc<Vec<f64>>,
    head_dim: usize,
}

impl Rope {
    /// Angles `position · theta^(−2i / head_dim)`.
    pub fn new(head_dim: usize, max_positions: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angles = (0..max_positions * half).map(|i| {
            let (position, pair) = (i / half, i % half);
            position as f64 * theta.powf(-2.0 * pair as f64 / head_dim as f64)
        });
        let (cos, sin) = angles.map(|a| (a.cos(), a.sin())).unzip();
        Self { cos: Arc::new(cos), sin: Arc::new(sin), head_dim }
    }
}

/// Turns `x` `[B, T, heads · head_dim]`; row b's first position is `starts[b]`.
pub fn rope(x: &Tensor, starts: &[usize], rope: &Rope) -> Result<Tensor> {
    let turn = Turn { rope: rope.clone(), starts: starts.to_vec(), sign: 1.0 };
    x.contiguous()?.apply_op1(turn)
}

struct Turn {
    rope: Rope,
    starts: Vec<usize>,
    sign: f64,
}

impl Turn {
    fn turn<T: Real>(&self, x: &[T], shape: &Shape) -> Result<Vec<T>> {
        let (batch, time, width) = shape.dims3()?;
        let (half, head_dim) = (self.rope.head_dim / 2, self.rope.head_dim);
        let last = self.starts.iter().max().copied().unwrap_or(0) + time;
        if self.starts.len() != batch || last * half > self.rope.cos.len() {
            candle_core::bail!(
                "{batch} rows up to position {last} do not fit the rotary table of {} positions",
                self.rope.cos.len() / half
            )
        }
        let mut y = vec![T::ZERO; x.len()];
        let mut cos = vec![T::ZERO; half];
        let mut sin = vec![T::ZERO; half];
        simd::dispatch(
            #[inline(always)]
            || {
                for (row, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
                    let position = self.starts[row / time] + row % time;
                    let table = position * half..(position + 1) * half;
                    for (i, (c, s)) in self.rope.cos[table.clone()].iter().zip(&self.rope.sin[table]).enumerate() {
                        cos[i] = T::of(*c);
                        sin[i] = T::of(self.sign * s);
                    }
                    for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
                        let (x0, x1) = x.split_at(half);
                        let (y0, y1) = y.split_at_mut(half);
                        for i in 0..half {
                            y0[i] = x0[i] * cos[i] - x1[i] * sin[i];
                            y1[i] = x1[i] * cos[i] + x0[i] * sin[i];
                        }
                    }
                }
            },
        );
        Ok(y)
    }
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_dtype!(x.dtype(), T => Ok(output(self.turn::<T>(slice(x, layout)?, layout.shape())?, layout.shape())))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Turn { rope: self.rope.clone(), starts: self.starts.clone(), sign: -self.sign };
        for_dtype!(x.dtype(), T => with_values::<T, _>(grad, |g| {
            Ok(Some(Tensor::from_vec(back.turn::<T>(g, x.shape())?, x.shape(), x.device())?))
        }))
    }
}
