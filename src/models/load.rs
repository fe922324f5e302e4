//! Models from the hub's file layout: `config.json`, `model.safetensors`, `tokenizer.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::DType;
use hf_hub::api::sync::ApiBuilder;

use super::{Config, LanguageModel};
use crate::nn::Params;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// A file of a model repository: from the cache under `HF_HOME`, else downloaded into it.
///
/// # Errors
/// Neither in the cache nor to be downloaded; the message says which file of which repository.
pub fn hub_file(repository: &str, file: &str) -> Result<PathBuf> {
    // `Api::new` would ignore HF_HOME.
    let api = ApiBuilder::from_env().with_progress(false).build()?;
    api.model(repository.to_string()).get(file).with_context(|| {
        format!(
            "{file} of {repository}: not in the hub's cache and not downloaded (HF_HOME names the folder of the cache)"
        )
    })
}

/// Reads a model from a folder.
pub fn load_folder(folder: &Path) -> Result<LanguageModel> {
    let config = Config::read(&folder.join(CONFIG))?;
    let weights = folder.join(WEIGHTS);
    let params = Params::load(&weights, DType::F32)?;
    LanguageModel::from_params(config, params).with_context(|| format!("{}", weights.display()))
}

/// Writes a model into a folder, which is made if absent.
pub fn save_folder(model: &LanguageModel, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let path = folder.join(CONFIG);
    let text = serde_json::to_string_pretty(&model.config.to_fields()?)? + "\n";
    fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    let path = folder.join(WEIGHTS);
    candle_core::safetensors::save(&model.params.tensors(), &path)
        .with_context(|| format!("{}: cannot be written", path.display()))
}
