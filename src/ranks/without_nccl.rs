//! In a build without the feature `nccl` no GPU takes part.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CudaStorage, Device, Result, Shape};

use super::mpi::Mpi;

/// There is no value of this type.
pub(super) enum Gpu {}

impl Gpu {
    pub(super) fn new(_mpi: &Arc<Mpi>, _device: &Device) -> anyhow::Result<Self> {
        anyhow::bail!("several processes with a GPU each need a build with `--features nccl`")
    }

    pub(super) fn mean(&self, _storage: &mut CudaStorage, _values: Range<usize>) -> Result<()> {
        match *self {}
    }

    pub(super) fn broadcast(&self, _storage: &mut CudaStorage, _values: Range<usize>) -> Result<()> {
        match *self {}
    }

    pub(super) fn all_gather_rows(&self, _own: &CudaStorage, _at: Range<usize>, _whole: &Shape) -> Result<CudaStorage> {
        match *self {}
    }
}
