//! What `fixtures/models.py` wrote: a checkpoint, a batch, and transformers' numbers for it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use qstar::models::{Head, LanguageModel, RewardModel, Source, load_folder, load_reward_model};

pub struct Fixture {
    pub name: &'static str,
    /// `expected.safetensors`.
    tensors: HashMap<String, Tensor>,
}

/// Rows of one padded batch without their padding.
pub struct Rows {
    pub rows: Vec<Vec<u32>>,
    /// The place of every real token in the flattened `[B·T]`, row after row.
    pub places: Vec<usize>,
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

pub fn language_model(name: &str) -> LanguageModel {
    load_folder(&folder(name)).unwrap()
}

pub fn reward_model(name: &str) -> RewardModel {
    load_reward_model(&Source::Folder(folder(name)), Head::Stored).unwrap()
}

impl Fixture {
    pub fn new(name: &'static str) -> Self {
        Self::read(name, &folder(name).join("expected.safetensors"))
    }

    pub fn read(name: &'static str, path: &Path) -> Self {
        Self { name, tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap() }
    }

    pub fn tensor(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no {key} in the fixture", self.name))
    }

    pub fn values(&self, key: &str) -> Vec<f32> {
        values(self.tensor(key))
    }

    pub fn scalar(&self, key: &str) -> f64 {
        f64::from(self.values(key)[0])
    }

    /// The rows of `PREFIXinput_ids`, on whichever side they are padded.
    pub fn rows(&self, prefix: &str) -> Rows {
        let ids = self.tensor(&format!("{prefix}input_ids")).to_vec2::<u32>().unwrap();
        let mask = self.tensor(&format!("{prefix}attention_mask")).to_vec2::<u32>().unwrap();
        let real = |mask: &[u32]| (0..mask.len()).filter(|&t| mask[t] == 1).collect::<Vec<_>>();
        let rows = ids.iter().zip(&mask).map(|(ids, mask)| real(mask).iter().map(|&t| ids[t]).collect());
        let places = mask
            .iter()
            .enumerate()
            .flat_map(|(row, mask)| real(mask).into_iter().map(move |t| row * mask.len() + t))
            .collect();
        Rows { rows: rows.collect(), places }
    }

    /// The names of the tensors that have a gradient.
    pub fn gradient_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().filter_map(|key| key.strip_prefix("grad.")).collect();
        names.sort_unstable();
        names
    }
}

impl Rows {
    /// Padded on the right, as the library reads them: `[B, T]`.
    pub fn ids(&self) -> Tensor {
        let time = self.rows.iter().map(Vec::len).max().unwrap();
        let mut ids = vec![0u32; self.rows.len() * time];
        for (to, row) in ids.chunks_exact_mut(time).zip(&self.rows) {
            to[..row.len()].copy_from_slice(row);
        }
        Tensor::from_vec(ids, (self.rows.len(), time), &Device::Cpu).unwrap()
    }
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap().to_vec1().unwrap()
}

/// The largest difference.
pub fn gap(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|x| x.is_finite()));
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}
