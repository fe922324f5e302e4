//! Disentangled attention: contents see contents, and they see relative positions.
//!
//! He et al. 2021, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", arXiv:2006.03654, section 3.1; with
//! the logarithmic buckets of DeBERTa-v2.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};

use super::kernel::{fill_rows, for_dtype, sum_in_order, tensor, with_values};
use super::matmul::{Matrix, product_into};
use super::{Heads, Traced};
use crate::simd::{self, Real};

/// Which row of a table of vectors stands for a relative position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativePositions {
    buckets: Option<usize>,
    max: usize,
}

/// The part of the table that sequences of one length need.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The first row, and how many there are.
    pub first: usize,
    pub count: usize,
    time: usize,
    /// The row, counted from `first`, for key − query from −(time − 1) to time − 1.
    rows: Arc<[usize]>,
}

impl RelativePositions {
    /// Relative positions of less than `max`, each with its own row; with `buckets` far ones share rows, on a
    /// logarithmic scale, so that there are that many rows for each direction.
    ///
    /// # Errors
    /// No position to distinguish, or fewer than `buckets` can distinguish.
    pub fn new(buckets: Option<usize>, max: usize) -> Result<Self> {
        if max == 0 || buckets.is_some_and(|n| n < 2 || max < n / 2 + 2) {
            bail!("relative positions up to {max} cannot be put into {buckets:?} buckets")
        }
        Ok(Self { buckets, max })
    }

    /// The number of rows of the table.
    pub fn rows(&self) -> usize {
        2 * self.buckets.unwrap_or(self.max)
    }

    /// The row for a query that stands `distance` positions after a key.
    pub fn row(&self, distance: i64) -> usize {
        let bucket = match self.buckets {
            Some(buckets) => self.bucket(distance, (buckets / 2) as i64),
            None => distance,
        };
        (bucket + (self.rows() / 2) as i64).clamp(0, self.rows() as i64 - 1) as usize
    }

    /// In f32 step by step, as the models were trained: the ceiling is sensitive.
    fn bucket(&self, distance: i64, middle: i64) -> i64 {
        let far = distance.abs();
        if far <= middle {
            return distance;
        }
        let share = (far as f32 / middle as f32).ln() / ((self.max - 1) as f32 / middle as f32).ln();
        let bucket = (share * (middle - 1) as f32).ceil() as i64 + middle;
        bucket * distance.signum()
    }

    /// What sequences of up to `time` tokens need.
    pub fn reach(&self, time: usize) -> Reach {
        let far = time.max(1) as i64 - 1;
        let first = self.row(-far);
        let rows = (-far..=far).map(|offset| self.row(-offset) - first).collect();
        Reach { first, count: self.row(far) + 1 - first, time, rows }
    }
}

impl Reach {
    /// The rows for the query at `t` and the keys from the first one on.
    #[inline(always)]
    fn of_query(&self, t: usize) -> &[usize] {
        &self.rows[self.time - 1 - t..]
    }
}

