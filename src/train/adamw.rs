//! AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101), fused and in place, with a state that can be saved.

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, WithDType};
use serde::{Deserialize, Serialize};

use super::Gradient;
use crate::nn::Params;
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

/// The optimizer's state: two moments of every variable, in the order of their names.
pub struct AdamW {
    config: AdamWConfig,
    steps: u32,
    moments: Vec<(String, Vec<f32>, Vec<f32>)>,
}

impl AdamW {
    pub fn new(params: &Params, config: AdamWConfig) -> Self {
        let zeros = |n: usize| vec![0f32; n];
        let moments =
            params.iter().map(|(name, var)| (name.to_string(), zeros(var.elem_count()), zeros(var.elem_count())));
        Self { config, steps: 0, moments: moments.collect() }
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
        };
        for (((_, var), grad), (_, m, v)) in params.iter().zip(gradient.values()).zip(&mut self.moments) {
            var.inplace_op1(&InPlace { update, state: RefCell::new((grad, m, v)) })?;
        }
        Ok(())
    }

    /// The state as tensors, to be written beside the variables.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        for (name, m, v) in &self.moments {
            state.insert(format!("adamw.m.{name}"), Tensor::from_slice(m, m.len(), &Device::Cpu)?);
            state.insert(format!("adamw.v.{name}"), Tensor::from_slice(v, v.len(), &Device::Cpu)?);
        }
        state.insert("adamw.steps".into(), Tensor::new(&[self.steps], &Device::Cpu)?);
        Ok(state)
    }

    /// Takes back what [`AdamW::state`] gave.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let get = |name: String| state.get(&name).with_context(|| format!("{name} is missing"));
        for (name, m, v) in &mut self.moments {
            for (kind, values) in [("m", m), ("v", v)] {
                let saved = get(format!("adamw.{kind}.{name}"))?.to_vec1::<f32>()?;
                ensure!(
                    saved.len() == values.len(),
                    "adamw.{kind}.{name} has {} values, not {}",
                    saved.len(),
                    values.len()
                );
                *values = saved;
            }
        }
        self.steps = get("adamw.steps".into())?.to_vec1::<u32>()?[0];
        Ok(())
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
}

/// One variable's update. candle hands out the variable's memory only through an operation.
struct InPlace<'a> {
    update: Update,
    state: RefCell<(&'a Vec<f32>, &'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("a variable is contiguous") };
        let CpuStorage::F32(values) = storage else { candle_core::bail!("variables are trained in {:?}", f32::DTYPE) };
        let mut state = self.state.borrow_mut();
        let (grad, m, v) = &mut *state;
        let Update { beta1, beta2, eps, decay, rate, correction2 } = self.update;
        simd::dispatch(
            #[inline(always)]
            || {
                let n = end - start;
                let (w, g, m, v) = (&mut values[start..end], &grad[..n], &mut m[..n], &mut v[..n]);
                for i in 0..n {
                    m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
                    v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i];
                    w[i] = decay * w[i] - rate * m[i] / (v[i].sqrt() * correction2 + eps);
                }
            },
        );
        Ok(())
    }
}
