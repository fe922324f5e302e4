//! The index of a sharded checkpoint: `model.safetensors.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Which file holds which tensor.
#[derive(Debug)]
pub struct Index {
    pub path: PathBuf,
    /// A tensor's name, and its file's name within the index's folder.
    pub weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Content {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// # Errors
    /// Not an index, an empty one, or one that names a file outside its folder: the file and the tensor are named.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
        let Content { weight_map } =
            serde_json::from_str(&text).with_context(|| format!("{name}: not the index of a sharded checkpoint"))?;
        ensure!(!weight_map.is_empty(), "{name}: the index names no tensor");
        for (tensor, file) in &weight_map {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                bail!(
                    "{name}: tensor {tensor} is said to be in {file:?}, which is not the name of a file beside the index"
                )
            }
        }
        Ok(Self { path: path.to_path_buf(), weight_map })
    }

    /// The names of the files, each once.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
