//! Where things are in a checkout.

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// A checkout of this project.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that holds the current folder.
    ///
    /// # Errors
    /// When no folder from here upwards has a `Cargo.toml` of the package `qstar`.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("the current folder cannot be read")?;
        Self::find_from(&here)
    }

    /// The checkout that holds `folder`.
    ///
    /// # Errors
    /// As [`Project::find`].
    pub fn find_from(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("{} cannot be read", folder.display()))?;
        for root in folder.ancestors() {
            if is_qstar(root)? {
                let root = root.to_path_buf();
                return Ok(Self { root });
            }
        }
        Err(anyhow!(
            "{} is not inside a checkout of qstar (no Cargo.toml with `name = \"qstar\"` from there upwards): \
             change to the checkout's folder first",
            folder.display()
        ))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn notebooks(&self) -> PathBuf {
        self.root.join("notebooks")
    }

    /// The notebooks that a reader runs, `notebooks/NN-*.ipynb`, by number.
    pub fn numbered_notebooks(&self) -> Result<Vec<(u32, PathBuf)>> {
        let folder = self.notebooks();
        let entries = std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(number) = notebook_number(&path) {
                found.push((number, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The notebook with this number.
    pub fn notebook(&self, number: u32) -> Result<PathBuf> {
        let mut all = self.numbered_notebooks()?;
        let Some(at) = all.iter().position(|(n, _)| *n == number) else {
            let known: Vec<String> = all.iter().map(|(n, _)| format!("{n:02}")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!("there is no notebook {number:02} in {} (there are: {known})", self.notebooks().display());
        };
        Ok(all.swap_remove(at).1)
    }

    /// The crate through which cells see the library.
    pub(super) fn facade(&self) -> PathBuf {
        self.notebooks().join("facade")
    }

    pub(super) fn requirements(&self) -> PathBuf {
        self.notebooks().join("requirements.txt")
    }

    /// All that the set-up makes, apart from cargo's build folder.
    pub(super) fn made(&self, name: &str) -> PathBuf {
        self.root.join(".qstar").join(name)
    }

    pub(super) fn kernel_binary(&self) -> PathBuf {
        self.made("evcxr").join("bin").join("evcxr_jupyter")
    }

    pub(super) fn venv_program(&self, name: &str) -> PathBuf {
        self.made("venv").join("bin").join(name)
    }
}

fn is_qstar(folder: &Path) -> Result<bool> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Ok(false);
    }
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("{} cannot be read", manifest.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not valid TOML", manifest.display()))?;
    let name = table.get("package").and_then(|package| package.get("name"));
    Ok(name.and_then(toml::Value::as_str) == Some("qstar"))
}

fn notebook_number(path: &Path) -> Option<u32> {
    if path.extension()? != "ipynb" {
        return None;
    }
    let (number, _) = path.file_stem()?.to_str()?.split_once('-')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_any_of_its_folders() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
        for inside in ["", "src", "src/notebook", "notebooks/facade"] {
            let project = Project::find_from(&root.join(inside)).unwrap();
            assert_eq!(project.root(), root, "from {inside:?}");
        }
    }

    #[test]
    fn outside_a_checkout_the_error_says_what_to_do() {
        let outside = tempfile::tempdir().unwrap();
        let error = Project::find_from(outside.path()).unwrap_err().to_string();
        assert!(error.contains("change to the checkout's folder"), "{error}");
    }

    #[test]
    fn only_numbered_notebooks_count() {
        assert_eq!(notebook_number(Path::new("n/01-ess.ipynb")), Some(1));
        assert_eq!(notebook_number(Path::new("n/12-a-b.ipynb")), Some(12));
        assert_eq!(notebook_number(Path::new("n/draft.ipynb")), None);
        assert_eq!(notebook_number(Path::new("n/01-ess.py")), None);
    }
}
