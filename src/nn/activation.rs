//! The gated and ungated activations of the feed-forward blocks and the heads.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, rows_of, sum_in_order, tensor, with_values};
use super::{Linear, Traced, Weight};
use crate::simd::{self, Real};

/// What stands between two linear maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0), with the slope 0 at 0.
    Relu,
    Tanh,
    #[serde(untagged)]
    Gelu(Gelu),
}

/// The Gaussian error linear unit x·Φ(x). Hendrycks, Gimpel 2016, arXiv:1606.08415.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gelu {
    /// By the tanh of a cubic, as GPT-2 has it. `gelu_fast` truncates a constant at its tenth digit: the same in f32.
    #[default]
    #[serde(
        rename = "gelu_new",
        alias = "gelu_pytorch_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate",
        alias = "gelu_python_tanh"
    )]
    Tanh,
    /// By the error function.
    #[serde(rename = "gelu", alias = "gelu_python")]
    Erf,
}

/// The activation of every value of `x`, `[.., C]`.
pub fn activate(x: &Traced, activation: Activation) -> Result<Traced> {
    let value = x.tensor();
    match activation {
        Activation::Relu => {
            // A product, so that what is not a number stays so.
            let slope = value.gt(0.0)?.to_dtype(value.dtype())?;
            Ok(Traced::record((value * &slope)?, &[x], move |grad| Ok(vec![Some((grad * &slope)?)])))
        }
        Activation::Tanh => {
            let y = value.tanh()?;
            let saved = y.clone();
            Ok(Traced::record(y, &[x], move |grad| Ok(vec![Some((grad * saved.sqr()?.affine(-1.0, 1.0)?)?)])))
        }
        Activation::Gelu(gelu) => {
            let zero = Tensor::zeros(rows_of(value.shape()).1, value.dtype(), value.device())?;
            bias_gelu(x, &Weight::frozen(zero), gelu)
        }
    }
}

/// The activation of what a linear map gives; GELU in one pass with the bias.
pub fn activated(linear: &Linear, x: &Traced, activation: Activation) -> Result<Traced> {
    match activation {
        Activation::Gelu(gelu) => linear.forward_gelu(x, gelu),
        other => activate(&linear.forward(x)?, other),
    }
}

/// GELU of `x + bias`: `x` is `[.., C]`, `bias` is `[C]`.
pub fn bias_gelu(x: &Traced, bias: &Weight, gelu: Gelu) -> Result<Traced> {
    let (value, b) = (x.tensor(), bias.value());
    let (rows, width) = rows_of(value.shape());
    if width != b.elem_count() {
        bail!("bias {:?} does not fit {:?}", b.shape(), value.shape())
    }
    on_gpu!(x.tensor(), cuda::bias_gelu(x, bias, gelu));
    let y = for_dtype!(value.dtype(), T => with_values::<T, _>(value, |x| with_values::<T, _>(b, |b| {
        let (y, _) = fill_rows(rows, width, |first, y: &mut [T]| match gelu {
            Gelu::Tanh => values(&x[first * width..], b, y, tanh_form),
            Gelu::Erf => values(&x[first * width..], b, y, erf_form),
        });
        tensor(y, value.shape(), value)
    })))?;
    let (saved, bias) = (value.clone(), bias.clone());
    Ok(Traced::record(y, &[x], move |grad| Ok(vec![Some(gelu_backward(&saved, &bias, grad, gelu)?)])))
}

/// `silu(gate) * up`, both `[.., C]`. Shazeer 2020, arXiv:2002.05202.
pub fn swiglu(gate: &Traced, up: &Traced) -> Result<Traced> {
    let (a, b) = (gate.tensor(), up.tensor());
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        bail!("gate {:?} and up {:?} differ", a.shape(), b.shape())
    }
    on_gpu!(gate.tensor(), cuda::swiglu(gate, up));
    let (rows, width) = rows_of(a.shape());
    let y = for_dtype!(a.dtype(), T => with_values::<T, _>(a, |gate| with_values::<T, _>(b, |up| {
        let (y, _) = fill_rows(rows, width, |first, y: &mut [T]| swiglu_rows(&gate[first * width..], &up[first * width..], y));
        tensor(y, a.shape(), a)
    })))?;
    let (a, b) = (a.clone(), b.clone());
    Ok(Traced::record(y, &[gate, up], move |grad| {
        let (da, db) = swiglu_backward(&a, &b, grad)?;
        Ok(vec![Some(da), Some(db)])
    }))
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// x·(1 + tanh u)/2 is x·σ(2u), with u = sqrt(2/π)(x + 0.044715 x³).
#[inline(always)]
fn tanh_form<T: Real>(x: T) -> (T, T) {
    let s = sigmoid(T::of(2.0 * SQRT_2_OVER_PI) * x * (T::ONE + T::of(CUBIC) * x * x));
    let argument_slope = T::of(2.0 * SQRT_2_OVER_PI) * (T::ONE + T::of(3.0 * CUBIC) * x * x);
    (x * s, s + x * s * (T::ONE - s) * argument_slope)
}