/// softmax((q·k + q·keys\[δ\] + queries\[δ\]·k) / sqrt(terms · head_dim)) · v, where δ is the relative position of query
/// and key: packed `[B, T, ..]` to `[B, T, heads · head_dim]`. `keys` and `queries`, `[reach.count, heads · head_dim]`
/// each, are what the rows of the table are as keys (content to position) and as queries (position to content); either
/// may be absent, and the number of terms counts those that are there. A query sees the first `lengths` positions of its
/// row; behind them the result is zero. The scores are computed again on the way back.
pub fn disentangled_attention(
    packed: &Traced,
    keys: Option<&Traced>,
    queries: Option<&Traced>,
    heads: Heads,
    reach: &Reach,
    lengths: &Arc<[usize]>,
) -> Result<Traced> {
    let x = packed.tensor();
    let (batch, time) = heads.check(x.shape())?;
    if lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > time) || time > reach.time {
        bail!("lengths {lengths:?} do not fit {batch} rows of {time} positions, within reach of {}", reach.time)
    }
    if heads.kv != heads.query {
        bail!("{heads:?} share keys: positions have one key for each query head")
    }
    for table in [keys, queries].into_iter().flatten() {
        if table.tensor().dims() != [reach.count, heads.width()] {
            bail!("{:?} does not hold {} relative positions of {heads:?}", table.tensor().shape(), reach.count)
        }
    }
    let [saved_keys, saved_queries] = [keys, queries].map(|table| table.map(|table| table.tensor().clone()));
    let shape = Shape::from((batch, time, heads.width()));
    let (from, to) = (time * heads.packed(), time * heads.width());
    let y = for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| {
        with_tables::<T, _>(&saved_keys, &saved_queries, |keys, queries| {
            let (y, _) = fill_rows(batch, to, |first, y: &mut [T]| {
                for (row, y) in y.chunks_exact_mut(to).enumerate() {
                    let (x, length) = (&xs[(first + row) * from..][..from], lengths[first + row]);
                    Sequence { x, length, keys, queries, heads, reach }.forward(y);
                }
            });
            tensor(y, &shape, x)
        })
    }))?;
    let inputs: Vec<&Traced> = [Some(packed), keys, queries].into_iter().flatten().collect();
    let (saved, reach, lengths) = (x.clone(), reach.clone(), lengths.clone());
    Ok(Traced::record(y, &inputs, move |grad| {
        let table = [reach.count, heads.width()];
        for_dtype!(saved.dtype(), T => with_values::<T, _>(&saved, |xs| with_values::<T, _>(grad, |grad| {
            with_tables::<T, _>(&saved_keys, &saved_queries, |keys, queries| {
                let (dx, tables) = fill_rows(batch, from, |first, dx: &mut [T]| {
                    let empty = |table: Option<&[T]>| vec![T::ZERO; table.map_or(0, <[T]>::len)];
                    let mut d = Gradients { keys: empty(keys), queries: empty(queries) };
                    for (row, dx) in dx.chunks_exact_mut(from).enumerate() {
                        let (x, length) = (&xs[(first + row) * from..][..from], lengths[first + row]);
                        let grad = &grad[(first + row) * to..][..to];
                        Sequence { x, length, keys, queries, heads, reach: &reach }.backward(grad, dx, &mut d);
                    }
                    d
                });
                let (dkeys, dqueries): (Vec<_>, Vec<_>) = tables.into_iter().map(|d| (d.keys, d.queries)).unzip();
                let mut gradients = vec![Some(tensor(dx, saved.shape(), &saved)?)];
                for (table_given, parts) in [(keys, dkeys), (queries, dqueries)] {
                    if table_given.is_some() {
                        let sum = sum_in_order(parts, table[0] * table[1]);
                        gradients.push(Some(tensor(sum, &Shape::from(&table[..]), &saved)?));
                    }
                }
                Ok(gradients)
            })
        })))
    }))
}

/// Calls `f` with the values of the tables that are there.
fn with_tables<T: Real, R>(
    keys: &Option<Tensor>,
    queries: &Option<Tensor>,
    f: impl FnOnce(Option<&[T]>, Option<&[T]>) -> Result<R>,
) -> Result<R> {
    match (keys, queries) {
        (Some(keys), Some(queries)) => {
            with_values::<T, _>(keys, |keys| with_values::<T, _>(queries, |queries| f(Some(keys), Some(queries))))
        }
        (Some(keys), None) => with_values::<T, _>(keys, |keys| f(Some(keys), None)),
        (None, Some(queries)) => with_values::<T, _>(queries, |queries| f(None, Some(queries))),
        (None, None) => f(None, None),
    }
}

/// Queries are worked on in blocks of so many, so that scores stay in the cache.
const BLOCK: usize = 64;

/// The gradients of the tables; empty for one that is absent.
struct Gradients<T> {
    keys: Vec<T>,
    queries: Vec<T>,
}

/// One sequence: packed queries, keys and values, and what the relative positions are.
struct Sequence<'a, T> {
    x: &'a [T],
    length: usize,
    keys: Option<&'a [T]>,
    queries: Option<&'a [T]>,
    heads: Heads,
    reach: &'a Reach,
}

/// Scores before they are summed, and probabilities after: room for one block of one head.
struct Scores<T> {
    /// `[BLOCK, length]`
    p: Vec<T>,
    /// Query times position, `[BLOCK, count]`.
    query_position: Vec<T>,
    /// Key times position, `[length, count]`.
    key_position: Vec<T>,
}

impl<'a, T: Real> Sequence<'a, T> {
    fn scores(&self) -> Scores<T> {
        let block = BLOCK.min(self.length);
        let room = |there: bool, rows: usize| vec![T::ZERO; if there { rows * self.reach.count } else { 0 }];
        Scores {
            p: vec![T::ZERO; block * self.length],
            query_position: room(self.keys.is_some(), block),
            key_position: room(self.queries.is_some(), self.length),
        }
    }

