//! Runs notebooks: without a browser, or in JupyterLab.

use super::kernel::Kernel;
use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

const EXECUTE: &str = include_str!("execute.py");

/// How notebooks are reproduced.
#[derive(Debug, Clone, Default)]
pub struct Reproduction {
    /// The scale, for cells to read from `QSTAR_PRESET`. `None` leaves the environment as it is.
    pub preset: Option<String>,
    /// Where the executed notebooks go. `None`: in place.
    pub output: Option<PathBuf>,
}

/// Executes these notebooks one after the other and writes them with their outputs. Each is written also when a
/// cell fails; the first that fails ends it.
///
/// # Errors
/// When a cell does not compile, panics, or leaves with an error: what it said was printed before.
pub fn reproduce(kernel: &Kernel, notebooks: &[PathBuf], how: &Reproduction) -> Result<()> {
    let output = match &how.output {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            Some(folder.canonicalize()?)
        }
        None => None,
    };
    for notebook in notebooks {
        let name = notebook.file_name().with_context(|| format!("{} is no notebook", notebook.display()))?;
        let target = output.as_ref().map_or_else(|| notebook.clone(), |folder| folder.join(name));
        println!("== {}", notebook.display());
        let mut environment: Vec<(&str, OsString)> = Vec::new();
        if let Some(preset) = &how.preset {
            environment.push(("QSTAR_PRESET", preset.into()));
        }
        if let Some(folder) = &output {
            environment.push(("QSTAR_OUTPUT", folder.into()));
        }
        execute(kernel, notebook, &target, &environment)?;
    }
    Ok(())
}

/// Executes one notebook in its folder, with these variables besides the user's own, and writes it to `target`.
///
/// # Errors
/// As [`reproduce`].
pub fn execute(kernel: &Kernel, notebook: &Path, target: &Path, environment: &[(&str, OsString)]) -> Result<()> {
    let status = kernel
        .command("python")
        .args(["-c", EXECUTE])
        .arg(notebook)
        .arg(target)
        .envs(environment.iter().cloned())
        .status()
        .context("the project's Python cannot be started: run `qstar setup`")?;
    if !status.success() {
        bail!("{} did not run to its end ({status})", notebook.display());
    }
    Ok(())
}

/// Becomes JupyterLab, opened on the notebooks. Comes back only when that fails.
///
/// # Errors
/// When JupyterLab cannot be started.
pub fn lab(kernel: &Kernel, arguments: &[String]) -> Result<()> {
    let error = kernel
        .command("jupyter-lab")
        .arg("--ServerApp.root_dir")
        .arg(kernel.project().root())
        .args(["--LabApp.default_url", "/lab/tree/notebooks"])
        // Looking for language servers runs npm, which writes into the user's home.
        .arg("--LanguageServerManager.autodetect=False")
        .args(arguments)
        .exec();
    Err(anyhow!(error)).context("JupyterLab cannot be started: run `qstar setup`")
}
