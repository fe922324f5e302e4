//! The variables of a model by name: made, read, written, copied.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::{Conv1d, Dropout, DropoutClock, Embedding, GradientSum, LayerNorm, Linear, Lora, RmsNorm, Weight};
use crate::ranks::Shard;
use crate::seed;

/// Trainable variables by name, in the order of their names. A clone shares the variables.
#[derive(Debug, Clone, Default)]
pub struct Params {
    vars: BTreeMap<String, Variable>,
}

#[derive(Debug, Clone)]
struct Variable {
    var: Var,
    gradient: GradientSum,
}

impl Params {
    /// Copies of the given tensors.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let mut vars = BTreeMap::new();
        for (name, tensor) in tensors {
            vars.insert(name, Variable::new(Var::from_tensor(&tensor.contiguous()?)?));
        }
        Ok(Self { vars })
    }

    /// The tensors by name. They share the variables' memory.
    pub fn tensors(&self) -> HashMap<String, Tensor> {
        self.iter().map(|(name, var)| (name.to_string(), var.as_detached_tensor())).collect()
    }

    /// A copy with memory of its own, in `dtype`.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let tensors: Result<Vec<_>> =
            self.iter().map(|(name, var)| Ok((name.to_string(), var.as_detached_tensor().to_dtype(dtype)?))).collect();
        Self::from_tensors(tensors?)
    }

    /// A copy on a device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let tensors: Result<Vec<_>> = self
            .iter()
            .map(|(name, var)| Ok((name.to_string(), var.as_detached_tensor().to_device(device)?)))
            .collect();
        Self::from_tensors(tensors?)
    }

    /// Overwrites the values of every variable.
    ///
    /// # Errors
    /// A variable that `tensors` lacks or that has another shape there; both are named.
    pub fn assign(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.iter() {
            let Some(tensor) = tensors.get(name) else { bail!("variable {name} is missing") };
            ensure!(
                tensor.shape() == var.shape(),
                "variable {name} has shape {:?}, expected {:?}",
                tensor.shape(),
                var.shape()
            );
            var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, variable)| (name.as_str(), &variable.var))
    }

    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name).map(|variable| &variable.var)
    }

    /// The sum of every variable's gradients, in the order of the names.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, &GradientSum)> {
        self.vars.iter().map(|(name, variable)| (name.as_str(), &variable.gradient))
    }

    /// The number of scalar parameters.
    pub fn count(&self) -> usize {
        self.iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// SHA-256 over names, shapes and values, in hexadecimal: the identity of these weights.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (name, var) in self.iter() {
            hash.update(format!("{name}{:?}", var.shape()));
            for value in var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()? {
                hash.update(value.to_le_bytes());
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What a network is built from; with `trainable`, gradients reach the variables.
    pub fn weights(&self, trainable: bool) -> Weights {
        let weights = self.vars.iter().map(|(name, variable)| {
            let value = variable.var.as_detached_tensor();
            let weight = match trainable {
                true => Weight::trained(value, variable.gradient.clone()),
                false => Weight::frozen(value),
            };
            (name.clone(), weight)
        });
        Weights {
            weights: weights.collect(),
            shards: BTreeMap::new(),
            trained: trainable,
            adapters: None,
            used: RefCell::default(),
            linears: RefCell::default(),
        }
    }

    /// A new variable with values drawn from N(0, sd²); the draw depends on `seed` and on the name alone. It is of the type
    /// and on the device of the variables that are there.
    pub fn add_normal(&mut self, name: &str, shape: &[usize], sd: f32, seed: u64) -> Result<()> {
        let digest = Sha256::digest(name.as_bytes());
        let stream = u64::from_le_bytes(digest[..8].try_into()?);
        let mut rng = seed::rng(seed, seed::Purpose::Initialise, stream, 0);
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                let z: f32 = StandardNormal.sample(&mut rng);
                sd * z
            })
            .collect();
        self.add(name, Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// A new variable with all values equal, likewise.
    pub fn add_constant(&mut self, name: &str, shape: &[usize], value: f32) -> Result<()> {
        let values = vec![value; shape.iter().product()];
        self.add(name, Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// New variables of a linear map as torch has it: `NAME.weight` `[output, input]` from N(0, sd²), `NAME.bias` 0.
    pub fn add_linear(&mut self, name: &str, input: usize, output: usize, sd: f32, seed: u64) -> Result<()> {
        self.add_normal(&format!("{name}.weight"), &[output, input], sd, seed)?;
        self.add_constant(&format!("{name}.bias"), &[output], 0.0)
    }

    /// New variables of a layer norm: `NAME.weight` 1, `NAME.bias` 0.
    pub fn add_layer_norm(&mut self, name: &str, width: usize) -> Result<()> {
        self.add_constant(&format!("{name}.weight"), &[width], 1.0)?;
        self.add_constant(&format!("{name}.bias"), &[width], 0.0)
    }

    fn add(&mut self, name: &str, mut value: Tensor) -> Result<()> {
        if let Some((_, var)) = self.iter().next() {
            value = value.to_dtype(var.dtype())?.to_device(var.device())?;
        }
        self.vars.insert(name.to_string(), Variable::new(Var::from_tensor(&value)?));
        Ok(())
    }
}

impl Variable {
    fn new(var: Var) -> Self {
        Self { var, gradient: GradientSum::default() }
    }
}

/// Named weights while a network is built from them: every one must be asked for.
pub struct Weights {
    weights: BTreeMap<String, Weight>,
    /// Frozen matrices that are spread over ranks.
    shards: BTreeMap<String, Shard>,
    trained: bool,
    adapters: Option<Box<Adapters>>,
    used: RefCell<BTreeSet<String>>,
    linears: RefCell<Vec<LinearShape>>,
}

/// Adapters for the linear maps of a network, under PEFT's names: `NAME.lora_A.weight` and `NAME.lora_B.weight`.
pub struct Adapters {
    pub weights: Weights,
    pub scale: f64,
    /// While training: the share of inputs that is dropped.
    pub dropout: Option<(f64, DropoutClock)>,
}

/// A linear map of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearShape {
    pub name: String,
    pub input: usize,
    pub output: usize,
    /// Whether the weight is stored `[in, out]`, as GPT-2 has it.
    pub fan_in_fan_out: bool,
}

impl Weights {
    /// Whether gradients are asked for.
    pub fn are_trained(&self) -> bool {
        self.trained
    }

    /// The number of values in all weights, adapters included.
    pub fn count(&self) -> usize {
        let own: usize = self.weights.values().map(|weight| weight.shape().elem_count()).sum();
        let spread: usize = self.shards.values().map(|shard| shard.shape().elem_count()).sum();
        own + spread + self.adapters.as_ref().map_or(0, |adapters| adapters.weights.count())
    }

    /// These weights with adapters beside them; gradients are asked for if they are for the adapters.
    pub fn with_adapters(self, adapters: Adapters) -> Self {
        Self { trained: self.trained || adapters.weights.trained, adapters: Some(Box::new(adapters)), ..self }
    }

    /// These weights with others that are spread over ranks: matrices of linear maps.
    pub fn with_shards(self, shards: BTreeMap<String, Shard>) -> Self {
        Self { shards, ..self }
    }

    /// Whether some weights are spread over ranks.
    pub fn are_spread(&self) -> bool {
        !self.shards.is_empty()
    }

    /// The linear maps that were asked for so far. A tied head is not among them.
    pub fn linears(&self) -> Vec<LinearShape> {
        self.linears.borrow().clone()
    }

    /// The weight `name`, which must have the shape `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Weight> {
        let Some(weight) = self.weights.get(name) else { bail!("weight {name} is missing") };
        ensure!(
            weight.value().dims() == shape,
            "weight {name} has shape {:?}, the configuration asks for {shape:?}",
            weight.value().dims()
        );
        self.used.borrow_mut().insert(name.to_string());
        Ok(weight.clone())
    }

    /// A linear map with a weight `[output, input]`, as torch's `Linear` has it: `NAME.weight` and `NAME.bias`.
    pub fn linear(&self, name: &str, input: usize, output: usize, bias: bool) -> Result<Linear> {
        let bias = bias.then(|| self.get(&format!("{name}.bias"), &[output])).transpose()?;
        let weight = format!("{name}.weight");
        let linear = match self.shard(&weight, &[output, input])? {
            Some(shard) => Linear::spread(shard, false, bias),
            None => Linear::new(self.get(&weight, &[output, input])?, bias),
        };
        self.adapt(linear, LinearShape { name: name.into(), input, output, fan_in_fan_out: false })
    }

    /// A linear map with a weight `[input, output]`, as GPT-2's `Conv1D` has it: `NAME.weight` and `NAME.bias`.
    pub fn conv1d(&self, name: &str, input: usize, output: usize) -> Result<Linear> {
        let bias = Some(self.get(&format!("{name}.bias"), &[output])?);
        let weight = format!("{name}.weight");
        let linear = match self.shard(&weight, &[input, output])? {
            Some(shard) => Linear::spread(shard, true, bias),
            None => Linear::conv1d(self.get(&weight, &[input, output])?, bias),
        };
        self.adapt(linear, LinearShape { name: name.into(), input, output, fan_in_fan_out: true })
    }

    fn shard(&self, name: &str, shape: &[usize]) -> Result<Option<Shard>> {
        let Some(shard) = self.shards.get(name) else { return Ok(None) };
        let dims = shard.shape().dims();
        ensure!(dims == shape, "weight {name} has shape {dims:?}, the configuration asks for {shape:?}");
        self.used.borrow_mut().insert(name.to_string());
        Ok(Some(shard.clone()))
    }

    fn adapt(&self, linear: Linear, shape: LinearShape) -> Result<Linear> {
        let LinearShape { name, input, output, .. } = &shape;
        let (a, b) = (format!("{name}.lora_A.weight"), format!("{name}.lora_B.weight"));
        let adapted = match self.adapters.as_deref() {
            Some(Adapters { weights, scale, dropout }) if weights.weights.contains_key(&a) => {
                let rank = weights.weights[&a].value().dim(0)?;
                let (a, b) = (weights.get(&a, &[rank, *input])?, weights.get(&b, &[*output, rank])?);
                let layer = self.linears.borrow().len() as u64;
                let dropout = dropout.as_ref().map(|(probability, clock)| {
                    let (probability, clock) = (*probability, clock.clone());
                    Dropout { probability, layer, clock }
                });
                linear.with_lora(Lora::new(a, b, *scale, dropout))
            }
            _ => linear,
        };
        self.linears.borrow_mut().push(shape);
        Ok(adapted)
    }

    /// A convolution over time, `width` positions wide: `NAME.weight` `[output, input, width]` and `NAME.bias`.
    pub fn convolution(&self, name: &str, input: usize, output: usize, width: usize) -> Result<Conv1d> {
        let weight = self.get(&format!("{name}.weight"), &[output, input, width])?;
        Ok(Conv1d::new(weight, self.get(&format!("{name}.bias"), &[output])?)?)
    }

    /// A table of `rows` vectors: `NAME.weight`.
    pub fn embedding(&self, name: &str, rows: usize, width: usize) -> Result<Embedding> {
        Ok(Embedding::new(self.get(&format!("{name}.weight"), &[rows, width])?)?)
    }

    /// `NAME.weight` and `NAME.bias`.
    pub fn layer_norm(&self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let weight = self.get(&format!("{name}.weight"), &[width])?;
        Ok(LayerNorm::new(weight, self.get(&format!("{name}.bias"), &[width])?, eps))
    }

    /// `NAME.weight`.
    pub fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.get(&format!("{name}.weight"), &[width])?, eps))
    }

    /// # Errors
    /// A weight that no block asked for: the file does not belong to the configuration.
    pub fn finish(self) -> Result<()> {
        if let Some(adapters) = self.adapters {
            adapters.weights.finish().context("the adapters do not fit the model")?;
        }
        let used = self.used.borrow();
        match self.weights.keys().chain(self.shards.keys()).find(|name| !used.contains(*name)) {
            Some(name) => bail!("weight {name} belongs to no part of the configured model"),
            None => Ok(()),
        }
    }
}
