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

/// Positions are worked on in blocks of so many: whole vector registers, with no loop for a remainder.
const BLOCK: usize = 16;

/// The number of positions 0 ..= t in whole blocks.
#[inline(always)]
fn blocks(t: usize) -> usize {
    (t + 1).next_multiple_of(BLOCK)
}

/// softmax(q·k / sqrt(dim)) over the first `n` positions, in whole blocks: zero behind them.
/// `keys` is transposed, `[dim, stride]`, so that the loop runs along positions and vectorises for any dim.
#[inline(always)]
fn probabilities<T: Real>(q: &[T], keys: &[T], stride: usize, n: usize, scores: &mut [T]) {
    dots(q, keys, stride, scores);
    scores[n..].fill(T::NEG_INFINITY);
    let scale = T::ONE / T::of(q.len() as f64).sqrt();
    let top = simd::max(scores);
    for score in scores.iter_mut() {
        *score = ((*score - top) * scale).exp();
    }
    let inverse = T::ONE / simd::sum(scores.len(), |i| scores[i]);
    for score in scores {
        *score *= inverse;
    }
}

/// out_s = Σ_i a_i m_is for a transposed `[dim, stride]` matrix m.
#[inline(always)]
fn dots<T: Real>(a: &[T], m: &[T], stride: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    for (i, &a) in a.iter().enumerate() {
        add_scaled(a, &m[i * stride..], out);
    }
}

/// out += a · x, as long as `out` is.
#[inline(always)]
fn add_scaled<T: Real>(a: T, x: &[T], out: &mut [T]) {
    let x = &x[..out.len()];
    for (out, &x) in out.iter_mut().zip(x) {
        *out += a * x;
    }
}

/// out = Σ_s p_s · row s; rows are `stride` apart.
#[inline(always)]
fn mix<T: Real>(p: &[T], rows: &[T], stride: usize, out: &mut [T]) {
    out.fill(T::ZERO);
    for (s, &p) in p.iter().enumerate() {
        add_scaled(p, &rows[s * stride..], out);
    }
}

/// The columns from `offset` of rows `width` wide, as `[dim, stride]`.
#[inline(always)]
fn transpose<T: Real>(x: &[T], offset: usize, width: usize, stride: usize, into: &mut [T]) {
    for (s, row) in x.chunks_exact(width).enumerate() {
        for (i, column) in into.chunks_exact_mut(stride).enumerate() {
            column[s] = row[offset + i];
        }
    }
}

