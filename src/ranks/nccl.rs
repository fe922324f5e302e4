//! Tensors on the ranks' GPUs, over NCCL. MPI tells who is who, and that all are at the same call.

use std::ffi::c_char;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, NcclType};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Shape, Storage, Tensor};

use super::mpi::{Call, Mpi};
use super::part;
use super::tensor::in_candle;

/// Values of a mean that are under way at a time: 16 MiB a rank.
const CHUNK: usize = 1 << 22;

/// This rank's GPU among those of all ranks.
pub(super) struct Gpu {
    communicator: Mutex<Communicator>,
    mpi: Arc<Mpi>,
    device: CudaDevice,
}

struct Communicator(Comm);

// SAFETY: NCCL allows a communicator to be used from any thread, one at a time; the mutex sees to that.
unsafe impl Send for Communicator {}

impl Gpu {
    pub(super) fn new(mpi: &Arc<Mpi>, device: &Device) -> Result<Self> {
        let device = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        // NCCL takes the GPU that is the thread's current one.
        stream.context().bind_to_thread().context("the GPU cannot be used")?;
        let mut id = [0u8; 128];
        if mpi.rank() == 0 {
            id = Id::new().map_err(says).context("NCCL cannot be started")?.internal().map(|byte| byte as u8);
        }
        mpi.broadcast_bytes(&mut id)?;
        let id = Id::uninit(id.map(|byte| byte as c_char));
        let comm = Comm::from_rank(stream, mpi.rank(), mpi.size(), id)
            .map_err(says)
            .context("NCCL cannot connect the GPUs of the ranks (NCCL_DEBUG=WARN makes it say why)")?;
        Ok(Self { communicator: Mutex::new(Communicator(comm)), mpi: mpi.clone(), device: device.clone() })
    }

    /// The mean over the ranks of `values` of a storage of f32.
    pub(super) fn mean(&self, storage: &mut CudaStorage, values: Range<usize>) -> candle_core::Result<()> {
        let size = self.mpi.size();
        let all_values = storage.as_cuda_slice_mut::<f32>()?;
        let communicator = self.meet(Call::Mean, values.len())?;
        let divisor = Tensor::new(size as f64, &Device::Cuda(self.device.clone()))?;
        for start in values.clone().step_by(CHUNK) {
            let chunk = start..values.end.min(start + CHUNK);
            // SAFETY: the gathering writes every value before one is read.
            let mut gathered = unsafe { self.device.alloc::<f32>(size * chunk.len())? };
            communicator
                .0
                .all_gather(&all_values.slice(chunk.clone()), &mut gathered)
                .map_err(says)
                .map_err(in_candle)?;
            let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(gathered, self.device.clone()));
            let gathered = Tensor::from_storage(storage, (size, chunk.len()), BackpropOp::none(), false);
            let mut sum = gathered.get(0)?.to_dtype(DType::F64)?;
            for rank in 1..size {
                sum = (sum + gathered.get(rank)?.to_dtype(DType::F64)?)?;
            }
            let mean = sum.broadcast_div(&divisor)?.to_dtype(DType::F32)?;
            let (mean, _) = mean.storage_and_layout();
            let Storage::Cuda(mean) = &*mean else { candle_core::bail!("the mean has left the GPU") };
            self.device.memcpy_dtod(mean.as_cuda_slice::<f32>()?, &mut all_values.slice_mut(chunk))?;
        }
        Ok(())
    }

    /// Replaces `values` of a storage of f32 by those of rank 0.
    pub(super) fn broadcast(&self, storage: &mut CudaStorage, values: Range<usize>) -> candle_core::Result<()> {
        let all_values = storage.as_cuda_slice_mut::<f32>()?;
        let communicator = self.meet(Call::Broadcast, values.len())?;
        if !values.is_empty() {
            communicator.0.broadcast_in_place(&mut all_values.slice_mut(values), 0).map_err(says).map_err(in_candle)?;
        }
        Ok(())
    }

    /// The rows of all ranks: those of this rank are at `at` of a storage.
    pub(super) fn all_gather_rows(
        &self,
        own: &CudaStorage,
        at: Range<usize>,
        whole: &Shape,
    ) -> candle_core::Result<CudaStorage> {
        match &own.slice {
            CudaStorageSlice::U8(own) => self.rows(own, at, whole),
            CudaStorageSlice::U32(own) => self.rows(own, at, whole),
            CudaStorageSlice::I64(own) => self.rows(own, at, whole),
            CudaStorageSlice::BF16(own) => self.rows(own, at, whole),
            CudaStorageSlice::F16(own) => self.rows(own, at, whole),
            CudaStorageSlice::F32(own) => self.rows(own, at, whole),
            CudaStorageSlice::F64(own) => self.rows(own, at, whole),
            _ => candle_core::bail!("numbers of this type cannot be gathered"),
        }
    }

    fn rows<T: NcclType + CudaDType + DeviceRepr>(
        &self,
        own: &CudaSlice<T>,
        at: Range<usize>,
        whole: &Shape,
    ) -> candle_core::Result<CudaStorage> {
        let row: usize = whole.dims()[1..].iter().product();
        // Before the ranks meet: one without memory must not leave the others in the midst of an exchange.
        // SAFETY: the parts of all ranks, which follow, are the whole.
        let mut all = unsafe { self.device.alloc::<T>(whole.elem_count())? };
        let communicator = self.meet(Call::Rows, whole.elem_count() * size_of::<T>())?;
        // One broadcast a part: they may differ in length, which NCCL's all-gather does not allow.
        for root in 0..self.mpi.size() {
            let rows = part(whole.dims()[0], root, self.mpi.size());
            if rows.len() * row > 0 {
                let own = (root == self.mpi.rank()).then(|| own.slice(at.clone()));
                let mut to = all.slice_mut(rows.start * row..rows.end * row);
                communicator.0.broadcast(own.as_ref(), &mut to, root as i32).map_err(says).map_err(in_candle)?;
            }
        }
        Ok(CudaStorage::wrap_cuda_slice(all, self.device.clone()))
    }

    /// The communicator, once all ranks are at the same call.
    fn meet(&self, call: Call, count: usize) -> candle_core::Result<MutexGuard<'_, Communicator>> {
        self.mpi.meet(call, count, |_, _| Ok(())).map_err(in_candle)?;
        self.device.cuda_stream().context().bind_to_thread().context("the GPU cannot be used").map_err(in_candle)?;
        Ok(self.communicator.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn says(error: NcclError) -> anyhow::Error {
    anyhow::anyhow!("NCCL says {:?}", error.0)
}
