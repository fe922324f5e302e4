//! Frozen weights of which each rank keeps a part.

use anyhow::{Context, Result, ensure};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Device, Layout, Shape, Tensor, WithDType};

use super::Ranks;
use super::mpi::Mpi;
use super::tensor::{contiguous, in_candle};

/// A frozen tensor spread over the ranks: each keeps its contiguous [`Ranks::part`] of the rows (the first axis), as
/// fully sharded data parallel training does (Zhao et al. 2023, arXiv:2304.11277). Before a layer is used, its weights
/// are gathered; dropped after it, they cost memory for one layer at a time. No gradient flows into it.
#[derive(Clone)]
pub struct Shard {
    part: Tensor,
    shape: Shape,
    ranks: Ranks,
}

impl Shard {
    /// Keeps this rank's rows of `whole`, in memory of their own. All ranks must hold the same tensor, which is not checked:
    /// [`Ranks::same`] with a digest of the weights does.
    ///
    /// # Errors
    /// A tensor without axes; one on a GPU that is not [`Ranks::gpu_device`].
    pub fn new(whole: &Tensor, ranks: &Ranks) -> Result<Self> {
        ensure!(whole.rank() > 0, "a single number has no rows to share out");
        refuse_stranger(whole.device(), ranks)?;
        let whole = whole.detach();
        let rows = ranks.part(whole.dim(0)?);
        // A narrowed tensor would keep the memory of the whole.
        let part = match ranks.size() {
            1 => whole.contiguous()?,
            _ => whole.narrow(0, rows.start, rows.len())?.force_contiguous()?.detach(),
        };
        Ok(Self { part, shape: whole.shape().clone(), ranks: ranks.clone() })
    }

    /// The whole tensor, in memory of its own where there are several ranks. Collective.
    ///
    /// # Errors
    /// Other ranks are at something else; a type that is not u8, u32, i64 or a float of 16 to 64 bits.
    pub fn gather(&self) -> Result<Tensor> {
        match &self.ranks.mpi {
            Some(mpi) if mpi.size() > 1 => {
                let gather = AllGather { shape: &self.shape, ranks: &self.ranks, mpi };
                self.part.apply_op1_no_bwd(&gather).with_context(|| format!("gathering a tensor {:?}", self.shape))
            }
            _ => Ok(self.part.clone()),
        }
    }

    /// The same with this rank's rows on a device, where they are gathered.
    ///
    /// # Errors
    /// A GPU that the ranks were not given.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        refuse_stranger(device, &self.ranks)?;
        Ok(Self { part: self.part.to_device(device)?, ..self.clone() })
    }

    /// The rows that this rank keeps.
    pub fn part(&self) -> &Tensor {
        &self.part
    }

    /// The shape of the whole.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// # Errors
/// A GPU that the ranks do not exchange tensors on.
fn refuse_stranger(device: &Device, ranks: &Ranks) -> Result<()> {
    ensure!(
        device.is_cpu() || ranks.size() == 1 || ranks.gpu().is_ok(),
        "a tensor on {:?} cannot be shared out: these ranks exchange what is in the CPU's memory (the feature `nccl` and \
         Ranks::on_gpu change that)",
        device.location()
    );
    Ok(())
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} of {:?}, {:?}", self.part.shape(), self.shape, self.ranks)
    }
}

/// candle hands out a tensor's memory only through an operation.
struct AllGather<'a> {
    shape: &'a Shape,
    ranks: &'a Ranks,
    mpi: &'a Mpi,
}

impl CustomOp1 for AllGather<'_> {
    fn name(&self) -> &'static str {
        "all-gather"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (start, end) = contiguous(layout)?;
        let whole = match storage {
            CpuStorage::U8(values) => CpuStorage::U8(self.whole(&values[start..end])?),
            CpuStorage::U32(values) => CpuStorage::U32(self.whole(&values[start..end])?),
            CpuStorage::I64(values) => CpuStorage::I64(self.whole(&values[start..end])?),
            CpuStorage::BF16(values) => CpuStorage::BF16(self.whole(&values[start..end])?),
            CpuStorage::F16(values) => CpuStorage::F16(self.whole(&values[start..end])?),
            CpuStorage::F32(values) => CpuStorage::F32(self.whole(&values[start..end])?),
            CpuStorage::F64(values) => CpuStorage::F64(self.whole(&values[start..end])?),
            _ => candle_core::bail!("numbers of this type cannot be gathered"),
        };
        Ok((whole, self.shape.clone()))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (start, end) = contiguous(layout)?;
        Ok((self.ranks.gpu()?.all_gather_rows(storage, start..end, self.shape)?, self.shape.clone()))
    }
}

impl AllGather<'_> {
    fn whole<T: WithDType>(&self, own: &[T]) -> candle_core::Result<Vec<T>> {
        let mut whole = vec![T::zero(); self.shape.elem_count()];
        let row_bytes = self.shape.dims()[1..].iter().product::<usize>() * size_of::<T>();
        // SAFETY: candle's element types are plain numbers without padding, of which every bit pattern is valid.
        let (own, all) = unsafe {
            (
                std::slice::from_raw_parts(own.as_ptr().cast::<u8>(), size_of_val(own)),
                std::slice::from_raw_parts_mut(whole.as_mut_ptr().cast::<u8>(), size_of_val(&whole[..])),
            )
        };
        self.mpi.all_gather_rows(own, row_bytes, all).map_err(in_candle)?;
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn one_process_keeps_and_gives_the_same_memory() {
        let whole = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let shard = Shard::new(&whole, &Ranks::alone()).unwrap();
        assert_eq!(shard.part().dims(), [4, 3]);
        assert_eq!(shard.gather().unwrap().to_vec2::<f32>().unwrap(), whole.to_vec2::<f32>().unwrap());
        let error = Shard::new(&Tensor::zeros((), DType::F32, &Device::Cpu).unwrap(), &Ranks::alone());
        assert!(error.err().unwrap().to_string().contains("no rows"));
    }
}
