//! Attention over whole sequences.
//!
//! Queries, keys and values come packed in one tensor `[B, T, (heads + 2·kv_heads) · head_dim]`, as one product
//! gives them. Sequences are padded on the right: causality alone keeps padding out of every real token's sight, and
//! where every token sees every other, lengths do. A row never sees its neighbours. Or sequences are packed, without
//! padding: then a [`Packing`] says who sees whom.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::cuda::on_gpu;
use super::embedding::rows_at;
use super::kernel::{for_dtype, tensor, with_values};
use super::packing::Segment;
use super::{Packing, Traced};
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
    /// Its own and those before it in its sequence, in a packed batch of rows of one position.
    Packed(Packing),
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
    let sequences = mask.sequences(batch, time)?;
    if let Mask::Packed(packing) = mask
        && !x.device().is_cpu()
    {
        return attention_of_padded(packed, heads, packing);
    }
    on_gpu!(x, cuda::attention(packed, heads, mask));
    let shape = Shape::from((batch, time, heads.width()));
    let y = for_dtype!(x.dtype(), T => with_values::<T, _>(x, |x_values| {
        let mut y = vec![T::ZERO; shape.elem_count()];
        over_sequences(&sequences, &mut y, heads.width(), |sequence, y| forward(&sequence.whole(x_values, heads), y, heads, sequence));
        tensor(y, &shape, x)
    }))?;
    let saved = x.clone();
    Ok(Traced::record(y, &[packed], move |grad| {
        for_dtype!(saved.dtype(), T => with_values::<T, _>(&saved, |x| with_values::<T, _>(grad, |grad| {
            let mut dx = vec![T::ZERO; x.len()];
            // Several sequences may continue one: what they give it is added in their order.
            let shared = over_sequences(&sequences, &mut dx, heads.packed(), |sequence, dx| {
                let whole = sequence.whole(x, heads);
                let grad = &grad[sequence.segment.tokens.start * heads.width()..];
                if sequence.segment.behind.is_empty() {
                    backward(&whole, grad, dx, heads, sequence);
                    return Vec::new();
                }
                let mut all = vec![T::ZERO; whole.len()];
                backward(&whole, grad, &mut all, heads, sequence);
                dx.copy_from_slice(&all.split_off(all.len() - dx.len()));
                all
            });
            for (sequence, shared) in sequences.iter().zip(shared) {
                let to = &mut dx[sequence.segment.behind.start * heads.packed()..];
                to.iter_mut().zip(shared).for_each(|(sum, x)| *sum += x);
            }
            Ok(vec![Some(tensor(dx, saved.shape(), &saved)?)])
        })))
    }))
}

/// Attention in a packed batch where the kernels know padded ones alone.
fn attention_of_padded(packed: &Traced, heads: Heads, packing: &Packing) -> Result<Traced> {
    let (tokens, places) = packing.padded();
    let device = packed.tensor().device();
    let (rows, time) = (packing.segments.len(), packing.longest());
    let padded = rows_at(&packed.reshape(&[packing.token_count(), heads.packed()])?, &Tensor::new(tokens, device)?)?;
    let seen = attention(&padded.reshape(&[rows, time, heads.packed()])?, heads, &Mask::Causal)?;
    let own = rows_at(&seen.reshape(&[rows * time, heads.width()])?, &Tensor::new(places, device)?)?;
    own.reshape(&[packing.token_count(), 1, heads.width()])
}

/// A sequence of a batch, and which of its positions a query sees.
#[derive(Debug, Clone)]
struct Seen {
    segment: Segment,
    sight: Sight,
}

#[derive(Debug, Clone, Copy)]
enum Sight {
    Causal,
    First(usize),
}

impl Mask {
    /// The sequences of a batch; their tokens follow one another.
    fn sequences(&self, batch: usize, time: usize) -> Result<Vec<Seen>> {
        let row = |row: usize| Segment { tokens: row * time..(row + 1) * time, behind: 0..0 };
        Ok(match self {
            Mask::Causal => (0..batch).map(|b| Seen { segment: row(b), sight: Sight::Causal }).collect(),
            Mask::Lengths(lengths) => {
                if lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > time) {
                    bail!("lengths {lengths:?} do not fit {batch} rows of {time} positions")
                }
                let seen = |(b, &n): (usize, &usize)| Seen { segment: row(b), sight: Sight::First(n) };
                lengths.iter().enumerate().map(seen).collect()
            }
            Mask::Packed(packing) => {
                if (batch, time) != (packing.token_count(), 1) {
                    bail!("a packing of {} tokens does not fit {batch} rows of {time} positions", packing.token_count())
                }
                let seen = |segment: &Segment| Seen { segment: segment.clone(), sight: Sight::Causal };
                packing.segments.iter().map(seen).collect()
            }
        })
    }
}

