//! The kernel that was set up: its files and the environment that everything of Jupyter runs in.

use super::child;
use super::project::Project;
use crate::machine::ONE_THREAD;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// The kernel's name, as notebooks give it in their metadata.
pub(super) const NAME: &str = "rust-qstar";

/// A kernel that is ready to run. Made by [`super::setup()`].
#[derive(Debug, Clone)]
pub struct Kernel {
    project: Project,
}

/// What a cell is compiled against.
pub(super) struct Libraries<'a> {
    /// The library itself.
    pub(super) dylib: &'a Path,
    /// The folder of everything that it was compiled against.
    pub(super) deps: &'a Path,
    /// The folder of Rust's own shared library.
    pub(super) rust: &'a Path,
}

impl Kernel {
    /// Writes the kernel's files for these libraries.
    pub(super) fn write(project: &Project, libraries: &Libraries) -> Result<Self> {
        let config = project.made("config");
        write_if_changed(&config.join("evcxr.toml"), &evcxr_toml(project, libraries)?)?;
        let spec = json!({
            "argv": [project.kernel_binary(), "--control_file", "{connection_file}"],
            "display_name": "Rust (qstar)",
            "language": "rust",
            "interrupt_mode": "message",
            "env": { "EVCXR_CONFIG_DIR": config, (ONE_THREAD.0): ONE_THREAD.1 },
        });
        let folder = project.made("jupyter").join("kernels").join(NAME);
        let text = serde_json::to_string_pretty(&spec)?;
        write_if_changed(&folder.join("kernel.json"), &text)?;
        Ok(Self { project: project.clone() })
    }

    pub fn project(&self) -> &Project {
        &self.project
    }

    /// A command of the project's own Python environment (`python`, `jupyter`), with Jupyter's folders inside the
    /// checkout and the kernel findable.
    pub fn command(&self, program: &str) -> Command {
        let mut command = child::command(self.project.venv_program(program));
        for (name, folder) in [
            ("JUPYTER_PATH", "jupyter"),
            ("JUPYTER_CONFIG_DIR", "jupyter/config"),
            ("JUPYTER_DATA_DIR", "jupyter/data"),
            ("JUPYTER_RUNTIME_DIR", "jupyter/runtime"),
            ("IPYTHONDIR", "jupyter/ipython"),
            ("EVCXR_CONFIG_DIR", "config"),
        ] {
            command.env(name, self.project.made(folder));
        }
        command.env("PYTHONNOUSERSITE", "1");
        command.env_remove("PYTHONHOME");
        command.env_remove("PYTHONPATH");
        command
    }
}

fn evcxr_toml(project: &Project, libraries: &Libraries) -> Result<String> {
    let text = |path: &Path| -> Result<String> {
        let text = path.to_str();
        let text = text.with_context(|| format!("{}: the path is not valid UTF-8", path.display()))?;
        Ok(text.to_owned())
    };
    let dylib = text(libraries.dylib)?;
    let home = text(libraries.dylib.parent().unwrap_or(libraries.deps))?;
    let deps = text(libraries.deps)?;
    let rust = text(libraries.rust)?;
    let flags = [
        "-Cprefer-dynamic".to_owned(),
        format!("--extern=qstar={dylib}"),
        format!("-Ldependency={home}"),
        format!("-Ldependency={deps}"),
        format!("-Clink-arg=-Wl,-rpath,{home}"),
        format!("-Clink-arg=-Wl,-rpath,{rust}"),
        // Else generic code of the library that a cell instantiates is several times slower than in the command.
        "-Cdebug-assertions=no".to_owned(),
        "-Coverflow-checks=no".to_owned(),
    ];
    let facade = toml::Value::from(text(&project.facade())?);
    // The encoded form of the flags, because a path may hold a space.
    let prelude = format!(
        ":build_env CARGO_ENCODED_RUSTFLAGS={}\n\
         :dep qs = {{ path = {facade} }}\n\
         use qs::prelude::*;\n",
        flags.join("\x1f")
    );
    let mut evcxr = toml::Table::new();
    evcxr.insert("offline_mode".into(), true.into());
    evcxr.insert("opt_level".into(), "3".into());
    evcxr.insert("prelude".into(), prelude.into());
    let mut all = toml::Table::new();
    all.insert("evcxr".into(), evcxr.into());
    Ok(all.to_string())
}

pub(super) fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let part = path.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&part, text)?;
        std::fs::rename(&part, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
