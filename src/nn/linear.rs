//! Linear maps.

use candle_core::{Result, Tensor};

use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, over_rows, rows_of, sum_in_order, tensor, with_values};
use super::matmul::{Matrix, product};
use super::traced::sum;
use super::{Gelu, Lora, Traced, Weight, bias_gelu, block};
use crate::ranks::Shard;
use crate::simd::{self, Real};

/// A linear map with or without a bias.
#[derive(Debug, Clone)]
pub struct Linear {
    kept: Kept,
    layout: Layout,
    bias: Option<Weight>,
    lora: Option<Lora>,
}

/// The matrix of a linear map.
#[derive(Debug, Clone)]
enum Kept {
    Here(Weight),
    /// Frozen, and spread over the ranks of a training: it is gathered whenever it is needed.
    Spread(Shard),
}

/// How a weight lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[out, in]`, as torch's `Linear` has it.
    OutIn,
    /// `[in, out]`, as GPT-2's `Conv1D` has it.
    InOut,
}

impl Linear {
    /// From a weight `[out, in]`.
    pub fn new(weight: Weight, bias: Option<Weight>) -> Self {
        Self { kept: Kept::Here(weight), layout: Layout::OutIn, bias, lora: None }
    }

    /// From a weight `[in, out]`.
    pub fn conv1d(weight: Weight, bias: Option<Weight>) -> Self {
        Self { kept: Kept::Here(weight), layout: Layout::InOut, bias, lora: None }
    }

    /// From a frozen weight that is spread over ranks, `[in, out]` or `[out, in]`. What it computes is collective.
    pub fn spread(weight: Shard, fan_in_fan_out: bool, bias: Option<Weight>) -> Self {
        let layout = if fan_in_fan_out { Layout::InOut } else { Layout::OutIn };
        Self { kept: Kept::Spread(weight), layout, bias, lora: None }
    }

    /// With an adapter beside the weight.
    pub fn with_lora(self, lora: Lora) -> Self {
        Self { lora: Some(lora), ..self }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Traced) -> Result<Traced> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => add_bias(&y, bias),
            None => Ok(y),
        }
    }

    /// GELU of what [`Linear::forward`] gives, in one pass.
    pub fn forward_gelu(&self, x: &Traced, gelu: Gelu) -> Result<Traced> {
        let Some(bias) = &self.bias else { candle_core::bail!("a linear map before a GELU has a bias") };
        bias_gelu(&self.product(x)?, bias, gelu)
    }

    /// [`Linear::forward`] as one node of candle's graph.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let linear = self.clone();
        block(x, false, move |x| linear.forward(x))
    }

    fn product(&self, x: &Traced) -> Result<Traced> {
        let y = self.multiply(x.tensor())?;
        let (linear, saved) = (self.clone(), x.tensor().clone());
        Ok(Traced::record(y, &[x], move |grad| Ok(vec![Some(linear.go_back(&saved, grad)?)])))
    }

    fn matrix(&self) -> Result<Tensor> {
        match &self.kept {
            Kept::Here(weight) => Ok(weight.value().clone()),
            Kept::Spread(shard) => shard.gather().map_err(|error| candle_core::Error::Msg(format!("{error:#}"))),
        }
    }

    /// The output without the bias.
    pub(super) fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        let y = times(x, &self.matrix()?, self.layout == Layout::OutIn)?;
        match &self.lora {
            Some(lora) => sum(&y, &lora.forward(x)?),
            None => Ok(y),
        }
    }

    /// Adds the gradient of the weight, or of the adapter on it; returns that of x.
    pub(super) fn go_back(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        match (&self.kept, self.layout) {
            (Kept::Here(weight), Layout::OutIn) => add_outer(weight, grad, x)?,
            (Kept::Here(weight), Layout::InOut) => add_outer(weight, x, grad)?,
            (Kept::Spread(_), _) => {}
        }
        let dx = times(grad, &self.matrix()?, self.layout == Layout::InOut)?;
        match &self.lora {
            Some(lora) => sum(&dx, &lora.backward(x, grad)?),
            None => Ok(dx),
        }
    }
}

