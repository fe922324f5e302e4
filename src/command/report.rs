//! `qstar report`: one page of what the runs on the disk say.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use qstar::experiment::{Folders, study_page};

use super::train::preset;

#[derive(Args)]
pub struct ReportArgs {
    /// The scale: a file of data/presets, without its ending
    /// [default: QSTAR_PRESET, else micro]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// The folder of the runs' folders [default: data/runs]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,

    /// The page that is written
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub fn report(how: ReportArgs) -> Result<()> {
    let found = Folders::find()?;
    let folders = Folders { runs: how.runs.unwrap_or(found.runs), ..found };
    study_page(&preset(&folders.data, how.preset.as_deref())?, &folders)?.write(&how.output)?;
    println!("{}", how.output.display());
    Ok(())
}
