//! What is made once and kept in `data/cache`.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The folder `data/cache/NAME-HASH`, with the hash of `key`, which is all that decides what is in it. Where it is absent,
/// `make` makes it in a folder of another name, which is renamed when it is whole: a crash leaves nothing that looks made.
/// Who asks while another thread or process makes it waits for that one.
///
/// # Errors
/// Those of `make`; a folder that cannot be written.
pub(super) fn kept(data: &Path, name: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let hash: String = Sha256::digest(key)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = data.join("cache");
    let folder = cache.join(format!("{name}-{hash}"));
    if folder.exists() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("{}: cannot be made", cache.display()))?;
    let lock = folder.with_extension("lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.with_context(|| format!("{}: cannot be locked", lock.display()))?;
    if !folder.exists() {
        let new = folder.with_extension("new");
        // Of one that died.
        let _ = std::fs::remove_dir_all(&new);
        std::fs::create_dir(&new).with_context(|| format!("{}: cannot be made", new.display()))?;
        make(&new)?;
        std::fs::rename(&new, &folder).with_context(|| format!("{}: cannot be written", folder.display()))?;
    }
    Ok(folder)
}

/// What to do about a kept folder that is damaged.
pub(super) fn damaged(folder: &Path) -> String {
    format!("{}: remove it, it is made again", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_threads_that_ask_at_once_one_makes() -> Result<()> {
        let data = tempfile::tempdir()?;
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let folder = kept(data.path(), "thing", "key", |folder| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(std::fs::write(folder.join("file"), "whole")?)
                    });
                    assert_eq!(std::fs::read(folder.unwrap().join("file")).unwrap(), b"whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        Ok(())
    }

    #[test]
    fn what_failed_is_made_anew() -> Result<()> {
        let data = tempfile::tempdir()?;
        let failed = kept(data.path(), "thing", "key", |folder| {
            std::fs::write(folder.join("half"), "")?;
            anyhow::bail!("in the middle")
        });
        assert!(failed.is_err());
        let folder = kept(data.path(), "thing", "key", |_| Ok(()))?;
        assert!(!folder.join("half").exists());
        Ok(())
    }
}
