//! Means and broadcasts of tensors in place, wherever they are.

use anyhow::{Context, Result};
use candle_core::{CpuStorage, CudaStorage, InplaceOp1, Layout, Tensor};

use super::Ranks;
use super::nccl::Gpu;

impl Ranks {
    /// [`Ranks::mean`] of a contiguous f32 tensor, in place. On a GPU the values of all ranks are gathered, and each rank adds
    /// them in the order of the ranks, for NCCL's own all-reduce may add in another order in every call where the
    /// switch does it (NVIDIA/nccl issue 1497). That moves n − 1 times the values into each of n GPUs, and needs
    /// about 16 MiB · (n + 6) there.
    ///
    /// # Errors
    /// Another type, or number of values on another rank; a tensor on a GPU that is not [`Ranks::gpu_device`].
    pub fn mean_tensor(&self, tensor: &Tensor) -> Result<()> {
        tensor.inplace_op1(&InPlace { ranks: self, what: What::Mean }).context("the mean of a tensor over the ranks")
    }

    /// [`Ranks::broadcast`] of a contiguous f32 tensor, in place.
    ///
    /// # Errors
    /// As [`Ranks::mean_tensor`].
    pub fn broadcast_tensor(&self, tensor: &Tensor) -> Result<()> {
        tensor.inplace_op1(&InPlace { ranks: self, what: What::Broadcast }).context("the broadcast of a tensor")
    }

    pub(super) fn gpu(&self) -> candle_core::Result<&Gpu> {
        match &self.gpu {
            Some(gpu) => Ok(gpu),
            None => candle_core::bail!(
                "these ranks exchange what is in the CPU's memory; for tensors on GPUs build with `--features nccl` and \
                 call Ranks::on_gpu"
            ),
        }
    }
}

enum What {
    Mean,
    Broadcast,
}

/// candle hands out a tensor's memory only through an operation.
struct InPlace<'a> {
    ranks: &'a Ranks,
    what: What,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "over the ranks"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) = contiguous(layout)?;
        let CpuStorage::F32(values) = storage else { candle_core::bail!("the numbers must be f32") };
        match self.what {
            What::Mean => self.ranks.mean(&mut values[start..end]),
            What::Broadcast => self.ranks.broadcast(&mut values[start..end]),
        }
        .map_err(in_candle)
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let (start, end) = contiguous(layout)?;
        match self.what {
            What::Mean => self.ranks.gpu()?.mean(storage, start..end),
            What::Broadcast => self.ranks.gpu()?.broadcast(storage, start..end),
        }
    }
}

/// Where the values of a tensor begin and end in its memory.
pub(super) fn contiguous(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(ends) => Ok(ends),
        None => candle_core::bail!("the tensor must be contiguous"),
    }
}

pub(super) fn in_candle(error: anyhow::Error) -> candle_core::Error {
    candle_core::Error::Msg(format!("{error:#}"))
}
