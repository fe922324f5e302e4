//! From tensors to slices and back, and loops over rows: what every block with a kernel of its own shares.
//!
//! Kernels compute in f32 or f64. Tensors in bf16 and f16 are widened on the way in and rounded on the way out.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::simd::Real;

/// Calls `f` with the values of a tensor on the CPU.
pub(crate) fn with_values<T: Real, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a contiguous tensor has one range") };
    match &*storage {
        Storage::Cpu(CpuStorage::BF16(values)) => {
            f(&values[start..end].iter().map(|x| T::of(x.to_f64())).collect::<Vec<_>>())
        }
        Storage::Cpu(CpuStorage::F16(values)) => {
            f(&values[start..end].iter().map(|x| T::of(x.to_f64())).collect::<Vec<_>>())
        }
        Storage::Cpu(cpu) => f(&T::cpu_storage_as_slice(cpu)?[start..end]),
        _ => bail!("this block has no kernel for {:?}", tensor.device()),
    }
}

/// Calls `f` with the values of a tensor on the CPU, to be changed. They must be of type `T`.
pub(crate) fn with_values_mut<T: Real, R>(tensor: &Tensor, f: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    // candle hands out a tensor's memory for writing only through an operation.
    struct InPlace<F>(RefCell<Option<F>>);
    impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for InPlace<F> {
        fn name(&self) -> &'static str {
            "in-place"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            self.0.take().expect("an operation runs once")(storage, layout)
        }
    }
    let mut result = None;
    let run = |storage: &mut CpuStorage, layout: &Layout| {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("only contiguous tensors change in place") };
        let Some(values) = T::values_mut(storage) else { bail!("values of {:?} expected", T::DTYPE) };
        result = Some(f(&mut values[start..end]));
        Ok(())
    };
    tensor.inplace_op1(&InPlace(RefCell::new(Some(run))))?;
    Ok(result.expect("the operation ran"))
}

/// The result of a kernel as a tensor, in the dtype of `like`.
pub(super) fn tensor<T: Real>(values: Vec<T>, shape: &Shape, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, shape, like.device())?.to_dtype(like.dtype())
}

/// The length of the last dimension and the number of rows of it.
pub(super) fn rows_of(shape: &Shape) -> (usize, usize) {
    let width = shape.dims().last().copied().unwrap_or(1);
    (shape.elem_count() / width.max(1), width)
}

/// Runs `$body` with the type `$T` in which a dtype is computed.
macro_rules! for_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 | candle_core::DType::BF16 | candle_core::DType::F16 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("this block works in f32, f64, bf16 and f16, not in {other:?}"),
        }
    };
}
pub(super) use for_dtype;

/// The dtype in which gradients of weights are summed.
pub(crate) fn sum_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The number of values in a piece of work: it fits the first-level cache. A constant, so that sums over
/// pieces have the same bits for any number of threads.
const PIECE: usize = 1 << 13;

/// Rows in a piece of work.
fn rows_in_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// A vector of `rows · width` values that `f(first row, values)` writes piece by piece, over all threads of the
/// pool, and what `f` returned, in the order of the pieces. The values are zero when `f` gets them.
pub(super) fn fill_rows<T: Real, R: Send>(
    rows: usize,
    width: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let mut values = Vec::with_capacity(rows * width);
    let step = rows_in_piece(width);
    let write = |(piece, memory): (usize, &mut [MaybeUninit<T>])| {
        memory.fill(MaybeUninit::new(T::ZERO));
        // SAFETY: every element was written in the line above, and the two types have one layout.
        f(piece * step, unsafe { &mut *(std::ptr::from_mut(memory) as *mut [T]) })
    };
    let memory = &mut values.spare_capacity_mut()[..rows * width];
    let results = if rows <= step || rayon::current_num_threads() == 1 {
        memory.chunks_mut(step * width.max(1)).enumerate().map(write).collect()
    } else {
        memory.par_chunks_mut(step * width.max(1)).enumerate().map(write).collect()
    };
    // SAFETY: the pieces cover the whole range, and `write` initialised each of them.
    unsafe { values.set_len(rows * width) };
    (values, results)
}

/// Calls `f(first row, rows of x)` for every piece, over all threads, and returns the results in order.
pub(super) fn over_rows<T: Real, R: Send>(x: &[T], width: usize, f: impl Fn(usize, &[T]) -> R + Sync) -> Vec<R> {
    let step = rows_in_piece(width);
    let call = |(piece, rows): (usize, &[T])| f(piece * step, rows);
    if x.len() <= step * width || rayon::current_num_threads() == 1 {
        x.chunks(step * width.max(1)).enumerate().map(call).collect()
    } else {
        x.par_chunks(step * width.max(1)).enumerate().map(call).collect()
    }
}

/// The sums, place by place, of vectors of `width` values, in their order.
pub(super) fn sum_in_order<T: Real>(parts: impl IntoIterator<Item = Vec<T>>, width: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; width];
    for part in parts {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x;
        }
    }
    sums
}
