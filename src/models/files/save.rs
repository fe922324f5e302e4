//! Writing a model in the hub's layout, so that transformers loads it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo, View};
use serde_json::{Map, Value, json};

use super::index::Index;
use super::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, INDEX, WEIGHTS};
use crate::models::Config;
use crate::models::names::Architecture;

/// The size above which a checkpoint is written in shards.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// What the names of shards begin with.
const STEMS: [&str; 2] = ["model", "model2"];

/// What goes along with the weights: the tokenizer's files and the settings of generation.
const COMPANIONS: [&str; 11] = [
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Writes `config.json` and the weights into a folder, which is made if absent: one `model.safetensors`, or shards of up
/// to `shard_bytes` bytes with an index (a larger tensor has a shard of its own). Weights that were there are replaced.
///
/// `origin` is the folder of the model that this one comes from: its tokenizer and the fields of its `config.json` that
/// change nothing here (token ids, labels) are taken over.
///
/// Each file is written under another name, synced and renamed: a crash leaves the old one or the new one. The weights
/// change in one step, also where there are several files: shards that replace shards get other names (`model2-..`),
/// and the index is renamed after them.
///
/// # Errors
/// A file that cannot be written, or one of the origin's that cannot be read; it is named.
pub fn save_model(
    folder: &Path,
    config: &Config,
    tensors: &BTreeMap<String, Tensor>,
    origin: Option<&Path>,
    shard_bytes: u64,
) -> Result<()> {
    ensure!(!tensors.is_empty(), "{}: a model without tensors is not written", folder.display());
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let mut staged = Staged { folder, files: Vec::new() };
    let fields = config_fields(config, tensors, origin)?;
    let shards = shards(tensors, shard_bytes);
    let stem = free_stem(folder);
    let mut weight_map = BTreeMap::new();
    let mut total_size = 0;
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => WEIGHTS.to_string(),
            n => format!("{stem}-{:05}-of-{n:05}.safetensors", i + 1),
        };
        staged.write(&name, |file| write_safetensors(file, shard))?;
        total_size += shard.iter().map(|(_, tensor)| size(tensor)).sum::<u64>();
        weight_map.extend(shard.iter().map(|(tensor, _)| (*tensor, name.clone())));
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
        staged.write_json(INDEX, &index)?;
    }
    staged.write_json(CONFIG, &Value::Object(fields))?;
    if let Some(origin) = origin.filter(|origin| !is_same(origin, folder)) {
        for name in COMPANIONS.into_iter().filter(|name| origin.join(name).is_file()) {
            let from = origin.join(name);
            let bytes = fs::read(&from).with_context(|| format!("{}: cannot be read", from.display()))?;
            staged.write(name, |file| Ok(file.write_all(&bytes)?))?;
        }
    }
    let old = weight_files(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    staged.put_into_place(old)
}

/// Writes adapters into a folder, which is made if absent, with the same care. A model that is there stays.
///
/// # Errors
/// A file that cannot be written; it is named.
pub fn save_adapter_files(folder: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let mut staged = Staged { folder, files: Vec::new() };
    let tensors: Shard = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    staged.write(ADAPTER_WEIGHTS, |file| write_safetensors(file, &tensors))?;
    staged.write_json(ADAPTER_CONFIG, config)?;
    staged.put_into_place(Vec::new())
}

/// Files that are written whole under other names and not yet renamed.
struct Staged<'a> {
    folder: &'a Path,
    files: Vec<String>,
}

impl Staged<'_> {
    fn write(&mut self, name: &str, content: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
        self.files.push(name.to_string());
        let written = (|| {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(self.staged(name))?);
            content(&mut file)?;
            file.into_inner()?.sync_all()?;
            anyhow::Ok(())
        })();
        written.with_context(|| {
            format!("{}: cannot be written; what was there before is kept", self.folder.join(name).display())
        })
    }

    fn write_json(&mut self, name: &str, value: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value)? + "\n";
        self.write(name, |file| Ok(file.write_all(text.as_bytes())?))
    }

    /// Renames the files in the order in which they were written, and removes those of `old` that they replace. A reader
    /// takes the single file before an index.
    fn put_into_place(self, old: Vec<String>) -> Result<()> {
        let in_place = (|| {
            for name in &self.files {
                fs::rename(self.staged(name), self.folder.join(name))?;
            }
            File::open(self.folder)?.sync_all()?;
            for name in old.into_iter().filter(|old| !self.files.contains(old)) {
                remove(&self.folder.join(name))?;
            }
            File::open(self.folder)?.sync_all()
        })();
        in_place.with_context(|| format!("{}: the files cannot be put into place", self.folder.display()))
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.new"))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        for name in &self.files {
            let _ = fs::remove_file(self.staged(name)); // the error that led here is the one to tell
        }
    }
}

