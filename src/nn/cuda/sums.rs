//! Sums over rows: gradients of biases, norms and tables. Every sum has one order, so its bits are always the same.

use candle_core::{DType, Device, Result, Shape, Tensor};

use super::launch::{Arg, empty, launch, threads_for};
use super::segments::Segments;
use crate::nn::Weight;
use crate::nn::kernel::rows_of;

/// Sums of the rows of `grad`, in f32, the second; and the first, of `grad` times normalised x, where x and its means and
/// 1/sd are given.
pub fn column_sums(x: Option<(&Tensor, &Tensor)>, grad: &Tensor) -> Result<(Option<Tensor>, Tensor)> {
    let (rows, width) = rows_of(grad.shape());
    let (dtype, device) = (grad.dtype(), grad.device());
    let rows_in_part = rows.div_ceil(MOST_PARTS).max(LEAST_ROWS);
    let parts = rows.div_ceil(rows_in_part).max(1);
    let plain = empty((parts, width), DType::F32, device)?;
    let by_normal = x.map(|_| empty((parts, width), DType::F32, device)).transpose()?;
    let args = [
        x.map(|(x, _)| x).into(),
        Arg::Tensor(grad),
        x.map(|(_, stats)| stats).into(),
        by_normal.as_ref().into(),
        Arg::Tensor(&plain),
        Arg::Int(rows),
        Arg::Int(width),
        Arg::Int(rows_in_part),
    ];
    launch("column_sums", dtype, device, [parts * width.div_ceil(32), 256], &args)?;
    let over_parts = |sums: Tensor| -> Result<Tensor> {
        let sum = empty(width, DType::F32, device)?;
        let args = [Arg::Tensor(&sums), Arg::Tensor(&sum), Arg::Int(parts), Arg::Int(width)];
        launch("sum_parts", dtype, device, [width.div_ceil(128), 128], &args)?;
        Ok(sum)
    };
    Ok((by_normal.map(over_parts).transpose()?, over_parts(plain)?))
}

const MOST_PARTS: usize = 64;
const LEAST_ROWS: usize = 32;

/// A bias's gradient: the sum of the rows of the output's.
pub fn add_bias_gradient(bias: &Weight, grad: &Tensor) -> Result<()> {
    if !bias.is_trained() {
        return Ok(());
    }
    bias.add_gradient(&column_sums(None, &grad.contiguous()?)?.1)
}

/// Adds every row of `grad` `[.., C]` to the row of the table that it came from, whose number is in `ids`.
pub fn add_table_gradient(table: &Weight, ids: &Tensor, grad: &Tensor) -> Result<()> {
    match table.sum()? {
        Some(sum) => add_rows(&sum, ids, grad),
        None => Ok(()),
    }
}

/// The gradient of rows that `ids` selected from `[R, C]`: zeros of that shape, with every row of `grad` added to its own.
pub fn scatter_rows(shape: &Shape, ids: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let sum = Tensor::zeros(shape, DType::F32, grad.device())?;
    add_rows(&sum, ids, grad)?;
    sum.to_dtype(grad.dtype())
}

/// Adds row i of `rows` to row ids\[i\] of `to`, which is f32.
fn add_rows(to: &Tensor, ids: &Tensor, rows: &Tensor) -> Result<()> {
    let (rows, width, device) = (rows.contiguous()?, rows_of(rows.shape()).1, rows.device());
    // The ids go to the host and their order comes back.
    let segments = Segments::of(&ids.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<u32>()?);
    let on_gpu = |numbers: &[u32]| Tensor::from_slice(numbers, numbers.len(), device);
    let (order, pieces) = (on_gpu(&segments.order)?, on_gpu(&segments.pieces)?);
    let parts = empty((segments.pieces.len() - 1, width), DType::F32, device)?;
    let args = [Arg::Tensor(&rows), Arg::Tensor(&order), Arg::Tensor(&pieces), Arg::Tensor(&parts), Arg::Int(width)];
    let threads = threads_for(width);
    launch("sum_rows", rows.dtype(), device, [segments.pieces.len() - 1, threads], &args)?;
    let (starts, targets) = (on_gpu(&segments.starts)?, on_gpu(&segments.targets)?);
    let args = [Arg::Tensor(&parts), Arg::Tensor(&starts), Arg::Tensor(&targets), Arg::Tensor(to), Arg::Int(width)];
    launch("add_sums", rows.dtype(), device, [segments.targets.len(), threads], &args)
}
