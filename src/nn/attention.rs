//! Attention over whole sequences.
//!
//! Queries, keys and values come packed in one tensor `[B, T, (heads + 2·kv_heads) · head_dim]`, as one product
//! gives them. Sequences are padded on the right: causality alone keeps padding out of every real token's sight, and
//! where every token sees every other, lengths do. A row never sees its neighbours.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};

use super::Traced;
use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, tensor, with_values};
use crate::simd::{self, LANES, Real, SmallProduct};

/// The heads of one attention layer; query head h reads key head h / (query / kv).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub query: usize,
    pub kv: usize,
    pub dim: usize,
    /// Whether every head's query, key and value lie beside each other, as GPT-NeoX has them, and not all queries
    /// before all keys before all values.
    pub interleaved: bool,
}

/// Which positions a query sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Its own and those before it.
    Causal,
    /// The first so many of its row.
    Lengths(Arc<[usize]>),
}

impl Heads {
    /// The width of the packed tensor.
    pub fn packed(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// The width of what attention gives.
    pub fn width(&self) -> usize {
        self.query * self.dim
    }

    /// Where the query of head `h` begins in a packed row.
    #[inline(always)]
    pub(super) fn query_at(&self, h: usize) -> usize {
        if self.interleaved { 3 * h * self.dim } else { h * self.dim }
    }

    /// Where key head `kv` begins.
    #[inline(always)]
    pub(super) fn key_at(&self, kv: usize) -> usize {
        if self.interleaved { (3 * kv + 1) * self.dim } else { (self.query + kv) * self.dim }
    }

    /// Where value head `kv` begins.
    #[inline(always)]
    pub(super) fn value_at(&self, kv: usize) -> usize {
        if self.interleaved { (3 * kv + 2) * self.dim } else { (self.query + self.kv + kv) * self.dim }
    }

    /// Batch and time of a packed tensor.
    pub(super) fn check(&self, shape: &Shape) -> Result<(usize, usize)> {
        let (batch, time, width) = shape.dims3()?;
        let whole = self.query.is_multiple_of(self.kv) && (!self.interleaved || self.query == self.kv);
        if width != self.packed() || !whole {
            bail!("{shape:?} does not hold packed queries, keys and values of {self:?}")
        }
        Ok((batch, time))
    }
}

/// Queries, keys and values, `[B, T, ..]` each, in one tensor.
pub fn pack(q: &Traced, k: &Traced, v: &Traced) -> Result<Traced> {
    let packed = Tensor::cat(&[q.tensor(), k.tensor(), v.tensor()], 2)?;
    let widths = [q.tensor().dim(2)?, k.tensor().dim(2)?, v.tensor().dim(2)?];
    Ok(Traced::record(packed, &[q, k, v], move |grad| {
        let part = |from: usize, width: usize| grad.narrow(2, from, width)?.contiguous();
        Ok(vec![
            Some(part(0, widths[0])?),
            Some(part(widths[0], widths[1])?),
            Some(part(widths[0] + widths[1], widths[2])?),
        ])
    }))
}

/// softmax(q·k / sqrt(head_dim)) · v: packed `[B, T, ..]` to `[B, T, heads · head_dim]`. The scores are computed again on
/// the way back.
pub fn attention(packed: &Traced, heads: Heads, mask: &Mask) -> Result<Traced> {
    let x = packed.tensor();
    let (batch, time) = heads.check(x.shape())?;
    if let Mask::Lengths(lengths) = mask
        && (lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > time))
    {
        bail!("lengths {lengths:?} do not fit {batch} rows of {time} positions")
    }
    on_gpu!(x, cuda::attention(packed, heads, mask));
    let shape = Shape::from((batch, time, heads.width()));
    let y = for_dtype!(x.dtype(), T => with_values::<T, _>(x, |x_values| {
        let (y, _) = fill_rows(batch, time * heads.width(), |first, y: &mut [T]| {
            let rows = x_values[first * time * heads.packed()..].chunks_exact(time * heads.packed());
            for (row, (x, y)) in rows.zip(y.chunks_exact_mut(time * heads.width())).enumerate() {
                forward(x, y, heads, time, &mask.of_row(first + row));
            }
        });
        tensor(y, &shape, x)
    }))?;
    let (saved, mask) = (x.clone(), mask.clone());
    Ok(Traced::record(y, &[packed], move |grad| {
        for_dtype!(saved.dtype(), T => with_values::<T, _>(&saved, |x| with_values::<T, _>(grad, |grad| {
            let (dx, _) = fill_rows(batch, time * heads.packed(), |first, dx: &mut [T]| {
                let (from, to) = (time * heads.packed(), time * heads.width());
                let rows = x[first * from..].chunks_exact(from).zip(grad[first * to..].chunks_exact(to));
                for (row, ((x, grad), dx)) in rows.zip(dx.chunks_exact_mut(from)).enumerate() {
                    backward(x, grad, dx, heads, time, &mask.of_row(first + row));
                }
            });
            Ok(vec![Some(tensor(dx, saved.shape(), &saved)?)])
        })))
    }))
}

