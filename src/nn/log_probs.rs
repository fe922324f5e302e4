//! From hidden states to the log-probabilities of given tokens, with one `[N, V]` of logits in memory, or none.

use std::sync::Mutex;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

use super::Linear;
use super::cuda::on_gpu;
use super::kernel::{for_dtype, rows_of, with_values, with_values_mut};
use crate::simd::{self, Real};

/// What a policy says of the tokens that came, in nats. Both are `[N]` and differentiable.
#[derive(Debug, Clone)]
pub struct TokenLogProbs {
    pub log_probs: Tensor,
    /// Entropies of the distributions that the tokens were drawn from, over the whole vocabulary.
    pub entropies: Tensor,
}

/// Log-probability of one id a row under softmax(head(hidden)), and the entropy of every row: hidden `[N, C]`.
///
/// The logits `[N, V]` are kept until the way back and turned into their own gradient there. With `recompute`
/// none are kept: they are computed again, [`ROWS`] rows at a time.
pub fn token_log_probs(hidden: &Tensor, head: &Linear, ids: &[u32], recompute: bool) -> Result<TokenLogProbs> {
    let rows = hidden.dims2()?.0;
    if rows != ids.len() {
        bail!("{} ids do not fit {rows} hidden states", ids.len())
    }
    on_gpu!(hidden, cuda::token_log_probs(hidden, head, ids, recompute));
    let hidden = hidden.contiguous()?;
    let keep = hidden.track_op() && !recompute;
    let (mut out, mut normalisers, mut kept) = (vec![0f64; 2 * rows], Vec::with_capacity(rows), Vec::new());
    for from in (0..rows).step_by(ROWS) {
        let n = ROWS.min(rows - from);
        let logits = head.multiply(&hidden.detach().narrow(0, from, n)?)?;
        let measured = measure(&logits, &ids[from..from + n])?;
        for (i, row) in measured.into_iter().enumerate() {
            out[from + i] = row.log_prob;
            out[rows + from + i] = row.entropy;
            normalisers.push(row.normaliser);
        }
        if keep {
            kept.push(logits);
        }
    }
    let dtype = super::kernel::sum_dtype(hidden.dtype());
    let value = Tensor::from_vec(out, (2, rows), hidden.device())?.to_dtype(dtype)?;
    let both = if hidden.track_op() {
        let op = HeadLogProbs { head: head.clone(), ids: ids.to_vec(), value, normalisers, kept: Mutex::new(kept) };
        hidden.apply_op1(op)?
    } else {
        value
    };
    Ok(TokenLogProbs { log_probs: both.get(0)?, entropies: both.get(1)? })
}

/// The rows whose logits are computed at once.
pub const ROWS: usize = 512;

struct HeadLogProbs {
    head: Linear,
    ids: Vec<u32>,
    /// `[2, N]`.
    value: Tensor,
    /// The logarithm of every row's sum of exponentials.
    normalisers: Vec<f64>,
    /// The logits, [`ROWS`] rows a piece; none where they are to be computed again.
    kept: Mutex<Vec<Tensor>>,
}

impl HeadLogProbs {
    fn value(&self) -> Result<(Storage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }
}

impl CustomOp1 for HeadLogProbs {
    fn name(&self) -> &'static str {
        "token-log-probs"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.value()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("hidden states and head lie on different devices"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.value()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("hidden states and head lie on different devices"),
        }
    }

    fn bwd(&self, hidden: &Tensor, both: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        kept.reverse();
        let grad = grad.to_dtype(candle_core::DType::F64)?.to_vec2::<f64>()?;
        let entropies = both.get(1)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let rows = self.ids.len();
        let mut parts = Vec::new();
        for from in (0..rows).step_by(ROWS) {
            let to = rows.min(from + ROWS);
            let hidden = hidden.detach().narrow(0, from, to - from)?;
            let logits = match kept.pop() {
                Some(logits) => logits,
                None => self.head.multiply(&hidden)?,
            };
            let wanted = (from..to).map(|i| Wanted {
                id: self.ids[i] as usize,
                log_prob: grad[0][i],
                entropy: grad[1][i],
                normaliser: self.normalisers[i],
                value: entropies[i],
            });
            let dlogits = turn_into_gradient(logits, &wanted.collect::<Vec<_>>())?;
            parts.push(self.head.go_back(&hidden, &dlogits)?);
        }
        Ok(Some(Tensor::cat(&parts, 0)?))
    }
}

/// What one row of logits says.
struct Measured {
    normaliser: f64,
    log_prob: f64,
    entropy: f64,
}