fn forward<T: Real>(x: &[T], heads: Heads, time: usize) -> Vec<T> {
    let (width, dim) = (heads.packed(), heads.dim);
    let out_width = heads.query * dim;
    let mut out = vec![T::ZERO; x.len() / width * out_width];
    x.par_chunks_exact(time * width).zip(out.par_chunks_exact_mut(time * out_width)).for_each(|(x, out)| {
        let stride = time.next_multiple_of(BLOCK);
        let mut p = vec![T::ZERO; stride];
        let mut keys = vec![T::ZERO; dim * stride];
        simd::dispatch(
            #[inline(always)]
            || {
                for h in 0..heads.query {
                    let (k, v) = heads.offsets(h);
                    transpose(x, k, width, stride, &mut keys);
                    for t in 0..time {
                        let p = &mut p[..blocks(t)];
                        probabilities(&x[t * width + h * dim..][..dim], &keys, stride, t + 1, p);
                        mix(&p[..=t], &x[v..], width, &mut out[t * out_width + h * dim..][..dim]);
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
        let stride = time.next_multiple_of(BLOCK);
        let (mut p, mut ds) = (vec![T::ZERO; stride], vec![T::ZERO; stride]);
        let matrix = || vec![T::ZERO; dim * stride];
        let (mut keys, mut values, mut dkeys, mut dvalues) = (matrix(), matrix(), matrix(), matrix());
        simd::dispatch(
            #[inline(always)]
            || {
                let scale = T::ONE / T::of(dim as f64).sqrt();
                for h in 0..heads.query {
                    let (k, v) = heads.offsets(h);
                    transpose(x, k, width, stride, &mut keys);
                    transpose(x, v, width, stride, &mut values);
                    dkeys.fill(T::ZERO);
                    dvalues.fill(T::ZERO);
                    for t in 0..time {
                        let q = &x[t * width + h * dim..][..dim];
                        let g = &grad[t * out_width + h * dim..][..dim];
                        let (p, ds) = (&mut p[..blocks(t)], &mut ds[..blocks(t)]);
                        probabilities(q, &keys, stride, t + 1, p);
                        dots(g, &values, stride, ds);
                        let mean = simd::dot(p, ds);
                        for (ds, &p) in ds.iter_mut().zip(p.iter()) {
                            *ds = p * (*ds - mean) * scale;
                        }
                        for i in 0..dim {
                            add_scaled(g[i], p, &mut dvalues[i * stride..][..blocks(t)]);
                            add_scaled(q[i], ds, &mut dkeys[i * stride..][..blocks(t)]);
                        }
                        mix(&ds[..=t], &x[k..], width, &mut dx[t * width + h * dim..][..dim]);
                    }
                    // Several query heads may share these keys and values.
                    for s in 0..time {
                        let row = &mut dx[s * width..][..width];
                        for i in 0..dim {
                            row[k + i] += dkeys[i * stride + s];
                            row[v + i] += dvalues[i * stride + s];
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
    /// A layer's keys, transposed, `[B, kv_heads · head_dim, capacity]`, and its values,
    /// `[B, capacity, kv_heads · head_dim]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl KvCache {
    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn new(layers: usize, heads: Heads, batch: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK);
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
        let (heads, capacity) = (self.heads, self.capacity);
        let (batch, time) = heads.check(packed.shape())?;
        if batch != self.lengths.len() || self.lengths.iter().any(|n| n + time > capacity) {
            candle_core::bail!(
                "{batch} rows of {time} new tokens do not fit a cache of {} rows with {capacity} places, {:?} taken",
                self.lengths.len(),
                self.lengths
            )
        }
        let (width, kv_width, out_width) = (heads.packed(), heads.kv * heads.dim, heads.query * heads.dim);
        let mut out = vec![0f32; batch * time * out_width];
        let (keys, values) = &mut self.layers[layer];
        let room = capacity * kv_width;
        with_values::<f32, _>(packed, |x| {
            let rows = x.par_chunks_exact(time * width).zip(out.par_chunks_exact_mut(time * out_width));
            let rows = rows.zip(keys.par_chunks_exact_mut(room).zip(values.par_chunks_exact_mut(room)));
            rows.zip(&self.lengths).for_each(|(((x, out), (keys, values)), &start)| {
                let mut p = vec![0f32; blocks(start + time - 1)];
                for (t, row) in x.chunks_exact(width).enumerate() {
                    let (k, v) = row[heads.query * heads.dim..].split_at(kv_width);
                    for (i, &k) in k.iter().enumerate() {
                        keys[i * capacity + start + t] = k;
                    }
                    values[(start + t) * kv_width..][..kv_width].copy_from_slice(v);
                }
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for h in 0..heads.query {
                            let offset = h / (heads.query / heads.kv) * heads.dim;
                            for t in 0..time {
                                let p = &mut p[..blocks(start + t)];
                                let q = &x[t * width + h * heads.dim..][..heads.dim];
                                probabilities(q, &keys[offset * capacity..], capacity, start + t + 1, p);
                                let out = &mut out[t * out_width + h * heads.dim..][..heads.dim];
                                mix(&p[..=start + t], &values[offset..], kv_width, out);
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
        let room = self.capacity * self.heads.kv * self.heads.dim;
        let copy = |from: &[f32]| -> Vec<f32> {
            let mut to = Vec::with_capacity(rows.len() * room);
            rows.iter().for_each(|&row| to.extend_from_slice(&from[row * room..(row + 1) * room]));
            to
        };
        Self {
            heads: self.heads,
            capacity: self.capacity,
            lengths: rows.iter().map(|&row| self.lengths[row]).collect(),
            layers: self.layers.iter().map(|(keys, values)| (copy(keys), copy(values))).collect(),
        }
    }
}