/// `[.., from]` times a matrix `[from, to]`, or times the transpose of a matrix `[to, from]`.
pub(super) fn times(x: &Tensor, matrix: &Tensor, transposed: bool) -> Result<Tensor> {
    let (rows, width) = rows_of(x.shape());
    let (a, b) = matrix.dims2()?;
    let (from, to) = if transposed { (b, a) } else { (a, b) };
    if width != from {
        candle_core::bail!("a linear map of {from} values got rows of {width}")
    }
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(to);
    if !x.device().is_cpu() {
        let matrix = if transposed { matrix.t()? } else { matrix.clone() };
        return x.reshape((rows, width))?.matmul(&matrix)?.reshape(dims);
    }
    for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(matrix, |ms| {
        let m = Matrix::new(ms, a, b);
        let m = if transposed { m.t() } else { m };
        tensor(product(Matrix::new(xs, rows, width), m), &dims.into(), x)
    })))
}

/// Adds to the gradient of a weight `[n, m]` the sum over rows of the outer products of left `[.., n]` and right `[.., m]`.
pub(super) fn add_outer(weight: &Weight, left: &Tensor, right: &Tensor) -> Result<()> {
    if !weight.is_trained() {
        return Ok(());
    }
    let ((rows, n), m) = (rows_of(left.shape()), rows_of(right.shape()).1);
    if !left.device().is_cpu() {
        return weight.add_gradient(&left.reshape((rows, n))?.t()?.matmul(&right.reshape((rows, m))?)?);
    }
    for_dtype!(left.dtype(), T => with_values::<T, _>(left, |left| with_values::<T, _>(right, |right| {
        weight.add_product(Matrix::new(left, rows, n).t(), Matrix::new(right, rows, m))
    })))
}

/// `x + bias` over the last dimension: `[.., C]` and `[C]`.
pub fn add_bias(x: &Traced, bias: &Weight) -> Result<Traced> {
    let (value, b) = (x.tensor(), bias.value());
    let (rows, width) = rows_of(value.shape());
    if width != b.elem_count() {
        candle_core::bail!("bias {:?} does not fit {:?}", b.shape(), value.shape())
    }
    let y = if value.device().is_cpu() {
        for_dtype!(value.dtype(), T => with_values::<T, _>(value, |x| with_values::<T, _>(b, |b| {
            let (y, _) = fill_rows(rows, width, |first, y: &mut [T]| add_rows(&x[first * width..], b, y));
            tensor(y, value.shape(), value)
        })))?
    } else {
        value.broadcast_add(b)?
    };
    let bias = bias.clone();
    Ok(Traced::record(y, &[x], move |grad| {
        add_bias_gradient(&bias, grad)?;
        Ok(vec![Some(grad.clone())])
    }))
}

fn add_rows<T: Real>(x: &[T], bias: &[T], y: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for (y, x) in y.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                for ((y, &x), &b) in y.iter_mut().zip(x).zip(bias) {
                    *y = x + b;
                }
            }
        },
    );
}

/// A bias's gradient is the sum of the rows of the output's.
fn add_bias_gradient(bias: &Weight, grad: &Tensor) -> Result<()> {
    on_gpu!(grad, cuda::add_bias_gradient(bias, grad));
    if !bias.is_trained() {
        return Ok(());
    }
    let width = rows_of(grad.shape()).1;
    for_dtype!(grad.dtype(), T => with_values::<T, _>(grad, |grad| {
        let parts = over_rows(grad, width, |_, rows| column_sums(rows, width));
        bias.add_values(sum_in_order(parts, width))
    }))
}

fn column_sums<T: Real>(x: &[T], width: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; width];
    simd::dispatch(
        #[inline(always)]
        || {
            for row in x.chunks_exact(width) {
                for (s, &v) in sums.iter_mut().zip(row) {
                    *s += v;
                }
            }
        },
    );
    sums
}
