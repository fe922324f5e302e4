//! Layer norm and RMS norm.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::{Arg, empty, launch, threads_for};
use super::same_dtype;
use super::sums::column_sums;
use crate::nn::kernel::rows_of;
use crate::nn::{Traced, Weight};

/// With a bias layer norm, without one RMS norm.
pub fn norm(x: &Traced, weight: &Weight, bias: Option<&Weight>, eps: f64) -> Result<Traced> {
    let value = x.tensor().contiguous()?;
    let (rows, width) = rows_of(value.shape());
    if weight.value().elem_count() != width {
        bail!("a norm of {} values got rows of {width}", weight.value().elem_count())
    }
    same_dtype(&[&value, weight.value(), bias.unwrap_or(weight).value()])?;
    let (dtype, device, grid) = (value.dtype(), value.device().clone(), [rows, threads_for(width)]);
    let y = empty(value.shape(), dtype, &device)?;
    let stats = empty((rows, 2), DType::F32, &device)?;
    let bias_value = bias.map(Weight::value);
    let args = [
        Arg::Tensor(&value),
        Arg::Tensor(weight.value()),
        bias_value.into(),
        Arg::Tensor(&y),
        Arg::Tensor(&stats),
        Arg::Int(width),
        Arg::Float(eps),
    ];
    launch("norm_forward", dtype, &device, grid, &args)?;
    let (weight, bias) = (weight.clone(), bias.cloned());
    Ok(Traced::record(y, &[x], move |grad| {
        Ok(vec![Some(backward(&value, &stats, &weight, bias.as_ref(), &grad.contiguous()?)?)])
    }))
}

/// Adds the gradients of weight and bias, returns that of x.
fn backward(x: &Tensor, stats: &Tensor, weight: &Weight, bias: Option<&Weight>, grad: &Tensor) -> Result<Tensor> {
    same_dtype(&[x, grad])?;
    let (rows, width) = rows_of(x.shape());
    let dx = empty(x.shape(), x.dtype(), x.device())?;
    let args = [
        Arg::Tensor(x),
        Arg::Tensor(weight.value()),
        Arg::Tensor(grad),
        Arg::Tensor(stats),
        Arg::Tensor(&dx),
        Arg::Int(width),
        Arg::Int(usize::from(bias.is_some())),
    ];
    launch("norm_backward", x.dtype(), x.device(), [rows, threads_for(width)], &args)?;
    if weight.is_trained() {
        let (by_normal, plain) = column_sums(Some((x, stats)), grad)?;
        if let Some(by_normal) = by_normal {
            weight.add_gradient(&by_normal)?;
        }
        if let Some(bias) = bias {
            bias.add_gradient(&plain)?;
        }
    }
    Ok(dx)
}
