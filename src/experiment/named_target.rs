//! The definitions of π_t by name, as a command and a plan ask for them: each with its usual constants, each trained part
//! made once.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::World;
use super::cache::{damaged, kept};
use crate::models::{load_folder, save_folder};
use crate::nn::Params;
use crate::target::{Expert, PrefixScorer, PrefixValues, RewardSoftmax, SequenceReward, SoftmaxConfig};
use crate::train::{ALGORITHM, Conditional, PrefixTraining, TrainingReward, train_conditional, train_prefix_values};

/// A definition of π_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetName {
    /// The world's expert.
    Expert,
    /// π_init tilted by the true reward that a prefix promises, at β = 0.1.
    PrefixScorer,
    /// π_init tilted by a learned reward of the likeliest continuations. The learned reward is in nats of preference, so
    /// β = 1 takes it at its word.
    RewardSoftmax,
    /// π_init, trained on the best quarter of its own responses by the true reward.
    Conditional,
}

/// Of the prefix scorer, for true rewards in [0, 1].
const PREFIX_BETA: f64 = 0.1;

impl TargetName {
    pub const ALL: [TargetName; 4] = [Self::Expert, Self::PrefixScorer, Self::RewardSoftmax, Self::Conditional];

    pub fn name(self) -> &'static str {
        match self {
            Self::Expert => "expert",
            Self::PrefixScorer => "prefix_scorer",
            Self::RewardSoftmax => "reward_softmax",
            Self::Conditional => "conditional",
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TargetName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|target| target.name() == name) {
            Some(target) => Ok(target),
            None => bail!("unknown target {name:?}; known are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

impl World {
    /// The same world with π_t by its definition. What has to be trained is trained once and kept in `data/cache`.
    ///
    /// # Errors
    /// A task without preferences where a reward is to be learned from them; a kept model that is damaged.
    pub fn with_target_named(self, data: &Path, target: TargetName) -> Result<Self> {
        let (task, initial) = (&*self.task, &self.models.initial);
        let digest = initial.digest()?;
        let label = format!("{}: {target} (once)", task.name());
        if initial.network.is_spread() {
            // Others are trained once by one process, while the other ranks would have to read with it.
            ensure!(
                target == TargetName::Expert,
                "the target {target} cannot be made of weights that are spread over processes: make it once by one process, \
                 or take the target expert"
            );
            return Ok(self);
        }
        match target {
            TargetName::Expert => {
                let expert = Expert::new(&self.expert)?;
                Ok(self.with_target(expert))
            }
            TargetName::PrefixScorer => {
                let config = PrefixTraining::default();
                let key = format!("{}{digest}{ALGORITHM}{config:?}", task.identity());
                let folder = kept(data, &format!("{}-prefix-values", task.name()), &key, |folder| {
                    let trained = train_prefix_values(initial, task, TrainingReward::True, &config, &label)?;
                    let tensors = trained.values.params.tensors();
                    Ok(candle_core::safetensors::save(&tensors, folder.join(VALUES))?)
                })?;
                let read = || -> Result<PrefixValues> {
                    let tensors = candle_core::safetensors::load(folder.join(VALUES), &Device::Cpu)?;
                    PrefixValues::from_params(Params::from_tensors(tensors)?)
                };
                let scorer = PrefixScorer::new(initial, &read().with_context(|| damaged(&folder))?, PREFIX_BETA)?;
                Ok(self.with_target(scorer))
            }
            TargetName::RewardSoftmax => {
                let model = self.reward_model(data)?.model.to_device(initial.network.device())?;
                let reward = SequenceReward::learned(&model)?;
                let softmax = RewardSoftmax::new(initial, reward, SoftmaxConfig { beta: 1.0, ..Default::default() })?;
                Ok(self.with_target(softmax))
            }
            TargetName::Conditional => {
                let config = Conditional::default();
                let key = format!("{}{digest}{ALGORITHM}{config:?}", task.identity());
                let folder = kept(data, &format!("{}-conditional", task.name()), &key, |folder| {
                    let trained = train_conditional(initial, task, TrainingReward::True, &config, &label)?;
                    save_folder(&trained.model.whole()?, folder)
                })?;
                let model =
                    load_folder(&folder).with_context(|| damaged(&folder))?.to_device(initial.network.device())?;
                Ok(self.with_target(Expert::named("conditional", &model)?))
            }
        }
    }
}

/// The file of a prefix scorer's values.
const VALUES: &str = "values.safetensors";
