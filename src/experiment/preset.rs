//! Presets: one TOML file a scale, in `data/presets`: one task, the models that are trained on it, and the sizes of every
//! experiment.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Search, TargetName, TextModels, TextSources};
use crate::ranks::Ranks;
use crate::train::RunConfig;

/// One task and the sizes of all experiments on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// The name of the file, without its ending.
    #[serde(skip)]
    pub name: String,
    /// `micro`, `stories` or a task of real texts.
    pub task: String,
    /// Seeds of the main comparison, 0, 1, ...; those of an ablation are its first ones.
    pub seeds: u64,
    pub ablation_seeds: u64,
    /// The targets of the main comparison.
    pub targets: Vec<TargetName>,
    pub run: RunConfig,
    /// Without it every method keeps the common setting.
    pub search: Option<SearchSize>,
    pub long: LongSize,
    /// Steps, of which nothing is learned, that the noise of a gradient is measured on.
    pub noise_steps: u64,
    /// Further policies of the experiment on scale, beside that of all others.
    #[serde(default)]
    pub policies: Vec<Policy>,
    /// Of the tasks of real texts.
    pub models: Option<TextModels>,
    #[serde(default)]
    pub data: TextSources,
    /// The processes that train together: this one alone, unless the command was started as several.
    #[serde(skip)]
    pub ranks: Ranks,
}

/// How each method's own setting is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSize {
    pub trials: usize,
    /// Of one trial.
    pub steps: u64,
}

/// The long training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongSize {
    pub steps: u64,
    pub evaluate_every: u64,
    pub seeds: u64,
}

/// A policy of another size.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a width of the embedded model, or a model's name")]
pub enum Policy {
    /// Of the embedded world: a model of this width, trained as the embedded ones are, once.
    Width(usize),
    /// Of a task of real texts, with an expert trained from it.
    Model(String),
}

/// The environment variable that names the preset.
pub const VARIABLE: &str = "QSTAR_PRESET";

impl Preset {
    /// The reward to be reached as the study's tables take it: none where [`World::level`](super::World::level) finds none.
    pub fn levels(&self, level: Option<f64>) -> Vec<(&str, f64)> {
        level.map(|level| (self.task.as_str(), level)).into_iter().collect()
    }

    /// Reads `presets/NAME.toml` in the folder `data`.
    ///
    /// # Errors
    /// No such preset (the message lists those there are), or a file that is not one.
    pub fn load(data: &Path, name: &str) -> Result<Self> {
        let folder = data.join("presets");
        let path = folder.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).with_context(|| {
            let mut known: Vec<String> = std::fs::read_dir(&folder)
                .map(|entries| {
                    entries
                        .flatten()
                        .map(|e| e.path())
                        .filter_map(|p| Some(p.file_stem()?.to_str()?.to_string()))
                        .collect()
                })
                .unwrap_or_default();
            known.sort();
            format!("no preset {name:?}: there are {} in {}", known.join(", "), folder.display())
        })?;
        let preset: Self = toml::from_str(&text).with_context(|| format!("{}: not a preset", path.display()))?;
        Ok(Self { name: name.to_string(), ..preset })
    }

    /// The preset that the environment variable `QSTAR_PRESET` names, `micro` without it.
    pub fn from_env(data: &Path) -> Result<Self> {
        let name = std::env::var(VARIABLE).unwrap_or_else(|_| "micro".to_string());
        Self::load(data, &name)
    }

    /// The models of a task of real texts.
    ///
    /// # Errors
    /// The preset names none.
    pub fn text_models(&self) -> Result<&TextModels> {
        self.models
            .as_ref()
            .with_context(|| format!("the preset {} has no [models]: {} needs them", self.name, self.task))
    }

    /// The search for each method's own setting, around the common one.
    pub(super) fn search(&self) -> Option<Search> {
        let SearchSize { trials, steps } = self.search?;
        Some(Search { trials, steps, ..Search::around(&self.run.step) })
    }
}
