//! Weights that never change: what adapters stand beside, and models that are only read. They are whole, or the blocks'
//! matrices are spread over the ranks of a training.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::{Architecture, Config};
use crate::nn::{LinearShape, Params, Weights};
use crate::ranks::{Ranks, Shard};

/// Frozen weights. A clone shares them.
#[derive(Clone)]
pub(super) struct Base {
    /// All of them, or what is not spread.
    params: Params,
    spread: Option<Spread>,
}

#[derive(Clone)]
struct Spread {
    shards: Arc<BTreeMap<String, Shard>>,
    /// That of the whole.
    digest: Arc<str>,
}

impl Base {
    pub fn whole(params: Params) -> Self {
        Self { params, spread: None }
    }

    /// The matrices of the linear maps are spread over the ranks, each by its rows; embeddings, norms, biases and the head
    /// stay whole, for they are small, or read at other times by each rank. Collective.
    ///
    /// # Errors
    /// Weights that are spread already; other weights on another rank.
    pub fn over(self, config: &Config, linears: &[LinearShape], ranks: &Ranks) -> Result<Self> {
        ensure!(self.spread.is_none(), "the weights are spread over ranks already");
        let digest = self.params.digest()?;
        ranks.same("the weights to be spread", &digest)?;
        let head = Architecture::of(config.model_type())?.language_head();
        let names: Vec<String> = linears.iter().map(|linear| format!("{}.weight", linear.name)).collect();
        let (mut shards, mut rest) = (BTreeMap::new(), Vec::new());
        for (name, var) in self.params.iter() {
            let tensor = var.as_detached_tensor();
            match Some(name) != head && names.iter().any(|linear| linear == name) {
                true => drop(shards.insert(name.to_string(), Shard::new(&tensor, ranks)?)),
                false => rest.push((name.to_string(), tensor)),
            }
        }
        let spread = Spread { shards: Arc::new(shards), digest: digest.into() };
        Ok(Self { params: Params::from_tensors(rest)?, spread: Some(spread) })
    }

    pub fn weights(&self) -> Weights {
        let weights = self.params.weights(false);
        match &self.spread {
            None => weights,
            Some(spread) => weights.with_shards((*spread.shards).clone()),
        }
    }

    /// As [`Params::digest`], of the whole.
    pub fn digest(&self) -> Result<String> {
        match &self.spread {
            None => self.params.digest(),
            Some(spread) => Ok(spread.digest.to_string()),
        }
    }

    /// The whole weights. Collective where they are spread.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors: BTreeMap<String, Tensor> = self.params.tensors().into_iter().collect();
        for (name, shard) in self.spread.iter().flat_map(|spread| spread.shards.iter()) {
            tensors.insert(name.clone(), shard.gather()?);
        }
        Ok(tensors)
    }

    /// # Errors
    /// Weights that are spread: they are rounded before.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        ensure!(self.spread.is_none(), "weights get their precision before they are spread over ranks");
        Ok(Self::whole(self.params.copy(dtype)?))
    }

    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = |spread: &Spread| {
            let shards = spread.shards.iter().map(|(name, shard)| Ok((name.clone(), shard.to_device(device)?)));
            anyhow::Ok(Spread { shards: Arc::new(shards.collect::<Result<_>>()?), digest: spread.digest.clone() })
        };
        Ok(Self { params: self.params.to_device(device)?, spread: self.spread.as_ref().map(moved).transpose()? })
    }
}
