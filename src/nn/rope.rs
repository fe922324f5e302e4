//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of the hub's models.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};

use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, tensor, with_values};
use super::{Heads, Traced};
use crate::simd::{self, Real};

/// The angles' cosines and sines for every position.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[positions, frequencies]`, in f64.
    cos: Arc<Vec<f64>>,
    sin: Arc<Vec<f64>>,
    /// The number of pairs that turn; the rest of a head stays.
    pairs: usize,
    /// Both tables in f32 on the GPU where they were first needed.
    #[cfg(feature = "cuda")]
    on_gpu: Arc<std::sync::OnceLock<Tensor>>,
}

impl Rope {
    /// The angles `position · frequency`, in radians: one frequency for each pair (i, i + pairs) of a head's values.
    pub fn new(frequencies: &[f64], max_positions: usize) -> Self {
        let pairs = frequencies.len();
        let angles = (0..max_positions * pairs).map(|i| (i / pairs) as f64 * frequencies[i % pairs]);
        let (cos, sin) = angles.map(|a| (a.cos(), a.sin())).unzip();
        Self {
            cos: Arc::new(cos),
            sin: Arc::new(sin),
            pairs,
            #[cfg(feature = "cuda")]
            on_gpu: Arc::default(),
        }
    }

    /// `[2, positions, pairs]`, cosines and sines.
    #[cfg(feature = "cuda")]
    fn on_gpu(&self, device: &candle_core::Device) -> Result<Tensor> {
        if let Some(angles) = self.on_gpu.get().filter(|angles| angles.device().same_device(device)) {
            return Ok(angles.clone());
        }
        let both: Vec<f32> = self.cos.iter().chain(self.sin.iter()).map(|&x| x as f32).collect();
        let angles = Tensor::from_vec(both, (2, self.cos.len() / self.pairs.max(1), self.pairs), device)?;
        // A second GPU makes its own every time.
        let _ = self.on_gpu.set(angles.clone());
        Ok(angles)
    }

    /// The usual frequencies theta^(−2i / dim), in radians a position, for the pairs of `dim` values.
    pub fn frequencies(dim: usize, theta: f64) -> Vec<f64> {
        (0..dim).step_by(2).map(|i| theta.powf(-(i as f64) / dim as f64)).collect()
    }
}

/// Turns the queries and keys of packed `[B, T, ..]`; row b's first position is `starts[b]`.
pub fn rope(packed: &Traced, heads: Heads, starts: &[usize], rope: &Rope) -> Result<Traced> {
    let turn = Turn { rope: rope.clone(), heads, starts: starts.to_vec() };
    let y = turn.apply(packed.tensor(), 1.0)?;
    Ok(Traced::record(y, &[packed], move |grad| Ok(vec![Some(turn.apply(grad, -1.0)?)])))
}

struct Turn {
    rope: Rope,
    heads: Heads,
    starts: Vec<usize>,
}

impl Turn {
    fn apply(&self, x: &Tensor, sign: f64) -> Result<Tensor> {
        let (batch, time) = self.heads.check(x.shape())?;
        // The shortest row has as many tokens as any; what lies beyond the table in others is their padding.
        let last = self.starts.iter().min().copied().unwrap_or(0) + time;
        let pairs = self.rope.pairs;
        if self.starts.len() != batch || last * pairs > self.rope.cos.len() || 2 * pairs > self.heads.dim {
            bail!(
                "{batch} rows up to position {last} of heads of {} do not fit the rotary table of {} positions and {pairs} pairs",
                self.heads.dim,
                self.rope.cos.len() / pairs.max(1)
            )
        }
        on_gpu!(x, cuda::rope(x, self.heads, &self.starts, &self.rope.on_gpu(x.device())?, sign));
        for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| {
            let (y, _) = fill_rows(batch * time, self.heads.packed(), |first, y: &mut [T]| {
                self.rows(first, time, &xs[first * self.heads.packed()..], y, sign)
            });
            tensor(y, &Shape::from(x.dims()), x)
        }))
    }

    fn rows<T: Real>(&self, first: usize, time: usize, x: &[T], y: &mut [T], sign: f64) {
        let (width, pairs) = (self.heads.packed(), self.rope.pairs);
        let most = (self.rope.cos.len() / pairs.max(1)).saturating_sub(1);
        let turning: Vec<usize> = (0..self.heads.query).map(|h| self.heads.query_at(h)).collect();
        let turning: Vec<usize> = turning.into_iter().chain((0..self.heads.kv).map(|h| self.heads.key_at(h))).collect();
        let (mut cos, mut sin) = (vec![T::ZERO; pairs], vec![T::ZERO; pairs]);
        simd::dispatch(
            #[inline(always)]
            || {
                for (row, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
                    let row = first + row;
                    let position = (self.starts[row / time] + row % time).min(most);
                    let table = position * pairs..(position + 1) * pairs;
                    for (i, (c, s)) in self.rope.cos[table.clone()].iter().zip(&self.rope.sin[table]).enumerate() {
                        cos[i] = T::of(*c);
                        sin[i] = T::of(sign * s);
                    }
                    y.copy_from_slice(x);
                    for &at in &turning {
                        let (x0, x1) = x[at..][..2 * pairs].split_at(pairs);
                        let (y0, y1) = y[at..][..2 * pairs].split_at_mut(pairs);
                        for i in 0..pairs {
                            y0[i] = x0[i] * cos[i] - x1[i] * sin[i];
                            y1[i] = x1[i] * cos[i] + x0[i] * sin[i];
                        }
                    }
                }
            },
        );
    }
}
