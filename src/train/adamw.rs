//! AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101), fused and in place, with a state that can be saved.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Gradient;
use crate::nn::{Params, on_gpu, with_values, with_values_mut};
use crate::simd;

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimizer's state: two moments of every variable, in the order of their names, and a master copy in f32 of
/// every variable that is kept in less.
pub struct AdamW {
    config: AdamWConfig,
    steps: u32,
    states: Vec<State>,
}

struct State {
    name: String,
    m: Tensor,
    v: Tensor,
    /// The variable is this, rounded.
    master: Option<Tensor>,
}

impl AdamW {
    pub fn new(params: &Params, config: AdamWConfig) -> Result<Self> {
        let state = |(name, var): (&str, &Var)| -> Result<State> {
            let zeros = || Tensor::zeros(var.shape(), DType::F32, var.device());
            let master = match var.dtype() {
                DType::F32 => None,
                _ => Some(var.as_detached_tensor().to_dtype(DType::F32)?),
            };
            Ok(State { name: name.to_string(), m: zeros()?, v: zeros()?, master })
        };
        Ok(Self { config, steps: 0, states: params.iter().map(state).collect::<Result<_>>()? })
    }

    /// Moves every variable against its gradient.
    pub fn step(&mut self, params: &Params, gradient: &Gradient, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let update = Update {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            decay: (1.0 - learning_rate * weight_decay) as f32,
            rate: (learning_rate / (1.0 - beta1.powi(self.steps as i32))) as f32,
            correction2: (1.0 / (1.0 - beta2.powi(self.steps as i32)).sqrt()) as f32,
            scale: gradient.scale() as f32,
        };
        for (((_, var), grad), state) in params.iter().zip(gradient.values()).zip(&self.states) {
            update.apply(var, grad, state)?;
        }
        Ok(())
    }

    /// The bytes that moments and master copies take.
    pub fn bytes(&self) -> usize {
        self.tensors().map(|(_, tensor)| 4 * tensor.elem_count()).sum()
    }

    /// The state as tensors, to be written beside the variables. They share the state's memory.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state: HashMap<_, _> = self.tensors().map(|(name, tensor)| (name, tensor.clone())).collect();
        state.insert("adamw.steps".into(), Tensor::new(&[self.steps], &Device::Cpu)?);
        Ok(state)
    }

    /// Takes back what [`AdamW::state`] gave.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let get = |name: &str| state.get(name).with_context(|| format!("{name} is missing"));
        for (name, tensor) in self.tensors() {
            let saved = get(&name)?;
            ensure!(
                saved.elem_count() == tensor.elem_count() && saved.dtype() == DType::F32,
                "{name} has {} values of {:?}, not {} of F32",
                saved.elem_count(),
                saved.dtype(),
                tensor.elem_count()
            );
            tensor.slice_set(&saved.reshape(tensor.shape())?.to_device(tensor.device())?, 0, 0)?;
        }
        self.steps = get("adamw.steps")?.to_vec1::<u32>()?[0];
        Ok(())
    }

    fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.states.iter().flat_map(|state| {
            let State { name, m, v, master } = state;
            let master = master.iter().map(move |master| (format!("adamw.master.{name}"), master));
            [(format!("adamw.m.{name}"), m), (format!("adamw.v.{name}"), v)].into_iter().chain(master)
        })
    }
}

#[derive(Clone, Copy)]
struct Update {
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    rate: f32,
    correction2: f32,
    scale: f32,
}

/// Values in a piece of work.
const PIECE: usize = 1 << 14;

impl Update {
    /// Moves a variable in place.
    fn apply(&self, var: &Var, grad: &Tensor, state: &State) -> candle_core::Result<()> {
        on_gpu!(var, cuda::adamw(var, state.master.as_ref(), grad, &state.m, &state.v, self.constants()));
        match &state.master {
            None => self.apply_to_values(var, grad, state),
            Some(master) => {
                self.apply_to_values(master, grad, state)?;
                var.set(&master.to_dtype(var.dtype())?)
            }
        }
    }

    /// In the order in which the GPU's kernel takes them.
    #[cfg(feature = "cuda")]
    fn constants(&self) -> [f32; 7] {
        let Update { beta1, beta2, eps, decay, rate, correction2, scale } = *self;
        [beta1, beta2, eps, decay, rate, correction2, scale]
    }

    fn apply_to_values(&self, w: &Tensor, grad: &Tensor, state: &State) -> candle_core::Result<()> {
        with_values::<f32, _>(grad, |g| {
            with_values_mut(w, |w| {
                with_values_mut(&state.m, |m| {
                    with_values_mut(&state.v, |v| {
                        let pieces = w.par_chunks_mut(PIECE).zip(g.par_chunks(PIECE));
                        let pieces = pieces.zip(m.par_chunks_mut(PIECE)).zip(v.par_chunks_mut(PIECE));
                        pieces.for_each(|(((w, g), m), v)| self.piece(w, g, m, v));
                    })
                })
            })
            .and_then(|inner| inner.and_then(|inner| inner))
        })
    }

    fn piece(&self, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Update { beta1, beta2, eps, decay, rate, correction2, scale } = *self;
        let n = w.len();
        simd::dispatch(
            #[inline(always)]
            || {
                let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
                for i in 0..n {
                    let g = scale * g[i];
                    m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                    v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                    w[i] = decay * w[i] - rate * m[i] / (v[i].sqrt() * correction2 + eps);
                }
            },
        );
    }
}
