//! Where the files of a model or a data set are: in a folder, or in a repository of the hub.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::index::Index;
use super::{CONFIG, INDEX, WEIGHTS};

/// Where the files of a model or a data set are.
///
/// ```
/// use qstar::models::Source;
/// let gpt2 = Source::parse("openai-community/gpt2")?;
/// assert_eq!(gpt2, Source::Hub { repository: "openai-community/gpt2".into(), revision: "main".into() });
/// assert_eq!(Source::parse("owner/name@v2")?.to_string(), "owner/name@v2");
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Folder(PathBuf),
    /// A repository `owner/name`. The revision is a branch, a tag or a commit's 40 hexadecimal digits.
    Hub {
        repository: String,
        revision: String,
    },
    /// The same, of a data set.
    Dataset {
        repository: String,
        revision: String,
    },
}

/// The files that hold a model's weights.
#[derive(Debug)]
pub struct WeightFiles {
    pub(super) paths: Vec<PathBuf>,
    pub(super) index: Option<Index>,
}

impl WeightFiles {
    /// One file.
    pub fn single(path: PathBuf) -> Self {
        Self { paths: vec![path], index: None }
    }

    /// The folder of the first file.
    pub fn folder(&self) -> Option<&Path> {
        self.paths.first().and_then(|path| path.parent())
    }
}

/// The names under which weights are looked for; the first that is there is read.
const CANDIDATES: [&str; 4] = [WEIGHTS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json"];

impl Source {
    /// The branch `main` of a repository.
    pub fn hub(repository: &str) -> Self {
        Source::Hub { repository: repository.to_string(), revision: "main".to_string() }
    }

    /// The branch `main` of a data set's repository.
    pub fn dataset(repository: &str) -> Self {
        Source::Dataset { repository: repository.to_string(), revision: "main".to_string() }
    }

    /// A folder that exists, else `owner/name` or `owner/name@revision` of a data set.
    ///
    /// # Errors
    /// Neither.
    pub fn parse_dataset(name: &str) -> Result<Self> {
        Ok(match Self::parse(name)? {
            Source::Hub { repository, revision } => Source::Dataset { repository, revision },
            other => other,
        })
    }

    /// A folder that exists, else `owner/name` or `owner/name@revision` of a model.
    ///
    /// # Errors
    /// Neither.
    pub fn parse(name: &str) -> Result<Self> {
        if Path::new(name).is_dir() {
            return Ok(Source::Folder(name.into()));
        }
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        let parts: Vec<_> = repository.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        ensure!(
            parts.len() == 2 && parts.iter().all(plain) && !revision.is_empty(),
            "{name}: neither a folder that is there nor a repository's name (owner/name or owner/name@revision)"
        );
        Ok(Source::Hub { repository: repository.to_string(), revision: revision.to_string() })
    }

    /// The path of one file, such as `tokenizer.json`. From the hub: out of the cache under `HF_HOME`, else downloaded
    /// into it.
    ///
    /// # Errors
    /// It is not there, nor to be downloaded; the file and the place are named.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if let Some(path) = self.local_file(name) {
            return Ok(path);
        }
        match self {
            Source::Folder(folder) => bail!("{}: there is no such file", folder.join(name).display()),
            Source::Hub { .. } | Source::Dataset { .. } => {
                self.api().and_then(|api| Ok(api.get(name)?)).with_context(|| {
                    format!(
                        "{self}: {name} is neither in the hub's cache {} nor to be downloaded",
                        cache().path().display()
                    )
                })
            }
        }
    }

    /// The path of `config.json`.
    pub fn config(&self) -> Result<PathBuf> {
        self.file(CONFIG)
    }

    /// The files that hold the weights: `model.safetensors`; or the shards that its index names; or the same of
    /// `pytorch_model.bin`.
    ///
    /// # Errors
    /// There are none, or a shard is missing.
    pub fn weights(&self) -> Result<WeightFiles> {
        let name = self.weights_name()?;
        let path = self.file(name)?;
        if !name.ends_with(".json") {
            return Ok(WeightFiles::single(path));
        }
        let index = Index::read(&path)?;
        let paths: Result<_> = index.files().into_iter().map(|shard| self.file(shard)).collect();
        let paths = paths.with_context(|| format!("{}: a shard is missing", path.display()))?;
        Ok(WeightFiles { paths, index: Some(index) })
    }

    /// The path of a file, `None` where it is not there: neither in the folder, nor in the cache, nor in the hub's listing.
    /// Where the hub cannot be asked, what the cache lacks is not there.
    pub fn file_if_there(&self, name: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.local_file(name) {
            return Ok(Some(path));
        }
        match self.api().and_then(|api| Ok(api.info()?)) {
            Ok(listing) if listing.siblings.iter().any(|file| file.rfilename == name) => self.file(name).map(Some),
            _ => Ok(None),
        }
    }

    /// The path of a file that is in the folder or in the cache.
    fn local_file(&self, name: &str) -> Option<PathBuf> {
        match self {
            Source::Folder(folder) => Some(folder.join(name)).filter(|path| path.is_file()),
            Source::Hub { revision, .. } | Source::Dataset { revision, .. } => {
                let cache = cache().repo(self.repo()?);
                let commit = revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit());
                // hf-hub finds a commit only under a reference; other programs write none for a commit.
                let pinned = commit.then(|| cache.pointer_path(revision).join(name)).filter(|path| path.is_file());
                pinned.or_else(|| cache.get(name))
            }
        }
    }

    fn weights_name(&self) -> Result<&'static str> {
        if let Some(name) = CANDIDATES.into_iter().find(|name| self.local_file(name).is_some()) {
            return Ok(name);
        }
        let none = || format!("{self}: no weights are there; looked for {}", CANDIDATES.join(", "));
        let Source::Hub { .. } = self else { bail!(none()) };
        let listing = self.api().and_then(|api| Ok(api.info()?)).with_context(|| {
            format!(
                "{self}: no weights are in the hub's cache {} (looked for {}), and the hub cannot be asked",
                cache().path().display(),
                CANDIDATES.join(", ")
            )
        })?;
        let is_listed = |name: &&str| listing.siblings.iter().any(|file| file.rfilename == *name);
        CANDIDATES.into_iter().find(is_listed).with_context(none)
    }

    fn repo(&self) -> Option<Repo> {
        let (kind, repository, revision) = match self {
            Source::Folder(_) => return None,
            Source::Hub { repository, revision } => (RepoType::Model, repository, revision),
            Source::Dataset { repository, revision } => (RepoType::Dataset, repository, revision),
        };
        Some(Repo::with_revision(repository.clone(), kind, revision.clone()))
    }

    fn api(&self) -> Result<ApiRepo> {
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
        ensure!(!["1", "true", "yes", "on"].contains(&offline.to_lowercase().as_str()), "HF_HUB_OFFLINE is set");
        // `Api::new` would ignore HF_HOME.
        let api = ApiBuilder::from_env().build()?;
        Ok(api.repo(self.repo().context("a folder")?))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Folder(folder) => write!(f, "{}", folder.display()),
            Source::Hub { repository, revision } | Source::Dataset { repository, revision } => match &revision[..] {
                "main" => f.write_str(repository),
                _ => write!(f, "{repository}@{revision}"),
            },
        }
    }
}

/// The hub's cache under `HF_HOME`.
fn cache() -> Cache {
    Cache::from_env()
}
