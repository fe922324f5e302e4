//! The variables of a model by name: made, read, written, copied.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::seed;

/// Trainable variables by name, in the order of their names. A clone shares the variables.
#[derive(Debug, Clone, Default)]
pub struct Params {
    vars: BTreeMap<String, Var>,
}

impl Params {
    /// Copies of the given tensors.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let mut vars = BTreeMap::new();
        for (name, tensor) in tensors {
            vars.insert(name, Var::from_tensor(&tensor.contiguous()?.copy()?)?);
        }
        Ok(Self { vars })
    }

    /// Reads a safetensors file; the tensors are converted to `dtype`.
    pub fn load(path: &Path, dtype: DType) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("{}: not a readable safetensors file", path.display()))?;
        let converted: Result<Vec<_>> =
            tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(dtype)?))).collect();
        Self::from_tensors(converted?)
    }

    /// The tensors by name. They share the variables' memory.
    pub fn tensors(&self) -> HashMap<String, Tensor> {
        self.vars.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect()
    }

    /// A copy with memory of its own, in `dtype`.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let tensors: Result<Vec<_>> =
            self.vars.iter().map(|(name, var)| Ok((name.clone(), var.to_dtype(dtype)?))).collect();
        Self::from_tensors(tensors?)
    }

    /// Overwrites the values of every variable.
    ///
    /// # Errors
    /// A variable that `tensors` lacks or that has another shape there; both are named.
    pub fn assign(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in &self.vars {
            let Some(tensor) = tensors.get(name) else { bail!("variable {name} is missing") };
            ensure!(
                tensor.shape() == var.shape(),
                "variable {name} has shape {:?}, expected {:?}",
                tensor.shape(),
                var.shape()
            );
            var.set(&tensor.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// The number of scalar parameters.
    pub fn count(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// SHA-256 over names, shapes and values, in hexadecimal: the identity of these weights.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (name, var) in &self.vars {
            hash.update(format!("{name}{:?}", var.shape()));
            for value in var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()? {
                hash.update(value.to_le_bytes());
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The tensors that a network is built from; with `trainable`, gradients reach the variables.
    pub fn weights(&self, trainable: bool) -> Weights {
        let tensors = self.vars.iter().map(|(name, var)| {
            let tensor = if trainable { var.as_tensor().clone() } else { var.as_detached_tensor() };
            (name.clone(), tensor)
        });
        Weights { tensors: tensors.collect(), used: RefCell::default() }
    }

    /// A new variable with values drawn from N(0, sd²); the draw depends on `seed` and on the name alone.
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
        self.vars.insert(name.to_string(), Var::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    }

    /// A new variable with all values equal.
    pub fn add_constant(&mut self, name: &str, shape: &[usize], value: f32) -> Result<()> {
        let values = vec![value; shape.iter().product()];
        self.vars.insert(name.to_string(), Var::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    }
}

/// Named tensors while a network is built from them: every one must be asked for once.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    used: RefCell<BTreeSet<String>>,
}

impl Weights {
    /// The tensor `name`, which must have the shape `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else { bail!("weight {name} is missing") };
        ensure!(
            tensor.dims() == shape,
            "weight {name} has shape {:?}, the configuration asks for {shape:?}",
            tensor.dims()
        );
        self.used.borrow_mut().insert(name.to_string());
        Ok(tensor.clone())
    }

    /// # Errors
    /// A tensor that no block asked for: the file does not belong to the configuration.
    pub fn finish(self) -> Result<()> {
        let used = self.used.borrow();
        match self.tensors.keys().find(|name| !used.contains(*name)) {
            Some(name) => bail!("weight {name} belongs to no part of the configured model"),
            None => Ok(()),
        }
    }
}
