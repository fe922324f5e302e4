//! Models from and to files: configuration, weights under the model's names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};

use super::files::{SHARD_BYTES, Source, TensorFiles, save_model};
use super::names::{Architecture, Head, Names, Purpose, canonical_names};
use super::{Config, LanguageModel, RewardModel};
use crate::nn::Params;

/// What is stored of a model.
#[derive(Debug)]
pub struct Stored {
    pub config: Config,
    /// The tensors by the model's names. Those in `names.fresh` are not among them.
    pub tensors: BTreeMap<String, Tensor>,
    /// What became of the stored tensors, and what the caller has to draw.
    pub names: Names,
}

/// Reads a model's configuration and weights, tensor by tensor: beside the model, memory holds one tensor.
///
/// # Errors
/// A file that is missing or damaged; a configuration that is not honoured; a tensor that is surplus, quantised or of
/// another type than a weight's; a head that is missing, unless a fresh one is asked for; a head that is tied and differs
/// from the embedding. The file and the tensor or the field are named. Missing and misshapen tensors of the base
/// model are for the network to find.
pub fn read_model(source: &Source, purpose: Purpose, dtype: DType, device: &Device) -> Result<Stored> {
    let config_path = source.config()?;
    let config = Config::read(&config_path)?;
    let weights = source.weights()?;
    // A branch may move between two downloads; what was downloaded before is then in another folder of the cache.
    ensure!(
        weights.folder() == config_path.parent(),
        "{source}: the configuration and the weights are of two commits, {} and {}; try again",
        config_path.display(),
        weights.folder().unwrap_or(Path::new("")).display()
    );
    let files = TensorFiles::open(&weights)?;
    let architecture = Architecture::of(config.model_type())?;
    let mut names =
        canonical_names(architecture, purpose, config.is_tied(), files.names()).with_context(|| source.to_string())?;
    names.unread.extend(config.switched_off().and_then(|name| names.kept.remove(name)));
    check_tied(&files, architecture, &names)?;
    let mut tensors = BTreeMap::new();
    for (name, stored) in &names.kept {
        let stored_dtype = files.dtype(stored)?;
        ensure!(
            stored_dtype.is_float(),
            "{}: tensor {stored} is of type {stored_dtype:?}, which no weight has; a quantised checkpoint has to be \
             converted",
            files.path(stored)?.display()
        );
        tensors.insert(name.clone(), files.read(stored, dtype, device)?);
    }
    Ok(Stored { config, tensors, names })
}

/// Reads a language model from a folder.
pub fn load_folder(folder: &Path) -> Result<LanguageModel> {
    load_model(&Source::Folder(folder.to_path_buf()))
}

/// Reads a language model from a folder or from the hub, in f32.
///
/// # Errors
/// As [`read_model`]; a tensor that is missing or has another shape than the configuration says.
pub fn load_model(source: &Source) -> Result<LanguageModel> {
    let stored = read_model(source, Purpose::LanguageModel, DType::F32, &Device::Cpu)?;
    LanguageModel::from_params(stored.config, Params::from_tensors(stored.tensors)?).with_context(|| source.to_string())
}

/// Reads a reward model from a folder or from the hub, in f32: its own head, or a fresh one on the layers of any
/// checkpoint of its architecture.
///
/// # Errors
/// As [`load_model`]; a stored head is asked for and there is none.
pub fn load_reward_model(source: &Source, head: Head) -> Result<RewardModel> {
    let Stored { config, tensors, .. } = read_model(source, Purpose::RewardModel(head), DType::F32, &Device::Cpu)?;
    let model = match head {
        Head::Stored => RewardModel::from_params(config, Params::from_tensors(tensors)?),
        Head::Fresh(seed) => RewardModel::with_new_head(config, tensors, seed),
    };
    model.with_context(|| source.to_string())
}

/// Writes a reward model into a folder, which is made if absent. transformers finds the end of a causal one's padded
/// sequences by `pad_token_id`, which is not written.
///
/// # Errors
/// A file that cannot be written.
pub fn save_reward_folder(model: &RewardModel, folder: &Path) -> Result<()> {
    save_model(folder, &model.config, &model.params.tensors().into_iter().collect(), None, SHARD_BYTES)
}

/// Writes a model into a folder, which is made if absent.
///
/// # Errors
/// A file that cannot be written; a model with adapters, whose weights are not the whole model.
pub fn save_folder(model: &LanguageModel, folder: &Path) -> Result<()> {
    ensure!(model.adapted.is_none(), "{}: a model with adapters is merged before it is saved", folder.display());
    save_model(folder, &model.config, &model.params.tensors().into_iter().collect(), None, SHARD_BYTES)
}

/// A tied head that is stored as well must be the embedding.
fn check_tied(files: &TensorFiles, architecture: &Architecture, names: &Names) -> Result<()> {
    for copy in &names.tied {
        let embedding = architecture.embedding();
        let stored = names.kept.get(&embedding).with_context(|| {
            format!("tensor {copy} is there, and the embedding {embedding} to which the configuration ties it is not")
        })?;
        let values = |name: &str| files.read(name, DType::F32, &Device::Cpu);
        let (head, embedding) = (values(copy)?, values(stored)?);
        let is_equal = head.dims() == embedding.dims() && head.ne(&embedding)?.max_all()?.to_scalar::<u8>()? == 0;
        ensure!(
            is_equal,
            "{}: tensor {copy} differs from {stored}, and the configuration ties the two (tie_word_embeddings)",
            files.path(copy)?.display()
        );
    }
    Ok(())
}
