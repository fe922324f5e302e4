//! Models of which only low-rank adapters are trained, in PEFT's layout (Hu et al. 2021, arXiv:2106.09685).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::LanguageModel;
use super::files::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, TensorFiles, WeightFiles, save_adapter_files};
use super::spread::Base;
use crate::nn::{Adapters, DropoutClock, LinearShape, Params, Weights};
use crate::ranks::Ranks;

/// Which linear maps get an adapter, and of what kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    pub rank: usize,
    /// The adapter's product is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// The share of an adapter's inputs that is dropped while training.
    #[serde(default)]
    pub dropout: f64,
    /// The last parts of the names of linear maps: `q_proj`, or `self_attn.q_proj`.
    pub targets: Vec<String>,
}

impl LoraConfig {
    fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    fn is_target(&self, name: &str) -> bool {
        self.targets.iter().any(|target| name == target || name.ends_with(&format!(".{target}")))
    }

    fn check(&self, linears: &[LinearShape]) -> Result<()> {
        ensure!(self.rank > 0, "an adapter's rank is at least 1");
        ensure!((0.0..1.0).contains(&self.dropout), "lora_dropout lies in [0, 1): {}", self.dropout);
        for target in &self.targets {
            let one = Self { targets: vec![target.clone()], ..self.clone() };
            ensure!(
                linears.iter().any(|linear| one.is_target(&linear.name)),
                "no linear map of the model is named {target}; there are {}",
                last_parts(linears)
            );
        }
        ensure!(!self.targets.is_empty(), "adapters need a target; there are {}", last_parts(linears));
        Ok(())
    }
}

fn last_parts(linears: &[LinearShape]) -> String {
    let mut parts: Vec<&str> = linears.iter().filter_map(|linear| linear.name.rsplit('.').next()).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.join(", ")
}

/// What adapters stand beside. A clone shares the weights.
#[derive(Clone)]
pub(super) struct Adapted {
    pub base: Base,
    lora: LoraConfig,
    clock: DropoutClock,
}

impl Adapted {
    pub fn weights(&self, adapters: &Params, trained: bool) -> Weights {
        let dropout = (trained && self.lora.dropout > 0.0).then(|| (self.lora.dropout, self.clock.clone()));
        let adapters = Adapters { weights: adapters.weights(trained), scale: self.lora.scale(), dropout };
        self.base.weights().with_adapters(adapters)
    }

    /// What beside the weights decides what the adapters do.
    pub fn identity(&self) -> String {
        format!("{:?}", self.lora)
    }

    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Self { base: self.base.to_dtype(dtype)?, ..self.clone() })
    }

    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { base: self.base.to_device(device)?, ..self.clone() })
    }
}

/// What PEFT puts before the names of the model.
const PREFIX: &str = "base_model.model.";

impl LanguageModel {
    /// This model with fresh adapters, which alone are trained; at first they add nothing. The weights are shared with
    /// this model, which must not be trained any more.
    ///
    /// # Errors
    /// A target that no linear map of the model has, a rank of zero, adapters on adapters.
    pub fn with_lora(&self, lora: &LoraConfig, seed: u64) -> Result<Self> {
        let linears = self.network.linears();
        lora.check(linears)?;
        let mut adapters = Params::default();
        for linear in linears.iter().filter(|linear| lora.is_target(&linear.name)) {
            let LinearShape { name, input, output, .. } = linear;
            // The variance of PEFT's initial values, which are uniform.
            let sd = (1.0 / (3.0 * *input as f32)).sqrt();
            adapters.add_normal(&format!("{name}.lora_A.weight"), &[lora.rank, *input], sd, seed)?;
            adapters.add_constant(&format!("{name}.lora_B.weight"), &[*output, lora.rank], 0.0)?;
        }
        self.with_adapters(lora, adapters, seed)
    }

    fn with_adapters(&self, lora: &LoraConfig, adapters: Params, seed: u64) -> Result<Self> {
        ensure!(self.adapted.is_none(), "the model has adapters already; merge them first");
        let adapted =
            Adapted { base: Base::whole(self.params.clone()), lora: lora.clone(), clock: DropoutClock::new(seed) };
        Self::build(self.config.clone(), adapters.to_device(self.network.device())?, Some(adapted))
    }

    /// The same model with the matrices below its adapters spread over the ranks of a training: of each a rank keeps its part
    /// of the rows, and gathers the whole whenever it is read. From here on what it computes is collective: all ranks read
    /// equally often. Collective.
    ///
    /// # Errors
    /// There are no adapters; other weights on another rank.
    pub fn over(&self, ranks: &Ranks) -> Result<Self> {
        let Some(adapted) = &self.adapted else {
            bail!("only weights that are not trained are spread over ranks: the model has no adapters")
        };
        let base = adapted.base.clone().over(&self.config, self.network.linears(), ranks)?;
        let adapted = Adapted { base, ..adapted.clone() };
        Self::build(self.config.clone(), self.params.copy(self.dtype())?, Some(adapted))
    }

    /// A copy, as [`LanguageModel::copy`], whose adapters drop nothing.
    pub fn without_dropout(&self) -> Result<Self> {
        let mut adapted = self.adapted.clone();
        if let Some(adapted) = &mut adapted {
            adapted.lora.dropout = 0.0;
        }
        Self::build(self.config.clone(), self.params.copy(self.dtype())?, adapted)
    }

