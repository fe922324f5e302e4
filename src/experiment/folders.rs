//! Where an experiment finds its data and leaves its results.

use std::path::PathBuf;

use anyhow::Result;

use crate::notebook::Project;

/// The folders of a checkout.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Presets and embedded checkpoints.
    pub data: PathBuf,
    /// A folder a run.
    pub runs: PathBuf,
    /// What notebooks draw.
    pub figures: PathBuf,
}

impl Folders {
    /// The folders of the checkout that the current folder lies in. `QSTAR_OUTPUT`, which
    /// `reproduce --output` sets, takes the figures elsewhere.
    ///
    /// # Errors
    /// The current folder lies in no checkout.
    pub fn find() -> Result<Self> {
        let root = Project::find()?.root().to_path_buf();
        let figures = std::env::var_os("QSTAR_OUTPUT")
            .map_or_else(|| root.join("figures"), |output| PathBuf::from(output).join("figures"));
        Ok(Self { data: root.join("data"), runs: root.join("data/runs"), figures })
    }
}
