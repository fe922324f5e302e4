//! A training's state as one safetensors file, written whole.

use std::io::Write;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::Trainer;
use crate::record::RunFolder;

/// The file's name in the run's folder.
const FILE: &str = "checkpoint.safetensors";

/// Writes variables, optimizer and step.
pub(super) fn save(folder: &RunFolder, trainer: &Trainer) -> Result<()> {
    let (params, optimizer) = trainer.parts();
    let mut tensors = params.tensors();
    tensors.extend(optimizer.state()?);
    tensors.insert("step".into(), Tensor::new(&[trainer.step_count() as u32], &Device::Cpu)?);
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
        let saved = tensors.get("step").context("it holds no step")?.to_vec1::<u32>()?[0];
        let (params, optimizer, step) = trainer.parts_mut();
        params.assign(&tensors)?;
        optimizer.restore(&tensors)?;
        *step = u64::from(saved);
        anyhow::Ok(())
    })()
    .with_context(|| {
        format!("{}: not a checkpoint of this run; remove the file to start the run anew", path.display())
    })?;
    Ok(true)
}
