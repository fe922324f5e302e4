//! The cache with which a model continues where it stopped.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::Heads;
use super::cuda::on_gpu;
use super::kernel::with_values;
use crate::simd::{LANES, Real, SmallProduct};

/// The keys and values of every layer for a batch of sequences of different lengths, in f32 on the CPU, or in the
/// model's type on its GPU.
#[derive(Debug, Clone)]
pub struct KvCache {
    heads: Heads,
    capacity: usize,
    /// Tokens held of each row.
    lengths: Vec<usize>,
    /// A layer's keys, transposed, `[B, kv_heads · head_dim, capacity]`, and its values,
    /// `[B, capacity, kv_heads · head_dim]`; empty until the first tokens come.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    #[cfg(feature = "cuda")]
    on_gpu: Vec<super::cuda::Held>,
}

impl KvCache {
    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn new(layers: usize, heads: Heads, batch: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK);
        Self {
            heads,
            capacity,
            lengths: vec![0; batch],
            layers: vec![Default::default(); layers],
            #[cfg(feature = "cuda")]
            on_gpu: vec![Default::default(); layers],
        }
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
        on_gpu!(packed, self.on_gpu[layer].attend(&self.lengths, capacity, heads, packed));
        let (width, kv_width, out_width) = (heads.packed(), heads.kv * heads.dim, heads.width());
        // The query heads that read a key head; they stand together.
        let group = heads.query / heads.kv;
        let mut out = vec![0f32; batch * time * out_width];
        let (keys, values) = &mut self.layers[layer];
        let room = capacity * kv_width;
        keys.resize(batch * room, 0.0);
        values.resize(batch * room, 0.0);
        with_values::<f32, _>(packed, |x| {
            let rows = x.par_chunks_exact(time * width).zip(out.par_chunks_exact_mut(time * out_width));
            let rows = rows.zip(keys.par_chunks_exact_mut(room).zip(values.par_chunks_exact_mut(room)));
            rows.zip(&self.lengths).for_each(|(((x, out), (keys, values)), &start)| {
                let mut p = vec![0f32; group * blocks(start + time - 1)];
                for (t, row) in x.chunks_exact(width).enumerate() {
                    for kv in 0..heads.kv {
                        for (i, &k) in row[heads.key_at(kv)..][..heads.dim].iter().enumerate() {
                            keys[(kv * heads.dim + i) * capacity + start + t] = k;
                        }
                        let v = &row[heads.value_at(kv)..][..heads.dim];
                        values[(start + t) * kv_width + kv * heads.dim..][..heads.dim].copy_from_slice(v);
                    }
                }
                for t in 0..time {
                    let seen = start + t + 1;
                    let cols = blocks(start + t);
                    let p = &mut p[..group * cols];
                    for kv in 0..heads.kv {
                        f32::small_product(SmallProduct {
                            a: &x[t * width + heads.query_at(kv * group)..],
                            a_row: heads.dim,
                            a_step: 1,
                            b: &keys[kv * heads.dim * capacity..],
                            b_step: capacity,
                            rows: group,
                            inner: heads.dim,
                            cols,
                            out: p,
                            out_step: cols,
                            add: false,
                        });
                        f32::softmax_rows(p, cols, 1.0 / (heads.dim as f32).sqrt(), |_| seen);
                        f32::small_product(SmallProduct {
                            a: p,
                            a_row: cols,
                            a_step: 1,
                            b: &values[kv * heads.dim..],
                            b_step: kv_width,
                            rows: group,
                            inner: seen,
                            cols: heads.dim,
                            out: &mut out[t * out_width + kv * group * heads.dim..],
                            out_step: heads.dim,
                            add: false,
                        });
                    }
                }
            });
            Ok(())
        })?;
        Tensor::from_vec(out, (batch, time, out_width), packed.device())?.to_dtype(packed.dtype())
    }

    /// Counts `by[row]` of the tokens just stored as held; the rest was padding and will be overwritten.
    pub fn advance(&mut self, by: impl IntoIterator<Item = usize>) {
        for (length, by) in self.lengths.iter_mut().zip(by) {
            *length += by;
        }
    }

    /// Forgets the last `by[row]` tokens of every row: what comes next is written over them.
    ///
    /// # Panics
    /// A row holds fewer tokens.
    pub fn retract(&mut self, by: &[usize]) {
        for (length, by) in self.lengths.iter_mut().zip(by) {
            *length = length.checked_sub(*by).expect("a row forgets tokens that it holds");
        }
    }

    /// As [`select`](Self::select), without copying what stays: each row takes over that at `rows[row]`, which itself stays.
    ///
    /// # Panics
    /// Other rows than that: see [`stays`](Self::stays).
    pub fn take_over(&mut self, rows: &[usize]) {
        assert!(self.stays(rows), "a row that others take over stays");
        #[cfg(feature = "cuda")]
        if !rows.iter().copied().eq(0..rows.len()) {
            self.on_gpu.iter_mut().for_each(|held| *held = held.select(rows));
        }
        let (capacity, kv_width) = (self.capacity, self.heads.kv * self.heads.dim);
        let room = capacity * kv_width;
        for (row, &from) in rows.iter().enumerate().filter(|(row, from)| row != *from) {
            let held = self.lengths[from];
            self.lengths[row] = held;
            for (keys, values) in self.layers.iter_mut().filter(|(keys, _)| !keys.is_empty()) {
                values.copy_within(from * room..from * room + held * kv_width, row * room);
                for i in 0..kv_width {
                    let begin = from * room + i * capacity;
                    keys.copy_within(begin..begin + held, row * room + i * capacity);
                }
            }
        }
    }

    /// Whether as many rows are wanted as there are, and every one of which another is a copy stays in its place.
    pub fn stays(&self, rows: &[usize]) -> bool {
        rows.len() == self.lengths.len() && rows.iter().all(|&from| rows[from] == from)
    }

    /// The cache of the rows `rows`, in that order; a row may be dropped or appear more than once.
    pub fn select(&self, rows: &[usize]) -> Self {
        let room = self.capacity * self.heads.kv * self.heads.dim;
        let copy = |from: &[f32]| -> Vec<f32> {
            if from.is_empty() {
                return Vec::new();
            }
            let mut to = Vec::with_capacity(rows.len() * room);
            rows.iter().for_each(|&row| to.extend_from_slice(&from[row * room..(row + 1) * room]));
            to
        };
        Self {
            heads: self.heads,
            capacity: self.capacity,
            lengths: rows.iter().map(|&row| self.lengths[row]).collect(),
            layers: self.layers.iter().map(|(keys, values)| (copy(keys), copy(values))).collect(),
            #[cfg(feature = "cuda")]
            on_gpu: self.on_gpu.iter().map(|held| held.select(rows)).collect(),
        }
    }
}