    fn scale(&self) -> T {
        let terms = 1 + usize::from(self.keys.is_some()) + usize::from(self.queries.is_some());
        T::ONE / T::of((terms * self.heads.dim) as f64).sqrt()
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<'a, T> {
        let length = self.length;
        (0..length).step_by(BLOCK).map(move |from| (from, BLOCK.min(length - from)))
    }

    /// Rows `from .. from + n` of the columns that begin at `column`.
    fn part(&self, column: usize, from: usize, n: usize) -> Matrix<'a, T> {
        let width = self.heads.packed();
        Matrix::strided(&self.x[from * width + column..], n, self.heads.dim, width)
    }

    /// The part of a table that belongs to head `h`.
    fn of_head(&self, table: &'a [T], h: usize) -> Matrix<'a, T> {
        Matrix::strided(&table[h * self.heads.dim..], self.reach.count, self.heads.dim, self.heads.width())
    }

    fn all_keys(&self, h: usize) -> Matrix<'a, T> {
        self.part(self.heads.key_at(h), 0, self.length)
    }

    fn all_values(&self, h: usize) -> Matrix<'a, T> {
        self.part(self.heads.value_at(h), 0, self.length)
    }

    /// Keys times positions: the same for all blocks of one head.
    fn prepare(&self, h: usize, scores: &mut Scores<T>) {
        if let Some(queries) = self.queries {
            let count = self.reach.count;
            product_into(&mut scores.key_position, count, false, self.all_keys(h), self.of_head(queries, h).t());
        }
    }

    /// Attention of the queries `from .. from + n`: `[n, length]`.
    fn probabilities(&self, h: usize, from: usize, n: usize, scores: &mut Scores<T>) {
        let (length, count) = (self.length, self.reach.count);
        let q = self.part(self.heads.query_at(h), from, n);
        product_into(&mut scores.p, length, false, q, self.all_keys(h).t());
        if let Some(keys) = self.keys {
            product_into(&mut scores.query_position, count, false, q, self.of_head(keys, h).t());
        }
        let (has_keys, has_queries, scale) = (self.keys.is_some(), self.queries.is_some(), self.scale());
        let Scores { p, query_position, key_position } = scores;
        simd::dispatch(
            #[inline(always)]
            || {
                for (i, p) in p[..n * length].chunks_exact_mut(length).enumerate() {
                    let rows = &self.reach.of_query(from + i)[..length];
                    if has_keys {
                        let of_query = &query_position[i * count..][..count];
                        for (p, &row) in p.iter_mut().zip(rows) {
                            *p += of_query[row];
                        }
                    }
                    if has_queries {
                        for ((p, &row), of_key) in p.iter_mut().zip(rows).zip(key_position.chunks_exact(count)) {
                            *p += of_key[row];
                        }
                    }
                    super::attention::softmax(p, scale);
                }
            },
        );
    }

    fn forward(&self, y: &mut [T]) {
        let heads = self.heads;
        let mut scores = self.scores();
        for h in 0..heads.query {
            self.prepare(h, &mut scores);
            for (from, n) in self.blocks() {
                self.probabilities(h, from, n, &mut scores);
                let out = &mut y[from * heads.width() + h * heads.dim..];
                let p = Matrix::new(&scores.p[..n * self.length], n, self.length);
                product_into(out, heads.width(), false, p, self.all_values(h));
            }
        }
    }

    /// `dx` is zero.
    fn backward(&self, grad: &[T], dx: &mut [T], d: &mut Gradients<T>) {
        let (heads, length, count, width) = (self.heads, self.length, self.reach.count, self.heads.packed());
        let (mut scores, mut back) = (self.scores(), self.scores());
        let scale = self.scale();
        for h in 0..heads.query {
            self.prepare(h, &mut scores);
            back.key_position.fill(T::ZERO);
            for (from, n) in self.blocks() {
                self.probabilities(h, from, n, &mut scores);
                let g = Matrix::strided(&grad[from * heads.width() + h * heads.dim..], n, heads.dim, heads.width());
                product_into(&mut back.p, length, false, g, self.all_values(h).t());
                self.back_to_scores(from, n, scale, &scores, &mut back);
                let q = self.part(heads.query_at(h), from, n);
                let p = Matrix::new(&scores.p[..n * length], n, length);
                let ds = Matrix::new(&back.p[..n * length], n, length);
                let dq = &mut dx[from * width + heads.query_at(h)..];
                product_into(dq, width, false, ds, self.all_keys(h));
                if let Some(keys) = self.keys {
                    let of_position = Matrix::new(&back.query_position[..n * count], n, count);
                    product_into(dq, width, true, of_position, self.of_head(keys, h));
                    product_into(&mut d.keys[h * heads.dim..], heads.width(), true, of_position.t(), q);
                }
                product_into(&mut dx[heads.key_at(h)..], width, true, ds.t(), q);
                product_into(&mut dx[heads.value_at(h)..], width, true, p.t(), g);
            }
            if let Some(queries) = self.queries {
                let of_position = Matrix::new(&back.key_position, length, count);
                product_into(&mut dx[heads.key_at(h)..], width, true, of_position, self.of_head(queries, h));
                let dqueries = &mut d.queries[h * heads.dim..];
                product_into(dqueries, heads.width(), true, of_position.t(), self.all_keys(h));
            }
        }
    }

    /// From the gradient of the probabilities, in `back.p`, to that of the three terms of the scores.
    fn back_to_scores(&self, from: usize, n: usize, scale: T, scores: &Scores<T>, back: &mut Scores<T>) {
        let (length, count) = (self.length, self.reach.count);
        let (has_keys, has_queries) = (self.keys.is_some(), self.queries.is_some());
        back.query_position.fill(T::ZERO);
        let Scores { p: ds, query_position, key_position } = back;
        simd::dispatch(
            #[inline(always)]
            || {
                let pairs = scores.p[..n * length].chunks_exact(length).zip(ds.chunks_exact_mut(length));
                for (i, (p, ds)) in pairs.enumerate() {
                    let mean = simd::dot(p, ds);
                    for (ds, &p) in ds.iter_mut().zip(p) {
                        *ds = p * (*ds - mean) * scale;
                    }
                    let rows = &self.reach.of_query(from + i)[..length];
                    if has_keys {
                        let of_query = &mut query_position[i * count..][..count];
                        for (&ds, &row) in ds.iter().zip(rows) {
                            of_query[row] += ds;
                        }
                    }
                    if has_queries {
                        for ((&ds, &row), of_key) in ds.iter().zip(rows).zip(key_position.chunks_exact_mut(count)) {
                            of_key[row] += ds;
                        }
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The literals are those of transformers 5.23 (`make_log_bucket_position`, shifted and clamped as its attention
    /// does), for distances beyond `max` as well; the sums are over the distances from −(max + 200) to −1 and from 0 to
    /// max + 200.
    #[test]
    fn buckets_are_those_of_transformers() {
        let small = RelativePositions::new(Some(8), 24).unwrap();
        let rows: Vec<usize> = (-20..=20).map(|distance| small.row(distance)).collect();
        let before = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7];
        let after = [9, 10, 11, 12, 13, 13, 13, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15, 15, 15, 15];
        assert_eq!(rows, [&before[..], &[8], &after].concat());
        for (buckets, max, negative, positive) in
            [(8, 24, 52, 3339), (32, 128, 990, 19_833), (64, 512, 6_114, 84_885), (256, 512, 43_519, 321_080)]
        {
            let positions = RelativePositions::new(Some(buckets), max as usize).unwrap();
            let sum = |from, to| (from..=to).map(|distance| positions.row(distance)).sum::<usize>();
            assert_eq!((sum(-max - 200, -1), sum(0, max + 200)), (negative, positive), "{buckets} buckets");
        }
    }

    #[test]
    fn a_reach_holds_the_rows_of_all_distances() {
        for positions in [RelativePositions::new(Some(8), 24).unwrap(), RelativePositions::new(None, 5).unwrap()] {
            let reach = positions.reach(9);
            for query in 0..9i64 {
                for (key, &row) in reach.of_query(query as usize)[..9].iter().enumerate() {
                    assert_eq!(reach.first + row, positions.row(query - key as i64));
                    assert!(row < reach.count);
                }
            }
            assert_eq!(reach.first, positions.row(-8));
            assert_eq!(reach.first + reach.count - 1, positions.row(8));
        }
        assert!(RelativePositions::new(Some(8), 5).is_err() && RelativePositions::new(None, 0).is_err());
    }
}
