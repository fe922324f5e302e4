//! How a batch is laid out over a GPU.

use anyhow::{Context, Result, ensure};
use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute as Attribute;

use crate::nvrtc;

/// Bytes of shared memory that are not the cache; `BEFORE_THE_CACHE` in `sweep.cu`.
const BEFORE_THE_CACHE: usize = 4096;

/// A multiprocessor keeps so many bytes of its shared memory back for every block.
const KEPT_BACK: usize = 1024;

/// Shorter rows are one block's.
const SHARED: usize = 8192;

/// Blocks and threads of one launch. The numbers that come out do not depend on it beyond rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks that share a row: 1, or 2, 4 or 8 where the GPU has clusters of blocks (compute capability 9.0).
    pub cluster: usize,
    /// Threads of a block: a multiple of 32, at most 1,024, or 512 where rows are not cached.
    pub threads: u32,
    /// Whether a row stays in shared memory; it is read again from the GPU's memory for every sweep if not.
    pub cached: bool,
}

/// What the choice of a launch depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gpu {
    pub capability: (i32, i32),
    pub multiprocessors: usize,
    /// Bytes of shared memory of a block and of a multiprocessor.
    pub block: usize,
    pub multiprocessor: usize,
}

impl Gpu {
    pub fn of(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let number = |attribute: Attribute| -> Result<usize> {
            Ok(context.attribute(attribute).context("the GPU does not say what it has")? as usize)
        };
        Ok(Self {
            capability: nvrtc::capability(device)?,
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            block: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessor: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        })
    }

    /// Two blocks on a multiprocessor: one sums where the other waits.
    fn half(&self) -> usize {
        (self.multiprocessor / 2).saturating_sub(KEPT_BACK).min(self.block)
    }
}

impl Launch {
    /// The launch for so many rows: enough blocks for all multiprocessors, and rows in shared memory where they fit.
    pub(super) fn for_rows(rows: usize, vocabulary: usize, gpu: &Gpu) -> Self {
        let shared = |cluster: usize| Launch { cluster, threads: 0, cached: true }.shared_bytes(vocabulary);
        let cluster = match vocabulary {
            _ if gpu.capability.0 < 9 || vocabulary <= SHARED => 1,
            _ if 8 * rows <= gpu.multiprocessors || shared(4) > gpu.half() => 8,
            _ => 4,
        };
        let cached = shared(cluster) <= gpu.block;
        let alone = rows * cluster <= gpu.multiprocessors || shared(cluster) > gpu.half();
        let threads = match vocabulary.div_ceil(cluster) {
            ..=1024 => 128,
            1025..=4096 => 256,
            _ if alone && cached => 1024,
            _ => 512,
        };
        Self { cluster, threads, cached }
    }

    pub(super) fn check(&self, gpu: &Gpu) -> Result<()> {
        let most = if self.cached { 1024 } else { 512 };
        ensure!(
            self.threads.is_multiple_of(32) && (32..=most).contains(&self.threads),
            "{} threads are not a multiple of 32 from 32 to {most}",
            self.threads
        );
        let has_clusters = gpu.capability.0 >= 9;
        ensure!(
            self.cluster == 1 || (has_clusters && [2, 4, 8].contains(&self.cluster)),
            "{} blocks cannot share a row at compute capability {}.{}",
            self.cluster,
            gpu.capability.0,
            gpu.capability.1
        );
        Ok(())
    }

    /// Bytes of shared memory of a block.
    pub(super) fn shared_bytes(&self, vocabulary: usize) -> usize {
        // A row that begins within four outcomes touches one more.
        let fours = (vocabulary + 6) / 4;
        BEFORE_THE_CACHE + if self.cached { 32 * fours.div_ceil(self.cluster) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Gpu = Gpu { capability: (9, 0), multiprocessors: 132, block: 232_448, multiprocessor: 233_472 };
    const A100: Gpu = Gpu { capability: (8, 0), multiprocessors: 108, block: 166_912, multiprocessor: 167_936 };

    #[test]
    fn rows_are_cached_where_they_fit() {
        let launch = |rows, vocabulary, gpu| Launch::for_rows(rows, vocabulary, gpu);
        assert_eq!(launch(32, 50_257, &H100), Launch { cluster: 4, threads: 1024, cached: true });
        assert_eq!(launch(1_024, 50_257, &H100), Launch { cluster: 4, threads: 512, cached: true });
        assert_eq!(launch(8, 50_257, &H100), Launch { cluster: 8, threads: 1024, cached: true });
        assert_eq!(launch(1_024, 128_256, &H100), Launch { cluster: 8, threads: 1024, cached: true });
        assert_eq!(launch(1_024, 256_000, &H100), Launch { cluster: 8, threads: 512, cached: false });
        assert_eq!(launch(4, 2, &H100), Launch { cluster: 1, threads: 128, cached: true });
        assert_eq!(launch(32, 50_257, &A100), Launch { cluster: 1, threads: 512, cached: false });
        assert_eq!(launch(32, 8_000, &A100), Launch { cluster: 1, threads: 1024, cached: true });
        // Two blocks of the batch that the bars are set for share a multiprocessor.
        assert!(2 * (launch(1_024, 50_257, &H100).shared_bytes(50_257) + KEPT_BACK) <= H100.multiprocessor);
    }
}
