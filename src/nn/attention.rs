//! Causal attention, and the cache with which a model continues where it stopped.
//!
//! Queries, keys and values come packed in one tensor `[B, T, (heads + 2·kv_heads) · head_dim]`, in
//! that order, as one product gives them. Sequences are padded on the right: causality alone keeps
//! padding out of every real token's sight, so no mask is needed, and a row never sees its neighbours.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, backend::BackendStorage};
use rayon::prelude::*;

use super::kernel::{for_dtype, output, slice, with_values};
use crate::simd::{self, Real};

/// The heads of one attention layer; query head h reads key head h / (query / kv).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
}

impl Heads {
    /// The width of the packed tensor.
    pub fn packed(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Where the key and the value of query head `h` begin in a packed row.
    #[inline(always)]
    fn offsets(&self, h: usize) -> (usize, usize) {
        let kv = h / (self.query / self.kv);
        ((self.query + kv) * self.dim, (self.query + self.kv + kv) * self.dim)
    }

    fn check(&self, shape: &Shape) -> Result<(usize, usize)> {
        let (batch, time, width) = shape.dims3()?;
        if width != self.packed() || !self.query.is_multiple_of(self.kv) {
            candle_core::bail!("{shape:?} does not hold packed queries, keys and values of {self:?}")
        }
        Ok((batch, time))
    }
}

/// Attention of every position to itself and to those before it: packed `[B, T, ..]` to
/// `[B, T, heads · head_dim]`. Differentiable; the scores are computed again on the way back.
pub fn causal_attention(packed: &Tensor, heads: Heads) -> Result<Tensor> {
    packed.contiguous()?.apply_op1(CausalAttention(heads))
}

struct CausalAttention(Heads);

/// softmax(q·k · scale) over the first `scores.len()` positions, and the mean of the values under it.
/// `keys` and `values` begin at position 0; positions are `stride` apart.
#[inline(always)]
fn attend<T: Real>(q: &[T], keys: &[T], values: &[T], stride: usize, scores: &mut [T], out: &mut [T]) {
    probabilities(q, keys, stride, scores);
    let dim = out.len();
    out.fill(T::ZERO);
    for (s, &p) in scores.iter().enumerate() {
        let v = &values[s * stride..s * stride + dim];
        for i in 0..dim {
            out[i] += p * v[i];
        }
    }
}

#[inline(always)]
fn probabilities<T: Real>(q: &[T], keys: &[T], stride: usize, scores: &mut [T]) {
    let scale = T::ONE / T::of(q.len() as f64).sqrt();
    for (s, score) in scores.iter_mut().enumerate() {
        *score = simd::dot(q, &keys[s * stride..s * stride + q.len()]) * scale;
    }
    let top = simd::max(scores);
    for score in scores.iter_mut() {
        *score = (*score - top).exp();
    }
    let inverse = T::ONE / simd::sum(scores.len(), |i| scores[i]);
    for score in scores {
        *score *= inverse;
    }
}

fn forward<T: Real>(x: &[T], heads: Heads, time: usize) -> Vec<T> {
    let (width, dim) = (heads.packed(), heads.dim);
    let out_width = heads.query * dim;
    let mut out = vec![T::ZERO; x.len() / width * out_width];
    x.par_chunks_exact(time * width).zip(out.par_chunks_exact_mut(time * out_width)).for_each(|(x, out)| {
        let mut scores = vec![T::ZERO; time];
        simd::dispatch(
            #[inline(always)]
            || {
                for h in 0..heads.query {
                    let (k, v) = heads.offsets(h);
                    for t in 0..time {
                        let q = &x[t * width + h * dim..][..dim];
                        let out = &mut out[t * out_width + h * dim..][..dim];
                        attend(q, &x[k..], &x[v..], width, &mut scores[..=t], out);
                    }
                }
            },
        );
    });
    out
}

fn backward<T: Real>(x: &[T], grad: &[T], heads: Heads, time: usize) -> Vec<T> {
    let (width, dim) = (heads.packed(), heads.dim);
    let out_width = heads.query * dim;
    let mut dx = vec![T::ZERO; x.len()];
    let rows = x.par_chunks_exact(time * width).zip(grad.par_chunks_exact(time * out_width));
    rows.zip(dx.par_chunks_exact_mut(time * width)).for_each(|((x, grad), dx)| {
        let mut p = vec![T::ZERO; time];
        let mut dp = vec![T::ZERO; time];
        let mut dq = vec![T::ZERO; dim];
        simd::dispatch(
            #[inline(always)]
            || {
                let scale = T::ONE / T::of(dim as f64).sqrt();
                for h in 0..heads.query {
                    let (k, v) = heads.offsets(h);
                    for t in 0..time {
                        let q = &x[t * width + h * dim..][..dim];
                        let g = &grad[t * out_width + h * dim..][..dim];
                        let p = &mut p[..=t];
                        let dp = &mut dp[..=t];
                        probabilities(q, &x[k..], width, p);
                        for s in 0..=t {
                            dp[s] = simd::dot(g, &x[s * width + v..][..dim]);
                            let dv = &mut dx[s * width + v..][..dim];
                            for i in 0..dim {
                                dv[i] += p[s] * g[i];
                            }
                        }
                        let mean = simd::dot(p, dp);
                        dq.fill(T::ZERO);
                        for s in 0..=t {
                            let ds = p[s] * (dp[s] - mean) * scale;
                            let key = &x[s * width + k..][..dim];
                            let dk = &mut dx[s * width + k..][..dim];
                            for i in 0..dim {
                                dk[i] += ds * q[i];
                                dq[i] += ds * key[i];
                            }
                        }
                        let into = &mut dx[t * width + h * dim..][..dim];
                        for i in 0..dim {
                            into[i] += dq[i];
                        }
                    }
                }
            },
        );
    });
    dx
}

impl CustomOp1 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, time) = self.0.check(layout.shape())?;
        let shape = Shape::from((batch, time, self.0.query * self.0.dim));
        for_dtype!(x.dtype(), T => Ok(output(forward::<T>(slice(x, layout)?, self.0, time), &shape)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let time = x.dim(1)?;
        for_dtype!(x.dtype(), T => with_values::<T, _>(x, |values| {
            with_values::<T, _>(grad, |grad| {
                Ok(Some(Tensor::from_vec(backward(values, grad, self.0, time), x.shape(), x.device())?))
            })
        }))
    }
}

