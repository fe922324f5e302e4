//! GELU, SwiGLU, rotary positions.

use candle_core::{Result, Tensor, bail};

use super::launch::{Arg, empty, launch, threads_for};
use super::same_dtype;
use super::sums::add_bias_gradient;
use crate::nn::kernel::rows_of;
use crate::nn::{Gelu, Heads, Traced, Weight};

/// GELU of `x + bias`.
pub fn bias_gelu(x: &Traced, bias: &Weight, gelu: Gelu) -> Result<Traced> {
    let value = x.tensor().contiguous()?;
    let form = [usize::from(gelu == Gelu::Erf)];
    let [y] = by_rows("bias_gelu", &[&value, bias.value()], &form)?;
    let bias = bias.clone();
    Ok(Traced::record(y, &[x], move |grad| {
        let [dx] = by_rows("bias_gelu_backward", &[&value, bias.value(), &grad.contiguous()?], &form)?;
        add_bias_gradient(&bias, &dx)?;
        Ok(vec![Some(dx)])
    }))
}

/// `silu(gate) * up`.
pub fn swiglu(gate: &Traced, up: &Traced) -> Result<Traced> {
    let (a, b) = (gate.tensor().contiguous()?, up.tensor().contiguous()?);
    let [y] = by_rows("swiglu", &[&a, &b], &[])?;
    Ok(Traced::record(y, &[gate, up], move |grad| {
        let [da, db] = by_rows("swiglu_backward", &[&a, &b, &grad.contiguous()?], &[])?;
        Ok(vec![Some(da), Some(db)])
    }))
}

/// Runs a kernel with a block for every row of the first input; the outputs have its shape.
fn by_rows<const N: usize>(name: &str, inputs: &[&Tensor], numbers: &[usize]) -> Result<[Tensor; N]> {
    same_dtype(inputs)?;
    let like = inputs[0];
    let (rows, width) = rows_of(like.shape());
    let outputs: Vec<Tensor> =
        (0..N).map(|_| empty(like.shape(), like.dtype(), like.device())).collect::<Result<_>>()?;
    let mut args: Vec<Arg> = inputs.iter().copied().chain(&outputs).map(Arg::Tensor).collect();
    args.push(Arg::Int(width));
    args.extend(numbers.iter().map(|&n| Arg::Int(n)));
    launch(name, like.dtype(), like.device(), [rows, threads_for(width)], &args)?;
    Ok(outputs.try_into().expect("as many outputs as were made"))
}

/// Turns the queries and keys of packed `[B, T, ..]` by the angles of their positions, or back with sign −1; row b's
/// first position is `starts[b]`. `angles` holds cosines and sines, `[2, positions, pairs]` in f32.
pub fn rope(x: &Tensor, heads: Heads, starts: &[usize], angles: &Tensor, sign: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, time) = heads.check(x.shape())?;
    let (_, positions, pairs) = angles.dims3()?;
    let starts = numbers(starts, &x)?;
    let y = empty(x.shape(), x.dtype(), x.device())?;
    let [query, kv, dim, interleaved] = in_numbers(heads);
    let args = [
        Arg::Tensor(&x),
        Arg::Tensor(&y),
        Arg::Tensor(angles),
        Arg::Tensor(&starts),
        Arg::Int(positions),
        Arg::Int(pairs),
        Arg::Int(time),
        query,
        kv,
        dim,
        interleaved,
        Arg::Float(sign),
    ];
    launch("rope", x.dtype(), x.device(), [batch * time, threads_for(heads.packed())], &args)?;
    Ok(y)
}

/// As the kernels' `Heads`.
pub(super) fn in_numbers(heads: Heads) -> [Arg<'static>; 4] {
    let Heads { query, kv, dim, interleaved } = heads;
    [query, kv, dim, usize::from(interleaved)].map(Arg::Int)
}

/// Small numbers on the GPU of `like`.
pub(super) fn numbers(numbers: &[usize], like: &Tensor) -> Result<Tensor> {
    let numbers: Vec<u32> =
        numbers.iter().map(|&n| u32::try_from(n).map_err(candle_core::Error::wrap)).collect::<Result<_>>()?;
    if numbers.is_empty() {
        bail!("an empty batch")
    }
    Tensor::from_slice(&numbers, numbers.len(), like.device())
}
