//! Attention composed of candle's batched products, and of a softmax that is handed in: on a GPU a kernel's.
//!
//! The scores of a block of rows are in memory at once, and are computed again on the way back.

use candle_core::{Result, Tensor};

use crate::nn::{Heads, Mask};

/// Which positions the queries see: the query at `t` of row b the first `seen[b] + step · t`.
#[derive(Debug, Clone)]
pub struct Sight {
    pub seen: Vec<usize>,
    pub step: usize,
}

impl Sight {
    /// # Errors
    /// A packed batch: it is padded before.
    pub fn of(mask: &Mask, batch: usize) -> Result<Self> {
        match mask {
            Mask::Causal => Ok(Self { seen: vec![1; batch], step: 1 }),
            Mask::Lengths(lengths) => Ok(Self { seen: lengths.to_vec(), step: 0 }),
            Mask::Packed(_) => candle_core::bail!("a packed batch is padded before it comes here"),
        }
    }

    /// That of the rows `from .. from + n`.
    fn rows(&self, from: usize, n: usize) -> Self {
        Self { seen: self.seen[from..from + n].to_vec(), step: self.step }
    }
}

/// Softmax over the positions seen, and its gradient. Both may use their input's memory for the outcome.
#[derive(Clone, Copy)]
pub struct Softmax {
    /// From scores `[B, kv, queries · T, S]`, the sight, T, and what the scores are to be multiplied by.
    pub forward: fn(Tensor, &Sight, usize, f64) -> Result<Tensor>,
    /// From probabilities, their gradient and the multiplier to the gradient of the scores.
    pub backward: fn(&Tensor, Tensor, f64) -> Result<Tensor>,
}

/// Packed `[B, T, ..]` to `[B, T, heads · head_dim]`.
pub fn forward(packed: &Tensor, heads: Heads, sight: &Sight, softmax: Softmax) -> Result<Tensor> {
    let (batch, time) = heads.check(packed.shape())?;
    in_blocks(batch, heads.query * time * time, |from, n| {
        let Split { q, k, v } = Split::of(&packed.narrow(0, from, n)?, heads)?;
        attend(&q, &k, &v, time, &sight.rows(from, n), softmax)
    })
}

/// The gradient of packed from that of the output.
pub fn backward(packed: &Tensor, grad: &Tensor, heads: Heads, sight: &Sight, softmax: Softmax) -> Result<Tensor> {
    let (batch, time) = heads.check(packed.shape())?;
    let scale = 1.0 / (heads.dim as f64).sqrt();
    in_blocks(batch, heads.query * time * time, |from, n| {
        let Split { q, k, v } = Split::of(&packed.narrow(0, from, n)?, heads)?;
        let grad = grad.narrow(0, from, n)?.contiguous()?.reshape((n, time, heads.query, heads.dim))?;
        let grad = by_head(&grad, heads.kv)?;
        let p = (softmax.forward)(q.matmul(&k.t()?)?, &sight.rows(from, n), time, scale)?;
        let dv = p.t()?.matmul(&grad)?;
        let ds = (softmax.backward)(&p, grad.matmul(&v.t()?)?, scale)?;
        drop(p);
        // The queries that share a key head lie in one product, which sums over them.
        Split { q: ds.matmul(&k)?, k: ds.t()?.matmul(&q)?, v: dv }.packed(heads)
    })
}

/// Queries `[B, kv, queries · T, dim]`, keys and values `[B, kv, S, dim]` to `[B, T, heads · dim]`.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, time: usize, sight: &Sight, softmax: Softmax) -> Result<Tensor> {
    let (batch, kv, rows, dim) = q.dims4()?;
    let p = (softmax.forward)(q.matmul(&k.t()?)?, sight, time, 1.0 / (dim as f64).sqrt())?;
    by_token(&p.matmul(v)?, kv * rows / time)?.reshape((batch, time, ()))
}

/// Scores in memory at once.
const SCORES: usize = 1 << 28;