fn measure(logits: &Tensor, ids: &[u32]) -> Result<Vec<Measured>> {
    let width = logits.dims2()?.1;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= width) {
        bail!("token {id} lies outside the vocabulary of {width}")
    }
    for_dtype!(logits.dtype(), T => with_values::<T, _>(logits, |logits| {
        let row = |(row, &id): (&[T], &u32)| {
            simd::dispatch(
                #[inline(always)]
                || {
                    let (z, entropy) = normaliser_and_entropy(row);
                    let log_prob = (row[id as usize] - z).into_f64();
                    Measured { normaliser: z.into_f64(), log_prob, entropy: entropy.into_f64() }
                },
            )
        };
        Ok(logits.par_chunks_exact(width).zip(ids).map(row).collect())
    }))
}

/// The gradients that arrive at one row.
struct Wanted {
    id: usize,
    log_prob: f64,
    entropy: f64,
    normaliser: f64,
    /// The row's entropy H.
    value: f64,
}

/// Writes the gradient of the logits in their place: g·(1\[id\] − p) − h·p·(log p + H).
fn turn_into_gradient(logits: Tensor, wanted: &[Wanted]) -> Result<Tensor> {
    let (dtype, width) = (logits.dtype(), logits.dims2()?.1);
    for_dtype!(dtype, T => {
        let values = logits.to_dtype(<T as candle_core::WithDType>::DTYPE)?;
        with_values_mut(&values, |values: &mut [T]| {
            values.par_chunks_exact_mut(width).zip(wanted).for_each(|(row, wanted)| {
                simd::dispatch(
                    #[inline(always)]
                    || gradient_row(row, wanted),
                );
            });
        })?;
        values.to_dtype(dtype)
    })
}

#[inline(always)]
fn gradient_row<T: Real>(row: &mut [T], wanted: &Wanted) {
    let (g, h, entropy) = (T::of(wanted.log_prob), T::of(wanted.entropy), T::of(wanted.value));
    let z = T::of(wanted.normaliser);
    if wanted.entropy == 0.0 {
        for x in row.iter_mut() {
            *x = -g * (*x - z).exp();
        }
    } else {
        for x in row.iter_mut() {
            let log_p = *x - z;
            *x = -(g + h * (log_p + entropy)) * log_p.exp();
        }
    }
    row[wanted.id] += g;
}

/// log Σ exp and the entropy of a row's distribution, in one pass behind that for the largest logit.
#[inline(always)]
fn normaliser_and_entropy<T: Real>(row: &[T]) -> (T, T) {
    let top = simd::max(row);
    // A logit of −∞ counts as one so far below that its share is nothing.
    let bottom = T::of(-1e4);
    let (sum, moment) = simd::two_sums([row], |[x]| {
        let d = x - top;
        let d = if d < bottom { bottom } else { d };
        let e = d.exp();
        (e, e * d)
    });
    (top + sum.ln(), sum.ln() - moment / sum)
}

#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let top = simd::max(row);
    top + simd::sum([row], |[x]| (x - top).exp()).ln()
}

/// log softmax(logits)\[ids\]: logits `[N, V]`, one id a row; in nats. Not differentiable.
pub fn log_probs_of(logits: &Tensor, ids: &[u32]) -> Result<Vec<f64>> {
    if logits.dims2()?.0 != ids.len() {
        bail!("{} ids do not fit logits {:?}", ids.len(), logits.shape())
    }
    on_gpu!(logits, cuda::log_probs_of(logits, ids));
    Ok(measure(logits, ids)?.into_iter().map(|row| row.log_prob).collect())
}

/// Exact KL(a‖b) over the vocabulary for every row of two logit tensors `[N, V]`, in nats.
/// Not differentiable.
pub fn kl_to(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    on_gpu!(a, cuda::kl_to(a, b));
    let width = a.dims2()?.1;
    with_values::<f32, _>(a, |a| {
        with_values::<f32, _>(b, |b| {
            let rows = a.chunks_exact(width).zip(b.chunks_exact(width));
            Ok(rows.map(|(a, b)| kl_row(a, b)).collect())
        })
    })
}

/// Entropy in nats of every row of logits `[N, V]`. Not differentiable.
pub fn entropies(logits: &Tensor) -> Result<Vec<f64>> {
    on_gpu!(logits, cuda::entropies(logits));
    let width = rows_of(logits.shape()).1;
    with_values::<f32, _>(logits, |logits| {
        let entropy = |row: &[f32]| {
            simd::dispatch(
                #[inline(always)]
                || f64::from(normaliser_and_entropy(row).1).max(0.0),
            )
        };
        Ok(logits.chunks_exact(width).map(entropy).collect())
    })
}

fn kl_row(a: &[f32], b: &[f32]) -> f64 {
    simd::dispatch(
        #[inline(always)]
        || {
            let (za, zb) = (log_sum_exp(a), log_sum_exp(b));
            let n = a.len().min(b.len());
            let kl = simd::sum([&a[..n], &b[..n]], |[a, b]| (a - za).exp() * ((a - za) - (b - zb)));
            f64::from(kl).max(0.0)
        },
    )
}
