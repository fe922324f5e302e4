//! Log-probabilities of given tokens and entropies, from hidden states.

use std::sync::Mutex;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};

use super::launch::{Arg, empty, launch};
use super::same_dtype;
use crate::nn::{Linear, TokenLogProbs};

/// The rows whose logits are computed at once: as many bytes as a GPU has to spare.
const ROWS: usize = 4096;

/// Threads that read a row of logits.
const THREADS: usize = 1024;

/// See [`crate::nn::token_log_probs`]; what was measured of the logits stays on the GPU.
pub fn token_log_probs(hidden: &Tensor, head: &Linear, ids: &[u32], recompute: bool) -> Result<TokenLogProbs> {
    let (rows, tracked) = (hidden.dims2()?.0, hidden.track_op());
    let hidden = hidden.contiguous()?;
    let mut pieces = Vec::new();
    for from in (0..rows).step_by(ROWS) {
        let n = ROWS.min(rows - from);
        let logits = head.multiply(&hidden.detach().narrow(0, from, n)?)?.contiguous()?;
        let ids = on_gpu(&ids[from..from + n], &logits)?;
        let measured = measure(&logits, Some(&ids))?;
        let kept = Mutex::new((tracked && !recompute).then_some(logits));
        pieces.push(Piece { from, n, ids, measured, kept });
    }
    let measured: Vec<Tensor> = pieces.iter().map(|piece| piece.measured.narrow(0, 0, 2)).collect::<Result<_>>()?;
    let value = Tensor::cat(&measured, 1)?;
    let both = match tracked {
        true => hidden.apply_op1(HeadLogProbs { head: head.clone(), value, pieces })?,
        false => value,
    };
    Ok(TokenLogProbs { log_probs: both.get(0)?, entropies: both.get(1)? })
}

/// Rows worked on at once.
struct Piece {
    from: usize,
    n: usize,
    ids: Tensor,
    /// Of every row log p of its id, entropy, normaliser: `[3, n]`.
    measured: Tensor,
    /// The logits, until they become their gradient; none where they are to be computed again.
    kept: Mutex<Option<Tensor>>,
}

struct HeadLogProbs {
    head: Linear,
    /// `[2, N]`.
    value: Tensor,
    pieces: Vec<Piece>,
}

impl CustomOp1 for HeadLogProbs {
    fn name(&self) -> &'static str {
        "token-log-probs"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("hidden states and head lie on different devices")
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match storage.try_clone(layout)? {
            Storage::Cuda(storage) => Ok((storage, layout.shape().clone())),
            _ => bail!("hidden states and head lie on different devices"),
        }
    }

    fn bwd(&self, hidden: &Tensor, _both: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut parts = Vec::new();
        for &Piece { from, n, ref ids, ref measured, ref kept } in &self.pieces {
            let hidden = hidden.detach().narrow(0, from, n)?;
            let kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            let logits = match kept {
                Some(logits) => logits,
                None => self.head.multiply(&hidden)?.contiguous()?,
            };
            let grad = grad.narrow(1, from, n)?.to_dtype(DType::F32)?.contiguous()?;
            let width = logits.dims2()?.1;
            let args = [
                Arg::Tensor(&logits),
                Arg::Tensor(ids),
                Arg::Tensor(measured),
                Arg::Tensor(&grad),
                Arg::Int(n),
                Arg::Int(width),
            ];
            launch("logits_gradient", logits.dtype(), logits.device(), [n, THREADS], &args)?;
            parts.push(self.head.go_back(&hidden, &logits)?);
        }
        Ok(Some(Tensor::cat(&parts, 0)?))
    }
}

/// Ids on the GPU of the logits that they name a column of.
fn on_gpu(ids: &[u32], logits: &Tensor) -> Result<Tensor> {
    let (rows, width) = logits.dims2()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= width) {
        bail!("token {id} lies outside the vocabulary of {width}")
    }
    if rows != ids.len() {
        bail!("{} ids do not fit {rows} rows", ids.len())
    }
    Tensor::from_slice(ids, rows, logits.device())
}

fn measure(logits: &Tensor, ids: Option<&Tensor>) -> Result<Tensor> {
    let (rows, width) = logits.dims2()?;
    let measured = empty((3, rows), DType::F32, logits.device())?;
    let args = [Arg::Tensor(logits), ids.into(), Arg::Tensor(&measured), Arg::Int(rows), Arg::Int(width)];
    launch("measure_logits", logits.dtype(), logits.device(), [rows, THREADS], &args)?;
    Ok(measured)
}

fn to_host(x: &Tensor) -> Result<Vec<f64>> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}

/// log softmax(logits)\[ids\] of every row.
pub fn log_probs_of(logits: &Tensor, ids: &[u32]) -> Result<Vec<f64>> {
    let logits = logits.contiguous()?;
    to_host(&measure(&logits, Some(&on_gpu(ids, &logits)?))?.get(0)?)
}

/// The entropy of every row.
pub fn entropies(logits: &Tensor) -> Result<Vec<f64>> {
    let logits = logits.flatten_to(candle_core::D::Minus2)?.contiguous()?;
    Ok(to_host(&measure(&logits, None)?.get(1)?)?.into_iter().map(|h| h.max(0.0)).collect())
}

/// KL(a‖b) of every row.
pub fn kl_to(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let (rows, width) = a.dims2()?;
    if a.shape() != b.shape() {
        bail!("logits {:?} and {:?} differ", a.shape(), b.shape())
    }
    same_dtype(&[&a, &b])?;
    let kl = empty(rows, DType::F32, a.device())?;
    let args = [Arg::Tensor(&a), Arg::Tensor(&b), Arg::Tensor(&kl), Arg::Int(width)];
    launch("kl_of_logits", a.dtype(), a.device(), [rows, THREADS], &args)?;
    Ok(to_host(&kl)?.into_iter().map(|kl| kl.max(0.0)).collect())
}