/// Positions are worked on in whole vector registers, with no loop for a remainder.
const BLOCK: usize = LANES;

/// The number of positions 0 ..= t in whole blocks.
fn blocks(t: usize) -> usize {
    (t + 1).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn taking_over_in_place_is_selecting() {
        let heads = Heads { query: 4, kv: 2, dim: 3, interleaved: false };
        let packed = |batch: usize, time: usize, seed: usize| {
            let count = batch * time * heads.packed();
            let values: Vec<f32> =
                (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 500.0 - 1.0).collect();
            Tensor::from_vec(values, (batch, time, heads.packed()), &Device::Cpu).unwrap()
        };
        let mut cache = KvCache::new(2, heads, 4, 20);
        for layer in 0..2 {
            cache.attend(layer, &packed(4, 5, layer)).unwrap();
        }
        cache.advance([5, 3, 4, 5]);
        let rows = [0, 0, 3, 3];
        let (mut selected, mut taken) = (cache.select(&rows), cache);
        assert!(taken.stays(&rows) && !taken.stays(&[1, 0, 2, 3]) && !taken.stays(&[0, 1, 2]));
        taken.take_over(&rows);
        assert_eq!(taken.lengths(), selected.lengths());
        for layer in 0..2 {
            let values = |cache: &mut KvCache| -> Vec<f32> {
                cache.attend(layer, &packed(4, 2, 9)).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            assert_eq!(values(&mut taken), values(&mut selected));
        }
    }
}
