//! What is made once and kept in `data/cache`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The folder `data/cache/NAME-HASH`, with the hash of `key`, which is all that decides what is in it. Where it is absent,
/// `make` makes it in a folder of another name, which is renamed when it is whole: a crash leaves nothing that looks made,
/// and of two processes one is faster.
///
/// # Errors
/// Those of `make`; a folder that cannot be written.
pub(super) fn kept(data: &Path, name: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let hash: String = Sha256::digest(key)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = data.join("cache").join(format!("{name}-{hash}"));
    if !folder.exists() {
        let new = folder.with_extension(format!("new-{}", std::process::id()));
        std::fs::create_dir_all(&new).with_context(|| format!("{}: cannot be made", new.display()))?;
        make(&new)?;
        let renamed = std::fs::rename(&new, &folder);
        if folder.exists() {
            let _ = std::fs::remove_dir_all(&new); // what is left of it is in nobody's way
        } else {
            renamed.with_context(|| format!("{}: cannot be written", folder.display()))?;
        }
    }
    Ok(folder)
}

/// What to do about a kept folder that is damaged.
pub(super) fn damaged(folder: &Path) -> String {
    format!("{}: remove it, it is made again", folder.display())
}
