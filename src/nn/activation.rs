//! The gated and ungated activations of the feed-forward blocks.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, backend::BackendStorage};

use super::kernel::{for_dtype, output, rows_of, same_dtype, slice, with_values};
use crate::simd::{self, Real};

/// GELU in its tanh form, as GPT-2 has it (`gelu_new`), of `x + bias`.
/// `x` is `[.., C]`, `bias` is `[C]`. Hendrycks, Gimpel 2016, arXiv:1606.08415.
pub fn bias_gelu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(bias, BiasGelu)
}

/// `silu(gate) * up`, both `[.., C]`. Shazeer 2020, arXiv:2002.05202.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)
}

struct BiasGelu;
struct SwiGlu;

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// The tanh form is x·σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
#[inline(always)]
fn gelu<T: Real>(x: T) -> T {
    x * sigmoid(gelu_argument(x))
}

#[inline(always)]
fn gelu_argument<T: Real>(x: T) -> T {
    T::of(2.0 * SQRT_2_OVER_PI) * x * (T::ONE + T::of(CUBIC) * x * x)
}

#[inline(always)]
fn gelu_slope<T: Real>(x: T) -> T {
    let s = sigmoid(gelu_argument(x));
    let argument_slope = T::of(2.0 * SQRT_2_OVER_PI) * (T::ONE + T::of(3.0 * CUBIC) * x * x);
    s + x * s * (T::ONE - s) * argument_slope
}

fn gelu_rows<T: Real>(x: &[T], bias: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    let width = bias.len();
    simd::dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                for ((y, &x), &b) in y.iter_mut().zip(x).zip(bias) {
                    *y = gelu(x + b);
                }
            }
        },
    );
    y
}

fn gelu_gradients<T: Real>(x: &[T], bias: &[T], grad: &[T]) -> (Vec<T>, Vec<T>) {
    let width = bias.len();
    let mut dx = vec![T::ZERO; x.len()];
    let mut db = vec![T::ZERO; width];
    simd::dispatch(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for ((x, g), dx) in rows {
                for i in 0..width {
                    let slope = g[i] * gelu_slope(x[i] + bias[i]);
                    dx[i] = slope;
                    db[i] += slope;
                }
            }
        },
    );
    (dx, db)
}

impl CustomOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        same_dtype(x.dtype(), b.dtype())?;
        if rows_of(lx.shape()).1 != lb.shape().elem_count() {
            candle_core::bail!("bias {:?} does not fit {:?}", lb.shape(), lx.shape())
        }
        for_dtype!(x.dtype(), T => Ok(output(gelu_rows::<T>(slice(x, lx)?, slice(b, lb)?), lx.shape())))
    }

    fn bwd(&self, x: &Tensor, b: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| {
            with_values::<T, _>(b, |bs| {
                with_values::<T, _>(grad, |gs| {
                    let (dx, db) = gelu_gradients(xs, bs, gs);
                    let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
                    Ok((Some(dx), Some(Tensor::from_vec(db, b.shape(), x.device())?)))
                })
            })
        }))
    }
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        same_dtype(a.dtype(), b.dtype())?;
        if la.shape() != lb.shape() {
            candle_core::bail!("gate {:?} and up {:?} differ in shape", la.shape(), lb.shape())
        }
        for_dtype!(a.dtype(), T => {
            let (gate, up) = (slice::<T>(a, la)?, slice::<T>(b, lb)?);
            let mut y = vec![0.0 as T; gate.len()];
            simd::dispatch(#[inline(always)] || {
                for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * sigmoid(gate) * up;
                }
            });
            Ok(output(y, la.shape()))
        })
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        for_dtype!(a.dtype(), T => with_values::<T, _>(a, |gate| {
            with_values::<T, _>(b, |up| {
                with_values::<T, _>(grad, |g| {
                    let n = gate.len();
                    let (mut da, mut db) = (vec![0.0 as T; n], vec![0.0 as T; n]);
                    simd::dispatch(#[inline(always)] || {
                        let (up, g, da, db) = (&up[..n], &g[..n], &mut da[..n], &mut db[..n]);
                        for i in 0..n {
                            let s = sigmoid(gate[i]);
                            da[i] = g[i] * up[i] * s * (T::ONE + gate[i] * (T::ONE - s));
                            db[i] = g[i] * gate[i] * s;
                        }
                    });
                    let da = Tensor::from_vec(da, a.shape(), a.device())?;
                    Ok((Some(da), Some(Tensor::from_vec(db, b.shape(), a.device())?)))
                })
            })
        }))
    }
}
