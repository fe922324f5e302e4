//! Answers on disk: one file an answer, named by the hash of the whole question.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What a server said it has read and written, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(rename = "prompt_tokens")]
    pub prompt: u64,
    #[serde(rename = "completion_tokens")]
    pub answer: u64,
}

/// An answer as it came. The verdict is read from it anew each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The hash that the file is named by.
    pub key: String,
    pub model: String,
    pub template: String,
    pub text: String,
    /// Why there may be no text: the server's `finish_reason`.
    pub finish: Option<String>,
    pub usage: Option<Usage>,
}

/// A folder of entries. Any number of threads and processes can share it.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("{}: the cache's folder cannot be made", folder.display()))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// # Errors
    /// A file that is no entry of this key. It was paid for, so it is not replaced in silence.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        let path = self.path(key);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{}: cannot be read", path.display())),
        };
        let damaged = || format!("{}: not an answer of the cache; delete the file to ask again", path.display());
        let entry: Entry = serde_json::from_str(&text).with_context(damaged)?;
        if entry.key != key {
            bail!(damaged());
        }
        Ok(Some(entry))
    }

    /// Written under another name, synced, and renamed into place: an entry is whole or absent.
    pub fn put(&self, entry: &Entry) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = self.path(&entry.key);
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let new = path.with_extension(format!("{unique}.new"));
        let written = (|| {
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(entry)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            anyhow::Ok(())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new); // the first error is the one to tell
        }
        written.with_context(|| format!("{}: an answer cannot be kept", path.display()))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(format!("{key}.json"))
    }
}