#[inline(always)]
fn erf_form<T: Real>(x: T) -> (T, T) {
    let half = T::of(0.5);
    let cdf = half * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
    let density = T::of(0.5 * SQRT_2_OVER_PI) * (-half * x * x).exp();
    (x * cdf, cdf + x * density)
}

fn values<T: Real>(x: &[T], bias: &[T], y: &mut [T], form: impl Fn(T) -> (T, T)) {
    simd::dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
                for ((y, &x), &b) in y.iter_mut().zip(x).zip(bias) {
                    *y = form(x + b).0;
                }
            }
        },
    );
}

fn gelu_backward(x: &Tensor, bias: &Weight, grad: &Tensor, gelu: Gelu) -> Result<Tensor> {
    let (rows, width) = rows_of(x.shape());
    for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(bias.value(), |bs| {
        with_values::<T, _>(grad, |gs| {
            let (dx, db) = fill_rows(rows, width, |first, dx: &mut [T]| {
                let at = first * width;
                match gelu {
                    Gelu::Tanh => slopes(&xs[at..], bs, &gs[at..], dx, tanh_form),
                    Gelu::Erf => slopes(&xs[at..], bs, &gs[at..], dx, erf_form),
                }
            });
            if bias.is_trained() {
                bias.add_values(sum_in_order(db, width))?;
            }
            tensor(dx, x.shape(), x)
        })
    })))
}

/// Writes the gradient of x, returns that of the bias.
fn slopes<T: Real>(x: &[T], bias: &[T], grad: &[T], dx: &mut [T], form: impl Fn(T) -> (T, T)) -> Vec<T> {
    let width = bias.len();
    let mut db = vec![T::ZERO; width];
    simd::dispatch(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for ((x, g), dx) in rows {
                // Lengths that the compiler can see keep bounds checks out of the loop.
                let (x, g, bias) = (&x[..width], &g[..width], &bias[..width]);
                let (dx, db) = (&mut dx[..width], &mut db[..width]);
                for i in 0..width {
                    let slope = g[i] * form(x[i] + bias[i]).1;
                    dx[i] = slope;
                    db[i] += slope;
                }
            }
        },
    );
    db
}

fn swiglu_rows<T: Real>(gate: &[T], up: &[T], y: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate * sigmoid(gate) * up;
            }
        },
    );
}

fn swiglu_backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, width) = rows_of(gate.shape());
    for_dtype!(gate.dtype(), T => with_values::<T, _>(gate, |gates| with_values::<T, _>(up, |ups| {
        with_values::<T, _>(grad, |gs| {
            let (dgate, dup) = fill_rows(rows, width, |first, dgate: &mut [T]| {
                let at = first * width..first * width + dgate.len();
                let mut dup = vec![T::ZERO; dgate.len()];
                swiglu_slopes(&gates[at.clone()], &ups[at.clone()], &gs[at], dgate, &mut dup);
                dup
            });
            Ok((tensor(dgate, gate.shape(), gate)?, tensor(dup.concat(), up.shape(), up)?))
        })
    })))
}

fn swiglu_slopes<T: Real>(gate: &[T], up: &[T], grad: &[T], dgate: &mut [T], dup: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            let outputs = dgate.iter_mut().zip(dup);
            for ((dgate, dup), ((&gate, &up), &g)) in outputs.zip(gate.iter().zip(up).zip(grad)) {
                let s = sigmoid(gate);
                *dgate = g * up * s * (T::ONE + gate * (T::ONE - s));
                *dup = g * gate * s;
            }
        },
    );
}
