//! A run's folder.
//!
//! ```text
//! spec.json                          what was asked for
//! steps-000000-000050.parquet        rows of the steps 0 to 49; evaluations and samples alike
//! checkpoint.safetensors             variables and optimizer after the last part
//! done.json                          written last
//! ```
//! A file is written under another name, synced, and renamed into place: it is whole or absent.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use polars::prelude::{DataFrame, ParquetReader, ParquetWriter, SerReader};

use super::frame::stack;

/// The kinds of rows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Steps,
    Evaluations,
    Samples,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Steps, Kind::Evaluations, Kind::Samples];

    fn name(self) -> &'static str {
        match self {
            Kind::Steps => "steps",
            Kind::Evaluations => "evaluations",
            Kind::Samples => "samples",
        }
    }
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("{}: cannot be made", self.path.display()))
    }

    /// Keeps every other process out of this run until the returned file is dropped; none where another one is in it. The
    /// system frees the lock of a process that dies.
    pub fn try_lock(&self) -> Result<Option<File>> {
        let path = self.file("lock");
        let file = File::create(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("{}: cannot be locked", path.display())),
        }
    }

    /// Whether a process is in this run.
    pub fn is_locked(&self) -> Result<bool> {
        Ok(self.file("lock").exists() && self.try_lock()?.is_none())
    }

    /// Writes a whole file into place.
    pub fn write(&self, name: &str, content: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let (path, new) = (self.file(name), self.file(&format!("{name}.new")));
        let written = (|| {
            let mut file = File::create(&new)?;
            content(&mut file)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            anyhow::Ok(())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new); // the first error is the one to tell
        }
        written.with_context(|| format!("{}: cannot be written; what was written before is kept", path.display()))
    }

    pub fn write_text(&self, name: &str, text: &str) -> Result<()> {
        self.write(name, |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// Adds the rows of the steps `from .. to`.
    pub fn write_part(&self, kind: Kind, from: u64, to: u64, mut rows: DataFrame) -> Result<()> {
        self.write(&format!("{}-{from:06}-{to:06}.parquet", kind.name()), |file| {
            ParquetWriter::new(file).finish(&mut rows)?;
            Ok(())
        })
    }

    /// Removes every part that holds a step at or after `step`: rows that the checkpoint does not know.
    pub fn remove_parts_after(&self, step: u64) -> Result<()> {
        for kind in Kind::ALL {
            for (to, path) in self.parts(kind)? {
                if to > step {
                    fs::remove_file(&path).with_context(|| format!("{}: cannot be removed", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// The rows of one kind, in the order of the steps.
    ///
    /// # Errors
    /// No rows yet, or a part that is no parquet file; it is named.
    pub fn rows(&self, kind: Kind) -> Result<DataFrame> {
        let read = |(_, path): (u64, PathBuf)| -> Result<DataFrame> {
            let file = File::open(&path).with_context(|| format!("{}: cannot be opened", path.display()))?;
            ParquetReader::new(file)
                .finish()
                .with_context(|| format!("{}: not a readable parquet file", path.display()))
        };
        let frames: Result<Vec<_>> = self.parts(kind)?.into_iter().map(read).collect();
        stack(frames?).with_context(|| format!("{}: {} of this run", self.path.display(), kind.name()))
    }

    /// The steps whose rows are written.
    pub fn steps_written(&self) -> Result<u64> {
        if !self.path.exists() {
            return Ok(0);
        }
        Ok(self.parts(Kind::Steps)?.last().map_or(0, |(to, _)| *to))
    }

    /// (end step, path) of the parts of one kind, ascending.
    fn parts(&self, kind: Kind) -> Result<Vec<(u64, PathBuf)>> {
        let mut parts = Vec::new();
        let entries = fs::read_dir(&self.path).with_context(|| format!("{}: no such run", self.path.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(range) = name.strip_prefix(kind.name()).and_then(|n| n.strip_suffix(".parquet")) else { continue };
            let end = range.rsplit('-').next().and_then(|to| to.parse().ok());
            parts.push((end.with_context(|| format!("{}: not a part's name", path.display()))?, path));
        }
        parts.sort();
        Ok(parts)
    }
}

/// The step rows of a run.
pub fn steps(run: &RunFolder) -> Result<DataFrame> {
    run.rows(Kind::Steps)
}

/// The evaluation rows of a run.
pub fn evaluations(run: &RunFolder) -> Result<DataFrame> {
    run.rows(Kind::Evaluations)
}

/// The held-out responses of a run.
pub fn samples(run: &RunFolder) -> Result<DataFrame> {
    run.rows(Kind::Samples)
}
