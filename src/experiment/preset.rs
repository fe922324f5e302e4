//! Presets: one TOML file a scale, in `data/presets`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{TextModels, TextSources};
use crate::train::RunConfig;

/// The sizes of every experiment at one scale.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub micro: Size,
    pub stories: Size,
    /// Where there are models for the tasks of real texts.
    pub text: Option<TextSize>,
}

/// The size of the experiments on real texts, and the models that they train.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSize {
    pub seeds: u64,
    pub run: RunConfig,
    pub models: TextModels,
    #[serde(default)]
    pub data: TextSources,
}

/// The size of one experiment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// The number of seeds, 0, 1, ...
    pub seeds: u64,
    pub run: RunConfig,
}

/// The environment variable that names the preset.
pub const VARIABLE: &str = "QSTAR_PRESET";

impl Preset {
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
        toml::from_str(&text).with_context(|| format!("{}: not a preset", path.display()))
    }

    /// The preset that the environment variable `QSTAR_PRESET` names, `micro` without it.
    pub fn from_env(data: &Path) -> Result<Self> {
        let name = std::env::var(VARIABLE).unwrap_or_else(|_| "micro".to_string());
        Self::load(data, &name)
    }
}
