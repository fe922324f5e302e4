//! Files of models: found, read, refused with a reason, written, and loaded by transformers.

#[path = "files/checkpoints.rs"]
mod checkpoints;
#[path = "files/configs.rs"]
mod configs;
#[path = "files/damaged.rs"]
mod damaged;
#[path = "files/hub.rs"]
mod hub;
#[path = "files/process.rs"]
mod process;
#[path = "files/python.rs"]
mod python;
#[path = "files/saved.rs"]
mod saved;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use qstar::models::{Config, Gpt2Config, GptNeoxConfig, LanguageModel, LlamaConfig, Source, TensorFiles};
use serde_json::{Map, Value, json};

type Tensors = BTreeMap<String, Tensor>;

fn gpt2() -> LanguageModel {
    let config = Gpt2Config { vocab_size: 17, n_positions: 8, n_embd: 8, n_layer: 2, n_head: 2, ..Default::default() };
    LanguageModel::new(Config::Gpt2(config), 3).unwrap()
}

fn llama() -> LanguageModel {
    let config = LlamaConfig {
        vocab_size: 17,
        max_position_embeddings: 8,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        ..Default::default()
    };
    LanguageModel::new(Config::Llama(config), 3).unwrap()
}

fn gpt_neox() -> LanguageModel {
    let config = GptNeoxConfig {
        vocab_size: 17,
        max_position_embeddings: 8,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 1,
        ..Default::default()
    };
    LanguageModel::new(Config::GptNeox(config), 3).unwrap()
}

fn tensors(model: &LanguageModel) -> Tensors {
    model.params.tensors().into_iter().collect()
}

/// A folder of `tests/fixtures/models`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn folder(path: &Path) -> Source {
    Source::Folder(path.to_path_buf())
}

fn open(path: &Path) -> anyhow::Result<TensorFiles> {
    TensorFiles::open(&folder(path).weights()?)
}

/// The message of what must be an error, and must hold all of `parts`.
fn assert_error<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error; expected one with {parts:?}") };
    let message = format!("{error:#}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// The bytes of a safetensors file: entries of (name, type, shape, bytes).
fn safetensors(entries: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in entries {
        let begin = data.len();
        data.extend_from_slice(bytes);
        header.insert(name.to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    with_header(&Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, a) in a {
        let b = &b[name];
        assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()), "{name}");
        assert_eq!(values(a), values(b), "{name}");
    }
}

/// Seeded values, none of them special.
fn noise(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| ((i * 37 + seed * 101) as f32 * 0.37).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}
