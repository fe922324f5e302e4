//! Layer norm (Ba et al. 2016, arXiv:1607.06450) and RMS norm (Zhang, Sennrich 2019, arXiv:1910.07467).

use candle_core::{Result, Tensor, bail};

use super::cuda::on_gpu;
use super::kernel::{fill_rows, for_dtype, rows_of, sum_in_order, tensor, with_values};
use super::{Traced, Weight};
use crate::simd::{self, Real};

/// `(x − mean) / sqrt(variance + eps) * weight + bias` over the last dimension: `x` is `[.., C]`, weight and bias `[C]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Weight,
    bias: Weight,
    eps: f64,
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension: `x` is `[.., C]`, weight is `[C]`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Weight,
    eps: f64,
}

impl LayerNorm {
    pub fn new(weight: Weight, bias: Weight, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    pub fn forward(&self, x: &Traced) -> Result<Traced> {
        norm(x, &self.weight, Some(&self.bias), self.eps)
    }
}

impl RmsNorm {
    pub fn new(weight: Weight, eps: f64) -> Self {
        Self { weight, eps }
    }

    pub fn forward(&self, x: &Traced) -> Result<Traced> {
        norm(x, &self.weight, None, self.eps)
    }
}

/// With a bias layer norm, without one RMS norm.
fn norm(x: &Traced, weight: &Weight, bias: Option<&Weight>, eps: f64) -> Result<Traced> {
    on_gpu!(x.tensor(), cuda::norm(x, weight, bias, eps));
    let y = forward(x.tensor(), weight.value(), bias.map(Weight::value), eps)?;
    let (saved, weight, bias) = (x.tensor().clone(), weight.clone(), bias.cloned());
    Ok(Traced::record(y, &[x], move |grad| Ok(vec![Some(backward(&saved, &weight, bias.as_ref(), grad, eps)?)])))
}

fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let (rows, width) = rows_of(x.shape());
    if weight.elem_count() != width {
        bail!("a norm of {} values got rows of {width}", weight.elem_count())
    }
    for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(weight, |ws| {
        let run = |bias: Option<&[T]>| {
            let (y, _) = fill_rows(rows, width, |first, y: &mut [T]| forward_rows(&xs[first * width..], ws, bias, y, eps));
            tensor(y, x.shape(), x)
        };
        match bias {
            Some(bias) => with_values::<T, _>(bias, |bias| run(Some(bias))),
            None => run(None),
        }
    })))
}

/// Adds the gradients of weight and bias, returns that of x.
fn backward(x: &Tensor, weight: &Weight, bias: Option<&Weight>, grad: &Tensor, eps: f64) -> Result<Tensor> {
    let (rows, width) = rows_of(x.shape());
    let trained = weight.is_trained();
    for_dtype!(x.dtype(), T => with_values::<T, _>(x, |xs| with_values::<T, _>(weight.value(), |ws| {
        with_values::<T, _>(grad, |gs| {
            let (dx, sums) = fill_rows(rows, width, |first, dx: &mut [T]| {
                let at = first * width;
                backward_rows(&xs[at..], ws, &gs[at..], dx, eps, bias.is_some())
            });
            if trained {
                let (dw, db): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
                weight.add_values(sum_in_order(dw, width))?;
                if let Some(bias) = bias {
                    bias.add_values(sum_in_order(db, width))?;
                }
            }
            tensor(dx, x.shape(), x)
        })
    })))
}

/// Mean and 1/sd of a row; with `centred` false the mean counts as zero, which makes it RMS norm.
#[inline(always)]
fn statistics<T: Real>(row: &[T], eps: f64, centred: bool) -> (T, T) {
    let n = T::of(row.len() as f64);
    let mean = if centred { simd::sum([row], |[x]| x) / n } else { T::ZERO };
    let variance = simd::sum([row], |[x]| (x - mean) * (x - mean)) / n;
    (mean, T::ONE / (variance + T::of(eps)).sqrt())
}

fn forward_rows<T: Real>(x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T], eps: f64) {
    let width = weight.len();
    simd::dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                let (x, y, weight) = (&x[..width], &mut y[..width], &weight[..width]);
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
}

/// Writes the gradients of the rows of x that `dx` has room for; returns those of weight and bias.
fn backward_rows<T: Real>(
    x: &[T],
    weight: &[T],
    grad: &[T],
    dx: &mut [T],
    eps: f64,
    centred: bool,
) -> (Vec<T>, Vec<T>) {
    let width = weight.len();
    let (mut dw, mut db) = (vec![T::ZERO; width], vec![T::ZERO; width]);
    simd::dispatch(
        #[inline(always)]
        || {
            let n = T::of(width as f64);
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for ((x, g), dx) in rows {
                // Lengths that the compiler can see keep bounds checks out of the loops.
                let (x, g, weight) = (&x[..width], &g[..width], &weight[..width]);
                let (dx, dw, db) = (&mut dx[..width], &mut dw[..width], &mut db[..width]);
                let (mean, inverse_sd) = statistics(x, eps, centred);
                let (along, level) = simd::two_sums([x, g, weight], |[x, g, weight]| {
                    let slope = g * weight;
                    (slope * ((x - mean) * inverse_sd), slope)
                });
                let (along, level) = (along / n, if centred { level / n } else { T::ZERO });
                for i in 0..width {
                    let normal = (x[i] - mean) * inverse_sd;
                    dw[i] += g[i] * normal;
                    db[i] += g[i];
                    dx[i] = (g[i] * weight[i] - level - normal * along) * inverse_sd;
                }
            }
        },
    );
    (dw, db)
}
