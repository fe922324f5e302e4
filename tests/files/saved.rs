//! Saving: round trips, shards, what replaces what, and what a failure or a crash leaves.

use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use qstar::models::{LoraConfig, Purpose, load_folder, read_model, save_folder, save_model};

use super::process::child;
use super::*;

/// The files of a folder, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn load(path: &Path) -> Tensors {
    let source = folder(path);
    let dtype = TensorFiles::open(&source.weights().unwrap()).unwrap();
    let dtype = dtype.dtype(dtype.names().next().unwrap()).unwrap();
    read_model(&source, Purpose::LanguageModel, dtype, &Device::Cpu).unwrap().tensors
}

#[test]
fn a_model_comes_back_bit_by_bit_in_every_type_and_in_any_number_of_shards() {
    for model in [gpt2(), gpt_neox(), llama()] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let tensors: Tensors =
                tensors(&model).into_iter().map(|(name, t)| (name, t.to_dtype(dtype).unwrap())).collect();
            let bytes: usize = tensors.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum();
            for limit in [u64::MAX, bytes as u64, bytes as u64 - 1, 700, 1] {
                let path = tempfile::tempdir().unwrap();
                save_model(path.path(), &model.config, &tensors, None, limit).unwrap();
                assert_same(&load(path.path()), &tensors);
                assert_eq!(Config::read(&path.path().join("config.json")).unwrap(), model.config);
                let shards = listing(path.path()).iter().filter(|name| name.ends_with(".safetensors")).count();
                match limit {
                    1 => assert_eq!(shards, tensors.len()),
                    limit if limit >= bytes as u64 => assert_eq!(shards, 1),
                    _ => assert!(shards > 1),
                }
            }
        }
    }
}