/// The mask of one row.
#[derive(Clone, Copy)]
enum Sight {
    Causal,
    First(usize),
}

impl Mask {
    fn of_row(&self, row: usize) -> Sight {
        match self {
            Mask::Causal => Sight::Causal,
            Mask::Lengths(lengths) => Sight::First(lengths[row]),
        }
    }
}

impl Sight {
    /// How many positions the query at `t` sees; never fewer than those before it.
    fn of(self, t: usize) -> usize {
        match self {
            Sight::Causal => t + 1,
            Sight::First(n) => n,
        }
    }
}

/// Queries are worked on in blocks of so many, so that causality saves half the work and scores stay in the cache.
const BLOCK: usize = 16;

/// softmax(scale · row), in place.
#[inline(always)]
pub(super) fn softmax<T: Real>(row: &mut [T], scale: T) {
    let top = simd::max(row);
    for x in row.iter_mut() {
        *x = ((*x - top) * scale).exp();
    }
    let inverse = T::ONE / simd::sum([row], |[x]| x);
    for x in row {
        *x *= inverse;
    }
}

/// A block of queries of one head: the first, how many, how many positions any of them sees, and the same in whole vectors.
#[derive(Clone, Copy)]
struct Queries {
    from: usize,
    count: usize,
    seen: usize,
    stride: usize,
}

fn blocks(time: usize, sight: Sight) -> impl Iterator<Item = Queries> {
    (0..time).step_by(BLOCK).map(move |from| {
        let count = BLOCK.min(time - from);
        let seen = sight.of(from + count - 1);
        Queries { from, count, seen, stride: seen.next_multiple_of(LANES) }
    })
}

/// One sequence, and what the work on it has in memory.
struct Sequence<'a, T> {
    x: &'a [T],
    heads: Heads,
    sight: Sight,
    /// Positions in whole vectors.
    stride: usize,
}

impl<'a, T: Real> Sequence<'a, T> {
    fn new(x: &'a [T], heads: Heads, time: usize, sight: Sight) -> Self {
        Self { x, heads, sight, stride: time.next_multiple_of(LANES) }
    }

    fn scale(&self) -> T {
        T::ONE / T::of(self.heads.dim as f64).sqrt()
    }

    /// The query heads that read a key head.
    fn group(&self, kv: usize) -> std::ops::Range<usize> {
        let size = self.heads.query / self.heads.kv;
        kv * size..(kv + 1) * size
    }

    /// The columns of a head that begin at `column`, as rows: `[dim, stride]`, zero behind the last position.
    fn transpose(&self, column: usize, to: &mut [T]) {
        let rows = self.x.chunks_exact(self.heads.packed()).map(|row| &row[column..][..self.heads.dim]);
        for (t, row) in rows.enumerate() {
            for (i, &x) in row.iter().enumerate() {
                to[i * self.stride + t] = x;
            }
        }
    }

    /// For rows of queries that are `step` apart the products with all keys that any sees: `[count, stride]`.
    fn scores(&self, queries: Queries, rows: &[T], step: usize, transposed: &[T], out: &mut [T]) {
        T::small_product(SmallProduct {
            a: rows,
            a_row: step,
            a_step: 1,
            b: transposed,
            b_step: self.stride,
            rows: queries.count,
            inner: self.heads.dim,
            cols: queries.stride,
            out,
            out_step: queries.stride,
            add: false,
        });
    }

