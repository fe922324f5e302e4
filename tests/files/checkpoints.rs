//! Checkpoints as they are: mixed types, integer buffers, names without a prefix, every architecture's own file.

use candle_core::{DType, Device};
use qstar::models::{Architecture, Head, Purpose, canonical_names, load_folder, read_model, save_folder};

use super::*;

#[test]
fn halves_and_bytes_are_read_exactly() {
    // 1.5, -2, and the smallest half above zero (2^-24), in each type's bits.
    let file = safetensors(&[
        ("bf16", "BF16", &[2], &[0xc0, 0x3f, 0x00, 0xc0]),
        ("bool", "BOOL", &[1, 2], &[1, 0]),
        ("f16", "F16", &[3], &[0x00, 0x3e, 0x00, 0xc0, 0x01, 0x00]),
        ("f32", "F32", &[2], &f32s(&[1.5, -2.0])),
        ("f64", "F64", &[1], &1.5f64.to_le_bytes()),
        ("i64", "I64", &[2], &[1i64.to_le_bytes(), (-7i64).to_le_bytes()].concat()),
        ("scalar", "F32", &[], &f32s(&[4.0])),
    ]);
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), file);
    let files = open(folder.path()).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let tensors = files.read_all(dtype, &Device::Cpu).unwrap();
        for name in ["bf16", "f16", "f32", "f64", "scalar"] {
            assert_eq!(tensors[name].dtype(), dtype, "{name}");
        }
        assert_eq!(values(&tensors["bf16"]), [1.5, -2.0]);
        assert_eq!(values(&tensors["f16"]), [1.5, -2.0, 2f32.powi(-24)]);
        assert_eq!(values(&tensors["f32"]), [1.5, -2.0]);
        assert_eq!(values(&tensors["f64"]), [1.5]);
        assert_eq!((tensors["scalar"].dims().len(), values(&tensors["scalar"])), (0, vec![4.0]));
        // Integers are handed on as they are.
        assert_eq!(tensors["bool"].to_vec2::<u8>().unwrap(), [[1, 0]]);
        assert_eq!(tensors["i64"].to_vec1::<i64>().unwrap(), [1, -7]);
    }
    assert_eq!(files.dtype("f16").unwrap(), DType::F16);
    assert_error(files.read("g", DType::F32, &Device::Cpu), &["tensor g", "model.safetensors"]);
}

#[test]
fn the_hubs_gpt2_is_read_under_the_models_names() {
    // As openai-community/gpt2: no prefix, and two buffers a layer.
    let (saved, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = gpt2();
    save_folder(&model, saved.path()).unwrap();
    let mut tensors: Tensors = tensors(&model)
        .into_iter()
        .map(|(name, t)| (name.strip_prefix("transformer.").unwrap().to_string(), t))
        .collect();
    for layer in 0..2 {
        tensors.insert(format!("h.{layer}.attn.bias"), noise(&[1, 1, 8, 8], layer));
        tensors.insert(format!("h.{layer}.attn.masked_bias"), noise(&[], layer));
    }
    fs::copy(saved.path().join("config.json"), hub.path().join("config.json")).unwrap();
    write(&hub.path().join("model.safetensors"), ::safetensors::serialize(&tensors, None).unwrap());
    let loaded = load_folder(hub.path()).unwrap();
    assert_same(&super::tensors(&loaded), &super::tensors(&model));
    let stored = read_model(&folder(hub.path()), Purpose::LanguageModel, DType::BF16, &Device::Cpu).unwrap();
    assert_eq!(stored.names.unread.len(), 4);
    assert!(stored.tensors.values().all(|tensor| tensor.dtype() == DType::BF16));
}

/// What transformers wrote for every architecture is read whole, under the names that it wrote, and is recognised.
#[test]
fn the_files_of_every_architecture_keep_their_names() {
    for name in [
        "gpt2",
        "gpt2-gelu",
        "gpt2-reward",
        "gpt-neox",
        "gpt-neox-sequential",
        "gpt-neox-reward",
        "llama-1",
        "llama-2",
        "llama-3",
        "llama-linear",
        "llama-bias",
        "llama-reward",
        "bert",
        "roberta",
        "distilbert",
        "deberta-v2",
        "deberta-v3",
        "deberta-plain",
    ] {
        let path = fixture(name);
        let config: Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
        let architecture = Architecture::of(config["model_type"].as_str().unwrap()).unwrap();
        let files = open(&path).unwrap();
        let class = architecture.class(files.names());
        assert_eq!(config["architectures"], json!([class]), "{name}");
        let is_reward = architecture.is_reward_model(files.names());
        assert_eq!(is_reward, class.ends_with("ForSequenceClassification"), "{name}");
        let tied = config["tie_word_embeddings"] == true;
        let purpose = if is_reward { Purpose::RewardModel(Head::Stored) } else { Purpose::LanguageModel };
        let names = canonical_names(architecture, purpose, tied, files.names()).unwrap();
        assert!(names.kept.iter().all(|(model, stored)| model == stored), "{name}: {:?}", names.kept);
        assert_eq!(names.kept.len(), files.names().count(), "{name}");
        // As a base for a reward model with a fresh head, only heads are dropped.
        let purpose = Purpose::RewardModel(Head::Fresh(0));
        let names = canonical_names(architecture, purpose, tied, files.names()).unwrap();
        assert_eq!(names.kept.len() + names.dropped.len(), files.names().count(), "{name}");
        let has_head = is_reward || !tied;
        assert_eq!(!names.dropped.is_empty(), has_head, "{name}: {:?}", names.dropped);
        if is_reward {
            let (mut dropped, mut fresh) = (names.dropped, names.fresh);
            dropped.sort();
            fresh.sort();
            assert_eq!(dropped, fresh, "{name}");
        }
    }
}
