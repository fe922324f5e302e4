//! From candle's storage to slices and back: what every block with a kernel of its own shares.

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

use crate::simd::Real;

/// The values of a contiguous CPU storage.
pub(super) fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a fused block needs contiguous tensors; call contiguous() first")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `f` with the values of a tensor on the CPU.
pub(super) fn with_values<T: Real, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(slice(cpu, layout)?),
        _ => bail!("this block has no kernel for {:?}", tensor.device()),
    }
}

/// Wraps the result of a kernel.
pub(super) fn output<T: Real>(values: Vec<T>, shape: &Shape) -> (CpuStorage, Shape) {
    (T::to_cpu_storage_owned(values), shape.clone())
}

/// The length of the last dimension and the number of rows of it.
pub(super) fn rows_of(shape: &Shape) -> (usize, usize) {
    let width = shape.dims().last().copied().unwrap_or(1);
    (shape.elem_count() / width.max(1), width)
}

/// Runs `$body` with the type `$T` of a floating-point dtype.
macro_rules! for_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("this block works in f32 and f64, not in {other:?}"),
        }
    };
}
pub(super) use for_dtype;

/// Both dtypes of a binary block must agree.
pub(super) fn same_dtype(a: DType, b: DType) -> Result<()> {
    if a != b {
        bail!("dtypes differ: {a:?} and {b:?}")
    }
    Ok(())
}
