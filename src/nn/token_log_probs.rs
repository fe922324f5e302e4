//! From logits to the log-probabilities of given tokens, without a second `[N, V]` of them.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, backend::BackendStorage};

use super::kernel::{for_dtype, output, rows_of, slice, with_values};
use crate::simd::{self, Real};

/// log softmax(logits)\[ids\]: logits `[N, V]`, one id a row; `[N]`, in nats. Differentiable.
pub fn token_log_probs(logits: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    if rows != ids.len() || ids.iter().any(|&id| id as usize >= vocabulary) {
        candle_core::bail!("{} ids do not fit logits of {rows} rows and {vocabulary} tokens", ids.len())
    }
    logits.contiguous()?.apply_op1(TokenLogProbs { ids: ids.to_vec() })
}

/// Log-probabilities of whole rows, in place. Not differentiable: for sampling and measuring.
pub fn log_softmax(row: &mut [f32]) {
    simd::dispatch(
        #[inline(always)]
        || {
            let z = log_sum_exp(row);
            for x in row {
                *x -= z;
            }
        },
    );
}

/// Exact KL(a‖b) over the vocabulary for every row of two logit tensors `[N, V]`, in nats.
/// Not differentiable.
pub fn kl_to(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
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
    let width = logits.dims2()?.1;
    with_values::<f32, _>(logits, |logits| {
        let entropy = |row: &[f32]| {
            simd::dispatch(
                #[inline(always)]
                || {
                    let z = log_sum_exp(row);
                    f64::from(-simd::sum(row.len(), |i| (row[i] - z).exp() * (row[i] - z))).max(0.0)
                },
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
            let kl = simd::sum(n, |i| (a[i] - za).exp() * ((a[i] - za) - (b[i] - zb)));
            f64::from(kl).max(0.0)
        },
    )
}

#[inline(always)]
fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let top = simd::max(row);
    top + simd::sum(row.len(), |i| (row[i] - top).exp()).ln()
}

struct TokenLogProbs {
    ids: Vec<u32>,
}

impl CustomOp1 for TokenLogProbs {
    fn name(&self) -> &'static str {
        "token-log-probs"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_of(layout.shape());
        for_dtype!(logits.dtype(), T => {
            let logits = slice::<T>(logits, layout)?;
            let mut out = vec![0.0 as T; rows];
            simd::dispatch(#[inline(always)] || {
                for ((row, &id), out) in logits.chunks_exact(width).zip(&self.ids).zip(&mut out) {
                    *out = row[id as usize] - log_sum_exp(row);
                }
            });
            Ok(output(out, &Shape::from(rows)))
        })
    }

    fn bwd(&self, logits: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = logits.dim(1)?;
        for_dtype!(logits.dtype(), T => with_values::<T, _>(logits, |values| {
            with_values::<T, _>(grad, |grad| {
                let mut out = vec![0.0 as T; values.len()];
                simd::dispatch(#[inline(always)] || {
                    let rows = values.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(&self.ids).zip(grad);
                    for (((row, out), &id), &g) in rows {
                        let z = log_sum_exp(row);
                        for (out, &x) in out.iter_mut().zip(row) {
                            *out = -g * Real::exp(x - z);
                        }
                        out[id as usize] += g;
                    }
                });
                Ok(Some(Tensor::from_vec(out, logits.shape(), logits.device())?))
            })
        }))
    }
}
