//! Layer norm (Ba et al. 2016, arXiv:1607.06450) and RMS norm (Zhang, Sennrich 2019, arXiv:1910.07467).

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::kernel::{for_dtype, output, rows_of, slice, with_values};
use crate::simd::{self, Real};

/// `(x − mean) / sqrt(variance + eps) * weight + bias` over the last dimension.
/// `x` is `[.., C]`; `weight` and `bias` are `[C]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op3(weight, bias, LayerNorm { eps })
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension. `x` is `[.., C]`, `weight` is `[C]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op2(weight, RmsNorm { eps })
}

struct LayerNorm {
    eps: f64,
}

struct RmsNorm {
    eps: f64,
}

/// Mean and 1/sd of a row; with `centred` false the mean counts as zero, which makes it RMS norm.
#[inline(always)]
fn statistics<T: Real>(row: &[T], eps: f64, centred: bool) -> (T, T) {
    let n = T::of(row.len() as f64);
    let mean = if centred { simd::sum(row.len(), |i| row[i]) / n } else { T::ZERO };
    let variance = simd::sum(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / n;
    (mean, T::ONE / (variance + T::of(eps)).sqrt())
}

fn forward<T: Real>(x: &[T], weight: &[T], bias: Option<&[T]>, width: usize, eps: f64) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    simd::dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                let weight = &weight[..width];
                let (mean, inverse_sd) = statistics(x, eps, bias.is_some());
                match bias {
                    Some(bias) => {
                        let bias = &bias[..width];
                        for i in 0..width {
                            y[i] = (x[i] - mean) * inverse_sd * weight[i] + bias[i];
                        }
                    }
                    None => {
                        for i in 0..width {
                            y[i] = x[i] * inverse_sd * weight[i];
                        }
                    }
                }
            }
        },
    );
    y
}

/// The gradients of x, weight and bias.
fn backward<T: Real>(x: &[T], weight: &[T], grad: &[T], eps: f64, centred: bool) -> (Vec<T>, Vec<T>, Vec<T>) {
    let width = weight.len();
    let mut dx = vec![T::ZERO; x.len()];
    let mut dw = vec![T::ZERO; width];
    let mut db = vec![T::ZERO; width];
    simd::dispatch(
        #[inline(always)]
        || {
            let n = T::of(width as f64);
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for ((x, g), dx) in rows {
                let (dw, db) = (&mut dw[..width], &mut db[..width]);
                let weight = &weight[..width];
                let (mean, inverse_sd) = statistics(x, eps, centred);
                let normal = |i: usize| (x[i] - mean) * inverse_sd;
                let along = simd::sum(width, |i| g[i] * weight[i] * normal(i)) / n;
                let level = if centred { simd::sum(width, |i| g[i] * weight[i]) / n } else { T::ZERO };
                for i in 0..width {
                    let normal = (x[i] - mean) * inverse_sd;
                    dw[i] += g[i] * normal;
                    db[i] += g[i];
                    dx[i] = (g[i] * weight[i] - level - normal * along) * inverse_sd;
                }
            }
        },
    );
    (dx, dw, db)
}

fn gradients(x: &Tensor, weight: &Tensor, grad: &Tensor, eps: f64, centred: bool) -> Result<(Tensor, Tensor, Tensor)> {
    for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| {
        with_values::<T, _>(weight, |ws| {
            with_values::<T, _>(grad, |gs| {
                let (dx, dw, db) = backward(xs, ws, gs, eps, centred);
                Ok((
                    Tensor::from_vec(dx, x.shape(), x.device())?,
                    Tensor::from_vec(dw, weight.shape(), x.device())?,
                    Tensor::from_vec(db, weight.shape(), x.device())?,
                ))
            })
        })
    }))
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        for_dtype!(x.dtype(), T => {
            let y = forward::<T>(slice(x, lx)?, slice(w, lw)?, Some(slice(b, lb)?), rows_of(lx.shape()).1, self.eps);
            Ok(output(y, lx.shape()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, db) = gradients(x, w, grad, self.eps, true)?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        for_dtype!(x.dtype(), T => {
            let y = forward::<T>(slice(x, lx)?, slice(w, lw)?, None, rows_of(lx.shape()).1, self.eps);
            Ok(output(y, lx.shape()))
        })
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = gradients(x, w, grad, self.eps, false)?;
        Ok((Some(dx), Some(dw)))
    }
}
