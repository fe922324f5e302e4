//! Attention and its cache.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::composed::{self, Sight, Softmax, Split};
use super::elementwise::{in_numbers, numbers};
use super::launch::{Arg, launch, threads_for};
use super::same_dtype;
use crate::nn::kernel::rows_of;
use crate::nn::{Heads, Mask, Traced};

/// softmax(q·k / sqrt(head_dim)) · v.
pub fn attention(packed: &Traced, heads: Heads, mask: &Mask) -> Result<Traced> {
    let x = packed.tensor().clone();
    let sight = Sight::of(mask, heads.check(x.shape())?.0)?;
    let y = composed::forward(&x, heads, &sight, KERNELS)?;
    Ok(Traced::record(y, &[packed], move |grad| Ok(vec![Some(composed::backward(&x, grad, heads, &sight, KERNELS)?)])))
}

/// Softmax in its input's place.
const KERNELS: Softmax = Softmax {
    forward: |scores, sight, time, scale| {
        let (_, kv, rows, width) = scores.dims4()?;
        let seen = numbers(&sight.seen, &scores)?;
        let args = [
            Arg::Tensor(&scores),
            Arg::Tensor(&seen),
            Arg::Int(sight.step),
            Arg::Int(kv * rows),
            Arg::Int(time),
            Arg::Int(width),
            Arg::Float(scale),
        ];
        run("masked_softmax", &scores, &args)?;
        Ok(scores)
    },
    backward: |p, dp, scale| {
        let args = [Arg::Tensor(p), Arg::Tensor(&dp), Arg::Int(rows_of(p.shape()).1), Arg::Float(scale)];
        run("softmax_backward", p, &args)?;
        Ok(dp)
    },
};

/// A block for every row of scores.
fn run(name: &str, scores: &Tensor, args: &[Arg]) -> Result<()> {
    let (rows, width) = rows_of(scores.shape());
    launch(name, scores.dtype(), scores.device(), [rows, threads_for(width)], args)
}

/// A layer's keys and values.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// `[B, kv_heads, capacity, head_dim]` each; shared by the clones of a cache until one of them is written to.
    both: Option<Arc<(Tensor, Tensor)>>,
    /// The rows that were selected since.
    rows: Option<Vec<usize>>,
}

impl Held {
    /// Stores the keys and values of T new tokens a row behind the `lengths` that are held, and attends from the new
    /// tokens to all of them.
    pub fn attend(&mut self, lengths: &[usize], capacity: usize, heads: Heads, packed: &Tensor) -> Result<Tensor> {
        let packed = packed.contiguous()?;
        let (batch, time) = heads.check(packed.shape())?;
        let both = self.own([batch, heads.kv, capacity, heads.dim], &packed)?;
        let (keys, values) = &*both;
        same_dtype(&[&packed, keys])?;
        let starts = numbers(lengths, &packed)?;
        let [query, kv, dim, interleaved] = in_numbers(heads);
        let args = [
            Arg::Tensor(&packed),
            Arg::Tensor(&starts),
            Arg::Tensor(keys),
            Arg::Tensor(values),
            Arg::Int(time),
            Arg::Int(capacity),
            query,
            kv,
            dim,
            interleaved,
        ];
        let grid = [batch * time, threads_for(heads.kv * heads.dim)];
        launch("store_keys_and_values", packed.dtype(), packed.device(), grid, &args)?;
        let Some(longest) = lengths.iter().max() else { bail!("an empty batch") };
        let sight = Sight { seen: lengths.iter().map(|n| n + 1).collect(), step: 1 };
        let all = |x: &Tensor| x.narrow(2, 0, longest + time);
        let q = Split::of(&packed, heads)?.q;
        composed::attend(&q, &all(keys)?, &all(values)?, time, &sight, KERNELS)
    }

    /// The rows `rows`, in that order; they are copied when they are needed.
    pub fn select(&self, rows: &[usize]) -> Self {
        let rows = match &self.rows {
            Some(before) => rows.iter().map(|&row| before[row]).collect(),
            None => rows.to_vec(),
        };
        Self { both: self.both.clone(), rows: self.both.is_some().then_some(rows) }
    }

    /// Keys and values that nothing else reads, for the rows that are selected.
    fn own(&mut self, shape: [usize; 4], like: &Tensor) -> Result<Arc<(Tensor, Tensor)>> {
        let both = match (self.both.take(), self.rows.take()) {
            (None, _) => {
                let zeros = || Tensor::zeros(&shape[..], like.dtype(), like.device());
                Arc::new((zeros()?, zeros()?))
            }
            (Some(both), Some(rows)) => {
                let rows = numbers(&rows, like)?;
                Arc::new((both.0.index_select(&rows, 0)?, both.1.index_select(&rows, 0)?))
            }
            (Some(both), None) if Arc::strong_count(&both) > 1 => Arc::new((both.0.copy()?, both.1.copy()?)),
            (Some(both), None) => both,
        };
        if both.0.dims() != shape {
            bail!("a cache of {:?} got tokens for {shape:?}", both.0.shape())
        }
        self.both = Some(both.clone());
        Ok(both)
    }
}
