//! Matrix products with what belongs to them: bias and embedding.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, backend::BackendStorage};

use super::kernel::{for_dtype, output, rows_of, slice, with_values};
use crate::simd::{self, Real};

/// A linear map. The weight is `[out, in]` as torch's `Linear` has it, or `[in, out]` as GPT-2's
/// `Conv1D` has it: [`Linear::new`] and [`Linear::conv1d`].
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[in, out]`, a view.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// From a weight `[out, in]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Ok(Self { weight: weight.t()?, bias: bias.cloned() })
    }

    /// From a weight `[in, out]`.
    pub fn conv1d(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        Self { weight: weight.clone(), bias: bias.cloned() }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => add_bias(&y, bias),
            None => Ok(y),
        }
    }

    /// The product alone, for a block that adds the bias itself.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, width) = rows_of(x.shape());
        let mut dims = x.dims().to_vec();
        *dims.last_mut().expect("a linear map needs a dimension") = self.weight.dim(1)?;
        x.reshape((rows, width))?.matmul(&self.weight)?.reshape(dims)
    }

    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

/// Rows of `table` `[V, C]` for the ids `[B, T]` (u32): `[B, T, C]`.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut dims = ids.dims().to_vec();
    dims.push(table.dim(1)?);
    table.index_select(&ids.flatten_all()?, 0)?.reshape(dims)
}

/// `x + bias` over the last dimension: `[.., C]` and `[C]`.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(bias, AddBias)
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = rows_of(lx.shape()).1;
        if width != lb.shape().elem_count() {
            candle_core::bail!("bias {:?} does not fit {:?}", lb.shape(), lx.shape())
        }
        for_dtype!(x.dtype(), T => {
            let bias = slice::<T>(b, lb)?;
            let mut y = slice::<T>(x, lx)?.to_vec();
            simd::dispatch(#[inline(always)] || {
                for row in y.chunks_exact_mut(width) {
                    for (y, &b) in row.iter_mut().zip(bias) {
                        *y += b;
                    }
                }
            });
            Ok(output(y, lx.shape()))
        })
    }

    fn bwd(&self, x: &Tensor, b: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let db = for_dtype!(x.dtype(), T => with_values::<T, _>(grad, |g| {
            Tensor::from_vec(column_sums(g, b.elem_count()), b.shape(), x.device())
        }))?;
        Ok((Some(grad.clone()), Some(db)))
    }
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