#[test]
fn shards_keep_their_limit_and_the_index_says_what_is_where() {
    let path = tempfile::tempdir().unwrap();
    let model = gpt2();
    save_model(path.path(), &model.config, &tensors(&model), None, 1500).unwrap();
    let index: Value =
        serde_json::from_slice(&fs::read(path.path().join("model.safetensors.index.json")).unwrap()).unwrap();
    let total: usize = tensors(&model).values().map(|t| t.elem_count() * 4).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), tensors(&model).len());
    let shards: Vec<_> = listing(path.path()).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    for (i, name) in shards.iter().enumerate() {
        assert_eq!(*name, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        let bytes = fs::read(path.path().join(name)).unwrap();
        // The crate's own reader, not ours.
        let (_, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert!(metadata.data_len() <= 1500 || metadata.tensors().len() == 1, "{name}");
        for tensor in metadata.tensors().keys() {
            assert_eq!(index["weight_map"][tensor], *name);
        }
    }
}

#[test]
fn a_view_and_a_scalar_are_written_by_their_values() {
    let path = tempfile::tempdir().unwrap();
    let model = gpt2();
    let mut all = tensors(&model);
    let view = noise(&[17, 16], 1).narrow(1, 4, 8).unwrap();
    assert!(!view.is_contiguous());
    all.insert("transformer.wte.weight".into(), view.clone());
    all.insert("transformer.wpe.weight".into(), noise(&[8, 8], 2).t().unwrap());
    save_model(path.path(), &model.config, &all, None, u64::MAX).unwrap();
    assert_same(&load(path.path()), &all);
}

#[test]
fn new_weights_replace_the_old_ones_whatever_their_number() {
    let path = tempfile::tempdir().unwrap();
    let model = gpt2();
    for (round, limit) in [u64::MAX, 1500, 700, 700, u64::MAX, u64::MAX].into_iter().enumerate() {
        let new: Tensors = tensors(&model).into_iter().map(|(name, t)| (name, (t + round as f64).unwrap())).collect();
        write(&path.path().join("model-00001-of-00009.safetensors.new"), "left by a crash");
        save_model(path.path(), &model.config, &new, None, limit).unwrap();
        assert_same(&load(path.path()), &new);
        let names = listing(path.path());
        let is_single = limit == u64::MAX;
        assert_eq!(names.contains(&"model.safetensors".to_string()), is_single, "{names:?}");
        assert_eq!(names.contains(&"model.safetensors.index.json".to_string()), !is_single, "{names:?}");
        assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
        if is_single {
            assert_eq!(names, ["config.json", "model.safetensors"]);
        }
    }
}

#[test]
fn the_tokenizer_and_inert_fields_come_along() {
    let (origin, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = gpt2();
    save_folder(&model, origin.path()).unwrap();
    let file = origin.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let more = [
        ("eos_token_id", json!(4)),
        ("attn_pdrop", json!(0.0)),
        ("transformers_version", json!("4.0")),
        ("dtype", json!("float16")),
    ];
    for (name, value) in more {
        fields[name] = value;
    }
    write(&file, fields.to_string());
    write(&origin.path().join("tokenizer.json"), "{\"version\": \"1.0\"}");
    write(&origin.path().join("notes.txt"), "not of the model");
    for target in [path.path(), origin.path()] {
        save_model(target, &model.config, &tensors(&model), Some(origin.path()), u64::MAX).unwrap();
        let saved: Value = serde_json::from_slice(&fs::read(target.join("config.json")).unwrap()).unwrap();
        assert_eq!((&saved["eos_token_id"], &saved["attn_pdrop"]), (&json!(4), &json!(0.0)));
        assert_eq!(saved["architectures"], json!(["GPT2LMHeadModel"]));
        assert_eq!((&saved["torch_dtype"], &saved["dtype"]), (&json!("float32"), &Value::Null));
        assert_eq!(saved["transformers_version"], Value::Null);
        assert_eq!(fs::read_to_string(target.join("tokenizer.json")).unwrap(), "{\"version\": \"1.0\"}");
    }
    assert_eq!(listing(path.path()), ["config.json", "model.safetensors", "tokenizer.json"]);
    let gone = origin.path().join("gone");
    let saved = save_model(path.path(), &model.config, &tensors(&model), Some(&gone), u64::MAX);
    assert_error(saved, &["gone/config.json", "cannot be read"]);
}

#[test]
fn a_failure_keeps_what_was_there_and_leaves_nothing_else() {
    let path = tempfile::tempdir().unwrap();
    let model = gpt2();
    save_folder(&model, path.path()).unwrap();
    let before = listing(path.path());
    // A folder in the place of the configuration's new file: the weights are staged by then.
    fs::create_dir(path.path().join("config.json.new")).unwrap();
    let moved = LanguageModel::new(model.config.clone(), 9).unwrap();
    assert_error(save_folder(&moved, path.path()), &["config.json", "cannot be written", "kept"]);
    fs::remove_dir(path.path().join("config.json.new")).unwrap();
    assert_eq!(listing(path.path()), before);
    assert_same(&tensors(&load_folder(path.path()).unwrap()), &tensors(&model));
    assert_error(save_model(path.path(), &model.config, &Tensors::new(), None, 1), &["without tensors"]);
    let lora = LoraConfig { rank: 2, alpha: 4.0, dropout: 0.0, targets: vec!["c_attn".into()] };
    let adapted = model.with_lora(&lora, 0).unwrap();
    assert_error(save_folder(&adapted, path.path()), &["merged before it is saved"]);
    save_folder(&adapted.merged().unwrap(), path.path()).unwrap();
}

/// Saves two models into one folder in turn, until it is killed.
#[test]
#[ignore = "a process of its own, started by the test below"]
fn child_saves_until_it_is_killed() {
    let Some((path, limit)) = std::env::var("QSTAR_TEST_FOLDER").ok().zip(std::env::var("QSTAR_TEST_LIMIT").ok())
    else {
        return;
    };
    let model = gpt2();
    for round in 0.. {
        let all = constant(&model, (round % 2) as f64);
        save_model(Path::new(&path), &model.config, &all, None, limit.parse().unwrap()).unwrap();
    }
}

/// A model whose every value is one number.
fn constant(model: &LanguageModel, value: f64) -> Tensors {
    tensors(model).into_iter().map(|(name, t)| (name, (t.zeros_like().unwrap() + value).unwrap())).collect()
}

#[test]
fn a_killed_process_leaves_the_old_or_the_new_weights() {
    for limit in [u64::MAX, 700] {
        let path = tempfile::tempdir().unwrap();
        let model = gpt2();
        save_model(path.path(), &model.config, &constant(&model, 0.0), None, limit).unwrap();
        let mut seen = [0, 0];
        for kill in 0..40 {
            let mut child = child("saved::child_saves_until_it_is_killed")
                .env("QSTAR_TEST_FOLDER", path.path())
                .env("QSTAR_TEST_LIMIT", limit.to_string())
                .spawn()
                .unwrap();
            let begin = Instant::now();
            // Until the child is at work, and then some time more.
            let new = |name: &str| name.ends_with(".new");
            while !listing(path.path()).iter().any(|name| new(name)) && begin.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(1700 * kill));
            child.kill().unwrap();
            child.wait().unwrap();
            let all = open(path.path()).unwrap().read_all(DType::F32, &Device::Cpu).unwrap();
            let value = values(&all["transformer.ln_f.bias"])[0];
            assert_same(&all, &constant(&model, f64::from(value)));
            seen[value as usize] += 1;
        }
        println!("limit {limit}: the two models were found {seen:?} times");
    }
}