impl Seen {
    /// The packed rows of all its positions.
    fn whole<'a, T: Real>(&self, x: &'a [T], heads: Heads) -> Cow<'a, [T]> {
        let rows = |range: &std::ops::Range<usize>| &x[range.start * heads.packed()..range.end * heads.packed()];
        match self.segment.behind.is_empty() {
            true => Cow::Borrowed(rows(&self.segment.tokens)),
            false => Cow::Owned([rows(&self.segment.behind), rows(&self.segment.tokens)].concat()),
        }
    }
}

/// Calls `f` with every sequence and its own tokens' values, `width` each, over all threads, and returns the results in
/// order.
fn over_sequences<T: Real, R: Send>(
    sequences: &[Seen],
    values: &mut [T],
    width: usize,
    f: impl Fn(&Seen, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let mut rest = values;
    let mut own = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let (head, tail) = rest.split_at_mut(sequence.segment.tokens.len() * width);
        own.push((sequence, head));
        rest = tail;
    }
    own.into_par_iter().map(|(sequence, values)| f(sequence, values)).collect()
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

/// The queries at the positions `first .. time`.
fn blocks(first: usize, time: usize, sight: Sight) -> impl Iterator<Item = Queries> {
    (first..time).step_by(BLOCK).map(move |from| {
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

/// What the queries of a sequence's own tokens give; `x` has all its positions.
fn forward<T: Real>(x: &[T], y: &mut [T], heads: Heads, seen: &Seen) {
    let (first, time) = (seen.segment.behind.len(), seen.segment.length());
    let sequence = Sequence::new(x, heads, time, seen.sight);
    let mut keys = vec![T::ZERO; heads.dim * sequence.stride];
    let mut p = vec![T::ZERO; BLOCK * sequence.stride];
    for kv in 0..heads.kv {
        sequence.transpose(heads.key_at(kv), &mut keys);
        for h in sequence.group(kv) {
            for queries in blocks(first, time, seen.sight) {
                sequence.probabilities(queries, h, &keys, &mut p);
                let out = &mut y[(queries.from - first) * heads.width() + h * heads.dim..];
                sequence.mix(queries, &p, heads.value_at(kv), out, heads.width());
            }
        }
    }
}

/// Writes all of `dx`, which is zero and has all positions, as `x` has; `grad` has those of the sequence's own tokens.
fn backward<T: Real>(x: &[T], grad: &[T], dx: &mut [T], heads: Heads, seen: &Seen) {
    let (first, time) = (seen.segment.behind.len(), seen.segment.length());
    let sequence = Sequence::new(x, heads, time, seen.sight);
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
            for queries in blocks(first, time, seen.sight) {
                let q = queries.from * width + heads.query_at(h);
                let g = &grad[(queries.from - first) * heads.width() + h * heads.dim..];
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::{Part, block};

    /// Output and gradient of attention, in f64, of pseudo-random values under a loss that weighs each output differently.
    fn both_ways(
        rows: usize,
        heads: Heads,
        f: impl Fn(&Traced) -> Result<Traced> + Send + Sync + 'static,
    ) -> [Vec<f64>; 2] {
        let x: Vec<f64> = (0..rows * heads.packed()).map(|i| (0.7 + 1.3 * i as f64).sin()).collect();
        let x = Tensor::from_vec(x, (rows, 1, heads.packed()), &Device::Cpu).unwrap();
        let x = candle_core::Var::from_tensor(&x).unwrap();
        let y = block(&x, false, f).unwrap().flatten_all().unwrap();
        let weights: Vec<f64> = (0..y.elem_count()).map(|i| (0.4 + 1.1 * i as f64).cos()).collect();
        let loss = (&y * Tensor::new(weights, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap();
        [y, gradient].map(|x| x.to_vec1().unwrap())
    }

    /// What GPUs do with a packed batch, on the CPU.
    #[test]
    fn packed_is_padded_without_the_padding() {
        let parts = [Part::alone(19), Part::alone(4), Part::behind(1, 33), Part::behind(1, 2), Part::alone(1)];
        let packing = Packing::new(&parts).unwrap();
        for heads in [
            Heads { query: 4, kv: 2, dim: 3, interleaved: false },
            Heads { query: 2, kv: 2, dim: 5, interleaved: true },
        ] {
            let mask = Mask::Packed(packing.clone());
            let packed = both_ways(59, heads, move |x| attention(x, heads, &mask));
            let copy = packing.clone();
            let padded = both_ways(59, heads, move |x| attention_of_padded(x, heads, &copy));
            for (a, b) in packed.iter().flatten().zip(padded.iter().flatten()) {
                assert!((a - b).abs() < 1e-13, "{a} {b}");
            }
        }
    }
}
