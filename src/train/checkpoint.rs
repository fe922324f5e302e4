//! A training's state as one safetensors file, written whole.

use std::io::Write;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::Trainer;
use super::step::State;
use crate::models::LanguageModel;
use crate::record::RunFolder;

/// The names of the files in the run's folder: of the last state, and of the best policy.
pub(super) const FILE: &str = "checkpoint.safetensors";
pub(super) const BEST: &str = "best.safetensors";

/// The tensor of what a trainer carries besides variables and optimizer.
const STATE: &str = "state";

/// Writes variables, optimizer and state.
pub(super) fn save(folder: &RunFolder, trainer: &Trainer) -> Result<()> {
    let mut tensors = trainer.params.tensors();
    tensors.extend(trainer.optimizer.state()?);
    tensors.insert(STATE.into(), Tensor::new(&trainer.state.numbers(), &Device::Cpu)?);
    folder.write(FILE, |file| {
        let bytes = safetensors::serialize(&tensors, None)?;
        Ok(file.write_all(&bytes)?)
    })
}

/// Takes the state back, where there is one; says whether there was.
///
/// # Errors
/// A file that is not whole or does not belong to this run; it is named.
pub(super) fn restore(folder: &RunFolder, trainer: &mut Trainer) -> Result<bool> {
    let path = folder.file(FILE);
    if !path.exists() {
        return Ok(false);
    }
    (|| {
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let saved = tensors.get(STATE).with_context(|| format!("it holds no {STATE}"))?.to_vec1::<f64>()?;
        let saved = saved.try_into().map_err(|_| anyhow::anyhow!("its {STATE} has another length"))?;
        trainer.params.assign(&tensors)?;
        trainer.optimizer.restore(&tensors)?;
        trainer.state = State::from_numbers(saved);
        anyhow::Ok(())
    })()
    .with_context(|| {
        format!("{}: not a checkpoint of this run; remove the file to start the run anew", path.display())
    })?;
    Ok(true)
}

/// Writes the variables of a policy as the best one.
pub(super) fn save_best(folder: &RunFolder, policy: &LanguageModel) -> Result<()> {
    folder.write(BEST, |file| Ok(file.write_all(&safetensors::serialize(&policy.params.tensors(), None)?)?))
}

/// A copy of `initial` with the variables of a file of the run.
pub(super) fn policy(folder: &RunFolder, initial: &LanguageModel, file: &str) -> Result<LanguageModel> {
    let path = folder.file(file);
    let policy = initial.copy()?;
    candle_core::safetensors::load(&path, &Device::Cpu)
        .map_err(anyhow::Error::from)
        .and_then(|tensors| policy.params.assign(&tensors))
        .with_context(|| format!("{}: not the policy of a run that began with this model", path.display()))?;
    Ok(policy)
}