    /// Attention of query head `h`: `[count, stride]`.
    fn probabilities(&self, queries: Queries, h: usize, keys: &[T], p: &mut [T]) {
        let width = self.heads.packed();
        self.scores(queries, &self.x[queries.from * width + self.heads.query_at(h)..], width, keys, p);
        let rows = &mut p[..queries.count * queries.stride];
        T::softmax_rows(rows, queries.stride, self.scale(), |i| self.sight.of(queries.from + i));
    }

    /// The mean of what stands in the columns from `column` on, weighed by each row of p, into rows that are `step` apart.
    fn mix(&self, queries: Queries, p: &[T], column: usize, out: &mut [T], step: usize) {
        T::small_product(SmallProduct {
            a: p,
            a_row: queries.stride,
            a_step: 1,
            b: &self.x[column..],
            b_step: self.heads.packed(),
            rows: queries.count,
            inner: queries.seen,
            cols: self.heads.dim,
            out,
            out_step: step,
            add: false,
        });
    }

    /// Adds to the transposed gradient of keys or values, `[dim, stride]`, what the queries' rows, `step` apart, give it.
    fn add_outer(&self, queries: Queries, rows: &[T], step: usize, p: &[T], to: &mut [T]) {
        T::small_product(SmallProduct {
            a: rows,
            a_row: 1,
            a_step: step,
            b: p,
            b_step: queries.stride,
            rows: self.heads.dim,
            inner: queries.count,
            cols: queries.stride,
            out: to,
            out_step: self.stride,
            add: true,
        });
    }
}

fn forward<T: Real>(x: &[T], y: &mut [T], heads: Heads, time: usize, sight: &Sight) {
    let sequence = Sequence::new(x, heads, time, *sight);
    let mut keys = vec![T::ZERO; heads.dim * sequence.stride];
    let mut p = vec![T::ZERO; BLOCK * sequence.stride];
    for kv in 0..heads.kv {
        sequence.transpose(heads.key_at(kv), &mut keys);
        for h in sequence.group(kv) {
            for queries in blocks(time, *sight) {
                sequence.probabilities(queries, h, &keys, &mut p);
                let out = &mut y[queries.from * heads.width() + h * heads.dim..];
                sequence.mix(queries, &p, heads.value_at(kv), out, heads.width());
            }
        }
    }
}

/// Writes all of `dx`.
fn backward<T: Real>(x: &[T], grad: &[T], dx: &mut [T], heads: Heads, time: usize, sight: &Sight) {
    let sequence = Sequence::new(x, heads, time, *sight);
    let (width, stride) = (heads.packed(), sequence.stride);
    let [mut keys, mut values, mut dkeys, mut dvalues] = std::array::from_fn(|_| vec![T::ZERO; heads.dim * stride]);
    let (mut p, mut ds) = (vec![T::ZERO; BLOCK * stride], vec![T::ZERO; BLOCK * stride]);
    for kv in 0..heads.kv {
        sequence.transpose(heads.key_at(kv), &mut keys);
        sequence.transpose(heads.value_at(kv), &mut values);
        // Several query heads may share these keys and values.
        dkeys.fill(T::ZERO);
        dvalues.fill(T::ZERO);
        for h in sequence.group(kv) {
            for queries in blocks(time, *sight) {
                let q = queries.from * width + heads.query_at(h);
                let g = &grad[queries.from * heads.width() + h * heads.dim..];
                sequence.probabilities(queries, h, &keys, &mut p);
                sequence.scores(queries, g, heads.width(), &values, &mut ds);
                let size = queries.count * queries.stride;
                T::softmax_slopes(&p[..size], &mut ds[..size], queries.stride, sequence.scale());
                sequence.mix(queries, &ds, heads.key_at(kv), &mut dx[q..], width);
                sequence.add_outer(queries, &x[q..], width, &ds, &mut dkeys);
                sequence.add_outer(queries, g, heads.width(), &p, &mut dvalues);
            }
        }
        for (t, dx) in dx.chunks_exact_mut(width).enumerate() {
            for i in 0..heads.dim {
                dx[heads.key_at(kv) + i] = dkeys[i * stride + t];
                dx[heads.value_at(kv) + i] = dvalues[i * stride + t];
            }
        }
    }
}
