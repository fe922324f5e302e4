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
use super::matmul::{Matrix, product_into};
use crate::simd::{self, LANES, Real};

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

    /// The key head that query head `h` reads.
    #[inline(always)]
    pub(super) fn kv_of(&self, h: usize) -> usize {
        h / (self.query / self.kv)
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
const BLOCK: usize = 64;

/// One head of one sequence: its queries, keys and values.
struct Head<'a, T> {
    x: &'a [T],
    heads: Heads,
    q: usize,
    k: usize,
    v: usize,
}

impl<'a, T: Real> Head<'a, T> {
    fn new(x: &'a [T], heads: Heads, h: usize) -> Self {
        let kv = heads.kv_of(h);
        Self { x, heads, q: heads.query_at(h), k: heads.key_at(kv), v: heads.value_at(kv) }
    }

    /// Rows `from .. from + n` of the columns that begin at `column`.
    fn part(&self, column: usize, from: usize, n: usize) -> Matrix<'a, T> {
        let width = self.heads.packed();
        Matrix::strided(&self.x[from * width + column..], n, self.heads.dim, width)
    }

    /// Attention of the queries `from .. from + n` to the first `seen` positions: `[n, seen]`.
    fn probabilities(&self, from: usize, n: usize, seen: usize, sight: Sight, p: &mut [T]) {
        product_into(p, seen, false, self.part(self.q, from, n), self.part(self.k, 0, seen).t());
        let scale = T::ONE / T::of(self.heads.dim as f64).sqrt();
        simd::dispatch(
            #[inline(always)]
            || {
                for (i, row) in p[..n * seen].chunks_exact_mut(seen).enumerate() {
                    let n = sight.of(from + i).min(seen);
                    // Whole vectors: a loop over what is left of one costs more than a few exponentials of −∞.
                    let (row, rest) = row.split_at_mut(n.next_multiple_of(LANES).min(seen));
                    row[n..].fill(T::NEG_INFINITY);
                    softmax(row, scale);
                    rest.fill(T::ZERO);
                }
            },
        );
    }
}

/// softmax(scale · row), in place.
#[inline(always)]
fn softmax<T: Real>(row: &mut [T], scale: T) {
    let top = simd::max(row);
    for x in row.iter_mut() {
        *x = ((*x - top) * scale).exp();
    }
    let inverse = T::ONE / simd::sum([row], |[x]| x);
    for x in row {
        *x *= inverse;
    }
}

/// The blocks of queries: first, number, and how many positions any of them sees.
fn blocks(time: usize, sight: Sight) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..time).step_by(BLOCK).map(move |from| {
        let n = BLOCK.min(time - from);
        (from, n, sight.of(from + n - 1))
    })
}

fn forward<T: Real>(x: &[T], y: &mut [T], heads: Heads, time: usize, sight: &Sight) {
    let mut p = vec![T::ZERO; BLOCK.min(time) * time];
    for h in 0..heads.query {
        let head = Head::new(x, heads, h);
        for (from, n, seen) in blocks(time, *sight) {
            head.probabilities(from, n, seen, *sight, &mut p);
            let out = &mut y[from * heads.width() + h * heads.dim..];
            product_into(out, heads.width(), false, Matrix::new(&p[..n * seen], n, seen), head.part(head.v, 0, seen));
        }
    }
}

/// `dx` is zero.
fn backward<T: Real>(x: &[T], grad: &[T], dx: &mut [T], heads: Heads, time: usize, sight: &Sight) {
    let width = heads.packed();
    let size = BLOCK.min(time) * time;
    let (mut p, mut ds) = (vec![T::ZERO; size], vec![T::ZERO; size]);
    let scale = T::ONE / T::of(heads.dim as f64).sqrt();
    for h in 0..heads.query {
        let head = Head::new(x, heads, h);
        for (from, n, seen) in blocks(time, *sight) {
            head.probabilities(from, n, seen, *sight, &mut p);
            let g = Matrix::strided(&grad[from * heads.width() + h * heads.dim..], n, heads.dim, heads.width());
            product_into(&mut ds, seen, false, g, head.part(head.v, 0, seen).t());
            simd::dispatch(
                #[inline(always)]
                || {
                    for (p, ds) in p[..n * seen].chunks_exact(seen).zip(ds.chunks_exact_mut(seen)) {
                        let mean = simd::dot(p, ds);
                        for (ds, &p) in ds.iter_mut().zip(p) {
                            *ds = p * (*ds - mean) * scale;
                        }
                    }
                },
            );
            let (p, ds) = (Matrix::new(&p[..n * seen], n, seen), Matrix::new(&ds[..n * seen], n, seen));
            product_into(&mut dx[from * width + head.q..], width, false, ds, head.part(head.k, 0, seen));
            // Several query heads may share these keys and values.
            product_into(&mut dx[head.k..], width, true, ds.t(), head.part(head.q, from, n));
            product_into(&mut dx[head.v..], width, true, p.t(), g);
        }
    }
}