    /// From here on the adapters' dropout masks are those of batch `count`.
    pub fn set_dropout_batch(&self, count: u64) {
        if let Some(adapted) = &self.adapted {
            adapted.clock.set(count);
        }
    }

    /// A model of its own whose weights hold what the adapters add.
    ///
    /// # Errors
    /// There are no adapters.
    pub fn merged(&self) -> Result<Self> {
        let Some(Adapted { base, lora, .. }) = &self.adapted else { bail!("the model has no adapters to merge") };
        let mut tensors = base.tensors()?;
        for LinearShape { name, fan_in_fan_out, .. } in self.network.linears() {
            let get =
                |part: &str| self.params.get(&format!("{name}.{part}.weight")).map(|var| var.as_detached_tensor());
            let (Some(a), Some(b)) = (get("lora_A"), get("lora_B")) else { continue };
            let delta = (b.matmul(&a)? * lora.scale())?;
            let delta = if *fan_in_fan_out { delta.t()?.contiguous()? } else { delta };
            let weight = tensors.get_mut(&format!("{name}.weight")).context("an adapter stands beside a weight")?;
            // The sum is rounded once.
            *weight = (weight.to_dtype(delta.dtype())? + delta)?.to_dtype(weight.dtype())?;
        }
        Self::from_params(self.config.clone(), Params::from_tensors(tensors)?)
    }

    /// A copy without adapters: what they add is in its weights.
    pub fn whole(&self) -> Result<Self> {
        if self.adapted.is_some() { self.merged() } else { self.copy() }
    }

    /// Writes the adapters alone, as PEFT does: `adapter_config.json` and `adapter_model.safetensors`. `base` is the name
    /// of the repository or folder that the other weights come from.
    pub fn save_adapters(&self, folder: &Path, base: &str) -> Result<()> {
        let Some(Adapted { lora, .. }) = &self.adapted else { bail!("the model has no adapters to save") };
        let fan_in_fan_out = self.network.linears().iter().any(|l| l.fan_in_fan_out && lora.is_target(&l.name));
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": lora.targets,
            "fan_in_fan_out": fan_in_fan_out,
            "bias": "none",
            "inference_mode": true,
        });
        let tensors = self.params.tensors().into_iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor));
        save_adapter_files(folder, &config, &tensors.collect())
    }

    /// This model with the adapters of a folder that PEFT or [`LanguageModel::save_adapters`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read, a field of the configuration that is not honoured, adapters that do not fit: named.
    pub fn with_saved_adapters(&self, folder: &Path, seed: u64) -> Result<Self> {
        let path = folder.join(ADAPTER_CONFIG);
        let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let fields: Map<String, Value> =
            serde_json::from_str(&text).with_context(|| format!("{}: not a JSON object", path.display()))?;
        let lora = read_config(&fields).with_context(|| format!("{}", path.display()))?;
        lora.check(self.network.linears()).with_context(|| format!("{}", path.display()))?;
        let path = folder.join(ADAPTER_WEIGHTS);
        let tensors = TensorFiles::open(&WeightFiles::single(path.clone()))?.read_all(DType::F32, &Device::Cpu)?;
        let adapters = tensors.into_iter().map(|(name, tensor)| {
            let Some(short) = name.strip_prefix(PREFIX) else { bail!("tensor {name} does not begin with {PREFIX}") };
            Ok((short.to_string(), tensor))
        });
        let adapters = adapters.collect::<Result<Vec<_>>>().with_context(|| format!("{}", path.display()))?;
        let adapters = Params::from_tensors(adapters)?;
        for linear in self.network.linears().iter().filter(|linear| lora.is_target(&linear.name)) {
            let name = format!("{}.lora_A.weight", linear.name);
            ensure!(adapters.get(&name).is_some(), "{}: tensor {PREFIX}{name} is missing", path.display());
        }
        self.with_adapters(&lora, adapters, seed).with_context(|| format!("{}", path.display()))
    }
}

/// Fields that say nothing of what the adapters compute.
const INERT: [&str; 11] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Fields that are honoured; every other one must be absent, null, false, or empty.
const HONOURED: [&str; 4] = ["r", "lora_alpha", "lora_dropout", "target_modules"];

fn read_config(fields: &Map<String, Value>) -> Result<LoraConfig> {
    for (name, value) in fields {
        let neutral = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::String(text) => matches!((name.as_str(), text.as_str()), ("bias", "none") | ("peft_type", "LORA")),
            _ => false,
        };
        let known = INERT.contains(&name.as_str()) || HONOURED.contains(&name.as_str());
        ensure!(neutral || known, "the field {name} has the value {value}, which is not honoured");
    }
    let number = |name: &str| {
        let value = fields.get(name).with_context(|| format!("the field {name} is missing"))?;
        value.as_f64().with_context(|| format!("the field {name} is not a number: {value}"))
    };
    let targets = fields.get("target_modules").and_then(Value::as_array);
    let targets = targets.context("the field target_modules is not a list of names")?;
    let names: Option<Vec<String>> = targets.iter().map(|target| target.as_str().map(str::to_string)).collect();
    Ok(LoraConfig {
        rank: number("r")? as usize,
        alpha: number("lora_alpha")?,
        dropout: number("lora_dropout")?,
        targets: names.context("the field target_modules is not a list of names")?,
    })
}
