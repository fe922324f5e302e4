//! Embeddings: rows of tables, looked up and summed.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor, Var, bail,
};

use super::cuda::on_gpu;
use super::kernel::{for_dtype, with_values};
use super::{Linear, Traced, Weight, block};
use crate::simd::Real;

/// A table of vectors `[V, C]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Weight,
}

impl Embedding {
    pub fn new(table: Weight) -> Result<Self> {
        table.value().dims2()?;
        Ok(Self { table })
    }

    /// The linear map `[.., C]` to `[.., V]` with the same weight: a tied output head.
    pub fn head(&self) -> Linear {
        Linear::new(self.table.clone(), None)
    }

    pub fn device(&self) -> &Device {
        self.table.value().device()
    }

    /// The precision of the table.
    pub fn dtype(&self) -> DType {
        self.table.value().dtype()
    }

    /// The rows `first .. first + count` as a value inside a block. `beside` is any value of that block: wherever a
    /// gradient is asked for of it, the table gets its own.
    pub fn rows(&self, first: usize, count: usize, beside: &Traced) -> Result<Traced> {
        let rows = self.table.value().narrow(0, first, count)?.contiguous()?;
        let ids = Tensor::arange(first as u32, (first + count) as u32, rows.device())?;
        let table = self.table.clone();
        Ok(Traced::record(rows, &[beside], move |grad| {
            add_table_gradient(&table, &ids, grad)?;
            Ok(vec![None])
        }))
    }

    fn width(&self) -> Result<usize> {
        Ok(self.table.value().dims2()?.1)
    }
}

/// The sum over tables of the rows that their ids name: each `[V, C]` with ids `[..]` (u32), all of one shape;
/// `[.., C]`. This is where a network begins: with `trained`, candle's graph goes on from the result even if
/// none of these tables is trained, so that what comes after it can be.
pub fn embed(tables: &[(&Embedding, &Tensor)], trained: bool) -> Result<Tensor> {
    let Some(((first, ids), rest)) = tables.split_first() else { bail!("an embedding needs a table") };
    let mut dims = ids.dims().to_vec();
    dims.push(first.width()?);
    let rows = |table: &Embedding, ids: &Tensor| table.table.value().index_select(&ids.flatten_all()?, 0);
    let mut sum = rows(first, ids)?;
    for (table, ids) in rest {
        sum = (sum + rows(table, ids)?)?;
    }
    let sum = sum.reshape(dims)?;
    if !trained {
        return Ok(sum);
    }
    let tables = tables.iter().map(|&(table, ids)| Ok((table.table.clone(), ids.flatten_all()?)));
    // Ids have no gradient, and candle remembers only what a variable went into.
    let anchor = Var::zeros((), DType::F32, sum.device())?;
    anchor.apply_op1(Embed { sum, tables: tables.collect::<Result<_>>()? })
}

/// The rows of `x` `[R, C]` that the ids (u32 `[N]`) name: `[N, C]`.
pub fn select_rows(x: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let ids = ids.to_device(x.device())?;
    block(x, false, move |x| rows_at(x, &ids))
}

/// The same inside a block; the ids are where `x` is.
pub(super) fn rows_at(x: &Traced, ids: &Tensor) -> Result<Traced> {
    let (shape, ids) = (x.tensor().shape().clone(), ids.clone());
    let y = x.tensor().index_select(&ids, 0)?;
    Ok(Traced::record(y, &[x], move |grad| Ok(vec![Some(scatter_rows(&shape, &ids, grad)?)])))
}

/// Zeros, with every row of `grad` added to the one that its id names.
fn scatter_rows(shape: &Shape, ids: &Tensor, grad: &Tensor) -> Result<Tensor> {
    on_gpu!(grad, cuda::scatter_rows(shape, ids, grad));
    Tensor::zeros(shape, grad.dtype(), grad.device())?.index_add(ids, grad, 0)
}

struct Embed {
    sum: Tensor,
    tables: Vec<(Weight, Tensor)>,
}

impl Embed {
    fn value(&self) -> Result<(Storage, Shape)> {
        let (storage, layout) = self.sum.storage_and_layout();
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }
}

impl CustomOp1 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.value()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("an embedding's table lies on another device"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.value()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("an embedding's table lies on another device"),
        }
    }

    fn bwd(&self, _anchor: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        for (table, ids) in &self.tables {
            add_table_gradient(table, ids, grad)?;
        }
        Ok(None)
    }
}

/// Adds every row of `grad` to the row of the table that it came from.
fn add_table_gradient(table: &Weight, ids: &Tensor, grad: &Tensor) -> Result<()> {
    if !table.is_trained() {
        return Ok(());
    }
    on_gpu!(grad, cuda::add_table_gradient(table, ids, grad));
    let width = table.value().dims2()?.1;
    let ids = ids.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
    for_dtype!(grad.dtype(), T => with_values::<T, _>(grad, |grad| {
        table.add_in_place(|sum: &mut [T]| add_rows(sum, &ids, grad, width))
    }))
}

fn add_rows<T: Real>(sum: &mut [T], ids: &[u32], grad: &[T], width: usize) {
    for (&id, row) in ids.iter().zip(grad.chunks_exact(width)) {
        for (sum, &g) in sum[id as usize * width..][..width].iter_mut().zip(row) {
            *sum += g;
        }
    }
}