/// Rows of the batch in blocks whose scores, `scores` a row, fit; at least one at a time.
fn in_blocks(batch: usize, scores: usize, f: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Tensor> {
    let step = (SCORES / scores.max(1)).clamp(1, batch.max(1));
    let blocks: Vec<Tensor> =
        (0..batch).step_by(step).map(|from| f(from, step.min(batch - from))).collect::<Result<_>>()?;
    match &blocks[..] {
        [whole] => Ok(whole.clone()),
        _ => Tensor::cat(&blocks, 0),
    }
}

/// What a packed tensor holds: queries `[B, kv, queries · T, dim]`, the query heads of a key head one after the other,
/// and keys and values `[B, kv, T, dim]`.
pub struct Split {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

impl Split {
    pub fn of(packed: &Tensor, heads: Heads) -> Result<Self> {
        let (batch, time) = heads.check(packed.shape())?;
        let Heads { query, kv, dim, interleaved } = heads;
        let packed = packed.contiguous()?;
        let part = |i: usize, from: usize, n: usize| match interleaved {
            true => packed.reshape((batch, time, n, 3, dim))?.narrow(3, i, 1)?.squeeze(3),
            false => packed.reshape((batch, time, query + 2 * kv, dim))?.narrow(2, from, n),
        };
        Ok(Self {
            q: by_head(&part(0, 0, query)?, kv)?,
            k: by_head(&part(1, query, kv)?, kv)?,
            v: by_head(&part(2, query + kv, kv)?, kv)?,
        })
    }

    fn packed(&self, heads: Heads) -> Result<Tensor> {
        let parts = [by_token(&self.q, heads.query)?, by_token(&self.k, heads.kv)?, by_token(&self.v, heads.kv)?];
        let (batch, time, ..) = parts[0].dims4()?;
        let packed = if heads.interleaved { Tensor::stack(&parts, 3)? } else { Tensor::cat(&parts, 2)? };
        packed.contiguous()?.reshape((batch, time, heads.packed()))
    }
}

/// `[B, T, heads, dim]` to `[B, kv, heads / kv · T, dim]`.
fn by_head(x: &Tensor, kv: usize) -> Result<Tensor> {
    let (batch, time, heads, dim) = x.dims4()?;
    x.transpose(1, 2)?.contiguous()?.reshape((batch, kv, heads / kv * time, dim))
}

/// The way back: `[B, kv, heads / kv · T, dim]` to `[B, T, heads, dim]`.
fn by_token(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, kv, rows, dim) = x.dims4()?;
    x.reshape((batch, heads, kv * rows / heads, dim))?.transpose(1, 2)?.contiguous()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::nn;

    /// The definition, by candle's operations.
    const NAIVE: Softmax = Softmax {
        forward: |scores, sight, time, scale| {
            let (batch, kv, rows, width) = scores.dims4()?;
            let seen = |i: usize| sight.seen[i / (kv * rows)] + sight.step * (i % rows % time);
            let mask: Vec<f64> = (0..batch * kv * rows * width)
                .map(|i| if i % width < seen(i / width) { 0.0 } else { f64::NEG_INFINITY })
                .collect();
            let mask = Tensor::from_vec(mask, scores.shape(), scores.device())?.to_dtype(scores.dtype())?;
            let scores = ((scores * scale)? + mask)?;
            let e = scores.broadcast_sub(&scores.max_keepdim(3)?)?.exp()?;
            e.broadcast_div(&e.sum_keepdim(3)?)
        },
        backward: |p, dp, scale| {
            let mean = (p * &dp)?.sum_keepdim(3)?;
            (p * dp.broadcast_sub(&mean)?)? * scale
        },
    };

    fn values(shape: &[usize], phase: f64) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|i| (phase + 0.9 * i as f64).sin() * 1.3).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn gap(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.shape(), b.shape());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn attention_agrees_with_the_cpu_forward_and_backward() {
        let (batch, time) = (3, 21);
        for (heads, mask) in [
            (Heads { query: 4, kv: 2, dim: 4, interleaved: false }, Mask::Causal),
            (Heads { query: 3, kv: 3, dim: 5, interleaved: false }, Mask::Lengths([21, 1, 8].into())),
            (Heads { query: 2, kv: 2, dim: 6, interleaved: true }, Mask::Causal),
            (Heads { query: 6, kv: 1, dim: 2, interleaved: false }, Mask::Lengths([3, 21, 20].into())),
        ] {
            let sight = Sight::of(&mask, batch).unwrap();
            let x = Var::from_tensor(&values(&[batch, time, heads.packed()], 0.3)).unwrap();
            let grad = values(&[batch, time, heads.width()], 1.1);
            let (y, dx) = {
                let mask = mask.clone();
                let y = nn::block(&x, false, move |x| nn::attention(x, heads, &mask)).unwrap();
                let grads = (&y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
                (y.detach(), grads.get(&x).unwrap().clone())
            };
            let x = x.as_detached_tensor();
            assert!(gap(&forward(&x, heads, &sight, NAIVE).unwrap(), &y) < 1e-12);
            assert!(gap(&backward(&x, &grad, heads, &sight, NAIVE).unwrap(), &dx) < 1e-12);
        }
    }

    /// Sequences read in two parts, of which the second begins elsewhere in every row, as whole ones.
    #[test]
    fn attention_to_a_cache_agrees_with_the_cpu() {
        let heads = Heads { query: 4, kv: 2, dim: 4, interleaved: false };
        let (batch, capacity) = (2, 16);
        let mut cache = nn::KvCache::new(1, heads, batch, capacity);
        let prompt = values(&[batch, 5, heads.packed()], 0.1).to_dtype(DType::F32).unwrap();
        cache.attend(0, &prompt).unwrap();
        cache.advance([5, 3]);
        let next = values(&[batch, 2, heads.packed()], 2.3).to_dtype(DType::F32).unwrap();
        let right = cache.attend(0, &next).unwrap();
        // What the GPU's cache holds: the second row's padding is overwritten.
        let (old, new) = (Split::of(&prompt, heads).unwrap(), Split::of(&next, heads).unwrap());
        let hold = |old: &Tensor, new: &Tensor| {
            let held = Tensor::zeros((batch, heads.kv, 7, heads.dim), DType::F32, &Device::Cpu).unwrap();
            held.slice_set(old, 2, 0).unwrap();
            for (row, start) in [5, 3].into_iter().enumerate() {
                let row_of = |x: &Tensor| x.narrow(0, row, 1).unwrap().contiguous().unwrap();
                let own = row_of(&held).copy().unwrap();
                own.slice_set(&row_of(new), 2, start).unwrap();
                held.slice_set(&own, 0, row).unwrap();
            }
            held
        };
        let sight = Sight { seen: vec![6, 4], step: 1 };
        let found = attend(&new.q, &hold(&old.k, &new.k), &hold(&old.v, &new.v), 2, &sight, NAIVE).unwrap();
        let gap: f32 = (found - right).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(gap < 1e-6, "{gap}");
    }
}