/// The keys and values of every layer for a batch of sequences of different lengths, in f32 on the CPU.
#[derive(Debug, Clone)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    /// Tokens held of each row.
    lengths: Vec<usize>,
    /// One (keys, values) a layer, each `[B, capacity, kv_heads · head_dim]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl KvCache {
    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn new(layers: usize, heads: Heads, batch: usize, capacity: usize) -> Self {
        let size = batch * capacity * heads.kv * heads.dim;
        let layers = (0..layers).map(|_| (vec![0.0; size], vec![0.0; size])).collect();
        Self { heads, capacity, lengths: vec![0; batch], layers }
    }

    /// The number of tokens that each row holds: the position of its next token.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Stores the keys and values of T new tokens a row behind those it holds, and attends from the
    /// new tokens to all of them. The lengths grow only by [`KvCache::advance`], after the last layer.
    pub fn attend(&mut self, layer: usize, packed: &Tensor) -> Result<Tensor> {
        let heads = self.heads;
        let (batch, time) = heads.check(packed.shape())?;
        if batch != self.lengths.len() || self.lengths.iter().any(|n| n + time > self.capacity) {
            candle_core::bail!(
                "{batch} rows of {time} new tokens do not fit a cache of {} rows with {} places, {:?} taken",
                self.lengths.len(),
                self.capacity,
                self.lengths
            )
        }
        let (width, kv_width, out_width) = (heads.packed(), heads.kv * heads.dim, heads.query * heads.dim);
        let mut out = vec![0f32; batch * time * out_width];
        let (keys, values) = &mut self.layers[layer];
        let lengths = &self.lengths;
        let room = self.capacity * kv_width;
        with_values::<f32, _>(packed, |x| {
            let rows = x.par_chunks_exact(time * width).zip(out.par_chunks_exact_mut(time * out_width));
            let rows = rows.zip(keys.par_chunks_exact_mut(room).zip(values.par_chunks_exact_mut(room)));
            rows.zip(lengths).for_each(|(((x, out), (keys, values)), &start)| {
                let mut scores = vec![0f32; start + time];
                for t in 0..time {
                    let at = (start + t) * kv_width;
                    let k = t * width + heads.query * heads.dim;
                    keys[at..at + kv_width].copy_from_slice(&x[k..k + kv_width]);
                    values[at..at + kv_width].copy_from_slice(&x[k + kv_width..k + 2 * kv_width]);
                }
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for h in 0..heads.query {
                            let offset = h / (heads.query / heads.kv) * heads.dim;
                            for t in 0..time {
                                let q = &x[t * width + h * heads.dim..][..heads.dim];
                                let out = &mut out[t * out_width + h * heads.dim..][..heads.dim];
                                let scores = &mut scores[..=start + t];
                                attend(q, &keys[offset..], &values[offset..], kv_width, scores, out);
                            }
                        }
                    },
                );
            });
            Ok(())
        })?;
        Tensor::from_vec(out, (batch, time, out_width), packed.device())
    }

    /// Counts `by[row]` of the tokens just stored as held; the rest was padding and will be overwritten.
    pub fn advance(&mut self, by: impl IntoIterator<Item = usize>) {
        for (length, by) in self.lengths.iter_mut().zip(by) {
            *length += by;
        }
    }

    /// The cache of the rows `rows`, in that order; a row may be dropped or appear more than once.
    pub fn select(&self, rows: &[usize]) -> Self {
        let width = self.heads.kv * self.heads.dim;
        let room = self.capacity * width;
        let mut selected = Self::new(self.layers.len(), self.heads, rows.len(), self.capacity);
        for (from, to) in self.layers.iter().zip(&mut selected.layers) {
            for (new, &old) in rows.iter().enumerate() {
                let held = self.lengths[old] * width;
                to.0[new * room..][..held].copy_from_slice(&from.0[old * room..][..held]);
                to.1[new * room..][..held].copy_from_slice(&from.1[old * room..][..held]);
            }
        }
        selected.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
        selected
    }
}
