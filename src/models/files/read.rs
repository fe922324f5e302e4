//! Reading tensors from the files of a checkpoint, one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};

use super::header::{Place, read_header};
use super::index::Index;
use super::source::WeightFiles;

/// The opened files of a checkpoint. The headers are checked, no value is read yet.
///
/// Files are read, not mapped: a mapped file that another process cuts short kills this one, and its pages count as
/// this process's memory.
pub struct TensorFiles {
    files: Vec<TensorFile>,
    /// For each tensor the file that holds it.
    tensors: BTreeMap<String, usize>,
}

struct TensorFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors(File, BTreeMap<String, Place>),
    /// A state dict of `torch.save`. candle interprets the few instructions that tensors need, and runs no code.
    Pickle(PthTensors),
}

/// What turns a file of `torch.save` into one that is read here.
const CONVERT: &str = "python -c \"import torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for k, v \
                       in torch.load('pytorch_model.bin', map_location='cpu', weights_only=True).items()}, \
                       'model.safetensors', metadata={'format': 'pt'})\"";

impl TensorFiles {
    /// Opens the files and checks their headers, against the index where there is one.
    ///
    /// # Errors
    /// A file that is missing, empty, truncated or of another format; a type that is not read; a tensor in two files; an
    /// index that does not say what is in the files. The file and the tensor are named.
    pub fn open(weights: &WeightFiles) -> Result<Self> {
        let files: Vec<_> = weights.paths.iter().map(|path| TensorFile::open(path)).collect::<Result<_>>()?;
        let mut tensors = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = tensors.insert(name.to_string(), i) {
                    bail!("tensor {name} is in {} and in {}", files[other].path.display(), file.path.display())
                }
            }
        }
        let all = Self { files, tensors };
        if let Some(index) = &weights.index {
            all.check(index).with_context(|| index.path.display().to_string())?;
        }
        Ok(all)
    }

    /// The tensors' names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The type as it is stored; bool counts as u8.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        let file = self.file(name)?;
        match &file.content {
            Content::Safetensors(_, places) => places.get(name).map(|place| place.dtype),
            Content::Pickle(pickle) => pickle.tensor_infos().get(name).map(|info| info.dtype),
        }
        .with_context(|| format!("{}: it holds no tensor {name}", file.path.display()))
    }

    /// The file that holds a tensor.
    pub fn path(&self, name: &str) -> Result<&Path> {
        Ok(&self.file(name)?.path)
    }

    /// Reads one tensor. Floating-point values are converted to `dtype`, integers stay as they are.
    ///
    /// # Errors
    /// A tensor that is not there or a file that cannot be read; both are named.
    pub fn read(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let file = self.file(name)?;
        let tensor = file.read(name, device).with_context(|| format!("{}: tensor {name}", file.path.display()))?;
        match tensor.dtype().is_float() {
            true => Ok(tensor.to_dtype(dtype)?),
            false => Ok(tensor),
        }
    }

    /// Reads every tensor.
    pub fn read_all(&self, dtype: DType, device: &Device) -> Result<BTreeMap<String, Tensor>> {
        self.names().map(|name| Ok((name.to_string(), self.read(name, dtype, device)?))).collect()
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        match self.tensors.get(name) {
            Some(&i) => Ok(&self.files[i]),
            None => {
                let paths: Vec<_> = self.files.iter().map(|file| file.path.display().to_string()).collect();
                bail!("tensor {name} is not in {}", paths.join(", "))
            }
        }
    }

    fn check(&self, index: &Index) -> Result<()> {
        for (name, shard) in &index.weight_map {
            let Some(&i) = self.tensors.get(name) else { bail!("tensor {name} should be in {shard}, which lacks it") };
            let path = &self.files[i].path;
            ensure!(
                path.file_name().is_some_and(|file| file == shard.as_str()),
                "tensor {name} should be in {shard}, it is in {}",
                path.display()
            );
        }
        match self.tensors.iter().find(|(name, _)| !index.weight_map.contains_key(*name)) {
            None => Ok(()),
            Some((name, &i)) => bail!("tensor {name} of {} is not in the index", self.files[i].path.display()),
        }
    }
}

impl TensorFile {
    fn open(path: &Path) -> Result<Self> {
        let content: Result<Content> = (|| {
            let mut file = File::open(path)?;
            if path.extension().is_some_and(|extension| extension == "bin") {
                return Ok(Content::Pickle(open_pickle(path, &mut file)?));
            }
            let places = read_header(&mut file)?;
            Ok(Content::Safetensors(file, places))
        })();
        Ok(Self { path: path.to_path_buf(), content: content.with_context(|| path.display().to_string())? })
    }

    fn names(&self) -> Vec<&str> {
        match &self.content {
            Content::Safetensors(_, places) => places.keys().map(String::as_str).collect(),
            Content::Pickle(pickle) => pickle.tensor_infos().keys().map(String::as_str).collect(),
        }
    }

    fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        match &self.content {
            Content::Safetensors(file, places) => {
                let place = places.get(name).context("it is not in the file")?;
                let mut bytes = vec![0; place.bytes];
                file.read_exact_at(&mut bytes, place.offset)?;
                Ok(Tensor::from_raw_buffer(&bytes, place.dtype, &place.shape, device)?)
            }
            Content::Pickle(pickle) => {
                let tensor = pickle.get(name)?.context("it is not in the file")?;
                Ok(tensor.contiguous()?.to_device(device)?)
            }
        }
    }
}

/// Opens a zip archive of `torch.save`. What torch wrote before its version 1.6 is no zip archive.
fn open_pickle(path: &Path, file: &mut File) -> Result<PthTensors> {
    ensure!(file.metadata()?.len() > 0, "the file is empty");
    let mut magic = [0; 4];
    let is_zip = file.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04";
    ensure!(is_zip, "not a zip archive, as torch.save writes since 1.6; this converts it in its folder: {CONVERT}");
    let pickle = PthTensors::new(path, None).with_context(|| {
        format!("not readable as a state dict of torch.save; this converts it in its folder: {CONVERT}")
    })?;
    ensure!(!pickle.tensor_infos().is_empty(), "it holds no tensors at its top level; this may convert it: {CONVERT}");
    Ok(pickle)
}