/// The fields of the new `config.json`.
fn config_fields(
    config: &Config,
    tensors: &BTreeMap<String, Tensor>,
    origin: Option<&Path>,
) -> Result<Map<String, Value>> {
    let mut fields = match origin {
        Some(origin) => config.inert_fields(&origin.join(CONFIG))?,
        None => Map::new(),
    };
    for written_by_another in ["transformers_version", "dtype", "torch_dtype"] {
        fields.remove(written_by_another);
    }
    fields.extend(config.to_fields()?);
    let architecture = Architecture::of(config.model_type())?;
    let names = || tensors.keys().map(String::as_str);
    fields.insert("architectures".into(), json!([architecture.class(names())]));
    if architecture.is_reward_model(names()) {
        fields.insert("id2label".into(), json!({"0": "LABEL_0"}));
        fields.insert("label2id".into(), json!({"LABEL_0": 0}));
    }
    let mut dtypes: Vec<_> = tensors.values().map(Tensor::dtype).collect();
    dtypes.dedup();
    let dtype = match dtypes[..] {
        [DType::F32] => Some("float32"),
        [DType::F16] => Some("float16"),
        [DType::BF16] => Some("bfloat16"),
        _ => None,
    };
    if let Some(dtype) = dtype {
        fields.insert("torch_dtype".into(), dtype.into());
    }
    Ok(fields)
}

type Shard<'a> = Vec<(&'a str, &'a Tensor)>;

/// The tensors in their order, cut where the next one would exceed the limit.
fn shards(tensors: &BTreeMap<String, Tensor>, shard_bytes: u64) -> Vec<Shard<'_>> {
    let mut shards: Vec<Shard> = Vec::new();
    let mut filled = 0;
    for (name, tensor) in tensors {
        match shards.last_mut() {
            Some(shard) if filled + size(tensor) <= shard_bytes => shard.push((name, tensor)),
            _ => {
                shards.push(vec![(name, tensor)]);
                filled = 0;
            }
        }
        filled += size(tensor);
    }
    shards
}

fn size(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// Writes tensors one after another, wide types first so that all are aligned, with the mark that transformers asks for.
fn write_safetensors(out: &mut impl Write, tensors: &[(&str, &Tensor)]) -> Result<()> {
    let mut tensors = tensors.to_vec();
    tensors.sort_by_key(|(name, tensor)| (Reverse(Tensor::dtype(tensor).size_in_bytes()), *name));
    let mut end = 0;
    let mut infos = Vec::new();
    for (name, tensor) in &tensors {
        let begin = end;
        end += size(tensor) as usize;
        let info = TensorInfo {
            dtype: Dtype::from(Tensor::dtype(tensor)),
            shape: tensor.dims().to_vec(),
            data_offsets: (begin, end),
        };
        infos.push((name.to_string(), info));
    }
    let mark = HashMap::from([("format".to_string(), "pt".to_string())]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(mark), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (name, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu).with_context(|| format!("tensor {name}"))?;
        out.write_all(&View::data(&tensor))?;
    }
    Ok(())
}

/// What the new shards' names begin with: not what those of the present index do.
fn free_stem(folder: &Path) -> &'static str {
    match Index::read(&folder.join(INDEX)) {
        Ok(index) if index.files().iter().any(|name| is_shard(name, STEMS[0])) => STEMS[1],
        _ => STEMS[0],
    }
}

/// Whether a name is STEM-00001-of-00002.safetensors, with any numbers.
fn is_shard(name: &str, stem: &str) -> bool {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".safetensors"));
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(i, n)| is_number(i) && is_number(n))
}

/// The names of the files of weights in a folder that `save_model` may have written, finished or not.
fn weight_files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let stem = name.strip_suffix(".new").unwrap_or(&name);
        if stem == WEIGHTS || stem == INDEX || STEMS.iter().any(|shards| is_shard(stem, shards)) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
