//! Linear maps.

use candle_core::{Result, Tensor};

use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, over_rows, rows_of, sum_in_order, tensor, with_values};
use super::matmul::{Matrix, product};
use super::{Gelu, Traced, Weight, bias_gelu, block};
use crate::simd::{self, Real};

/// A linear map with or without a bias.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    layout: Layout,
    bias: Option<Weight>,
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
        Self { weight, layout: Layout::OutIn, bias }
    }

    /// From a weight `[in, out]`.
    pub fn conv1d(weight: Weight, bias: Option<Weight>) -> Self {
        Self { weight, layout: Layout::InOut, bias }
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
        Ok(Traced::record(y, &[x], move |grad| {
            linear.add_gradient(&saved, grad)?;
            Ok(vec![Some(linear.multiply_back(grad)?)])
        }))
    }

    /// The widths of input and output.
    fn widths(&self) -> Result<(usize, usize)> {
        let (rows, cols) = self.weight.value().dims2()?;
        Ok(match self.layout {
            Layout::OutIn => (cols, rows),
            Layout::InOut => (rows, cols),
        })
    }

    pub(super) fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        let (input, output) = self.widths()?;
        self.times(x, input, output, Layout::OutIn)
    }

    pub(super) fn multiply_back(&self, grad: &Tensor) -> Result<Tensor> {
        let (input, output) = self.widths()?;
        self.times(grad, output, input, Layout::InOut)
    }

    /// x times the weight, or its transpose where the weight lies as `transposed` says.
    fn times(&self, x: &Tensor, from: usize, to: usize, transposed: Layout) -> Result<Tensor> {
        let (rows, width) = rows_of(x.shape());
        if width != from {
            candle_core::bail!("a linear map of {from} values got rows of {width}")
        }
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(to);
        let weight = self.weight.value();
        if !x.device().is_cpu() {
            let weight = if self.layout == transposed { weight.t()? } else { weight.clone() };
            return x.reshape((rows, width))?.matmul(&weight)?.reshape(dims);
        }
        for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(weight, |ws| {
            let (a, b) = weight.dims2()?;
            let w = Matrix::new(ws, a, b);
            let w = if self.layout == transposed { w.t() } else { w };
            tensor(product(Matrix::new(xs, rows, width), w), &dims.into(), x)
        })))
    }

    pub(super) fn add_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<()> {
        if !self.weight.is_trained() {
            return Ok(());
        }
        let (rows, input) = rows_of(x.shape());
        let output = rows_of(grad.shape()).1;
        if !x.device().is_cpu() {
            let (x, grad) = (x.reshape((rows, input))?, grad.reshape((rows, output))?);
            return self.weight.add_gradient(&match self.layout {
                Layout::OutIn => grad.t()?.matmul(&x)?,
                Layout::InOut => x.t()?.matmul(&grad)?,
            });
        }
        for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(grad, |gs| {
            let (x, grad) = (Matrix::new(xs, rows, input), Matrix::new(gs, rows, output));
            match self.layout {
                Layout::OutIn => self.weight.add_product(grad.t(), x),
                Layout::InOut => self.weight.add_product(x.t(), grad),
            }
        })))
    }
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
    let (rows, width) = rows_of(grad.shape());
    if !grad.device().is_cpu() {
        return bias.add_gradient(&grad.reshape((rows, width))?.sum(0)?);
    }
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
