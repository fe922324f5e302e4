//! Every way in which a file of weights can be wrong: one error that names the file and the tensor.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use qstar::models::{Head, Purpose, read_model};
use serde_json::json;

use super::*;

/// A folder with one `model.safetensors` of these bytes.
fn one_file(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), bytes);
    folder
}

fn assert_damaged(bytes: &[u8], parts: &[&str]) {
    let folder = one_file(bytes);
    assert_error(open(folder.path()), &[&["model.safetensors"], parts].concat());
}

fn good() -> Vec<u8> {
    safetensors(&[("a", "F32", &[2], &f32s(&[1.0, 2.0])), ("b.weight", "F32", &[2, 2], &f32s(&[3.0; 4]))])
}

#[test]
fn the_undamaged_file_is_read() {
    let folder = one_file(&good());
    let tensors = open(folder.path()).unwrap().read_all(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&tensors["a"]), [1.0, 2.0]);
    assert_eq!((tensors["b.weight"].dims(), values(&tensors["b.weight"])), ([2, 2].as_slice(), vec![3.0; 4]));
}

#[test]
fn truncated_files() {
    let good = good();
    assert_damaged(&[], &["the file is empty"]);
    assert_damaged(&good[..5], &["5 bytes", "truncated"]);
    assert_damaged(&good[..40], &["truncated", "header"]);
    assert_damaged(&good[..good.len() - 1], &["truncated", "tensor b.weight ends at byte"]);
    // Cut inside the first tensor, it is the first one that is named.
    assert_damaged(&good[..good.len() - 20], &["truncated", "tensor a ends at byte"]);
    assert_damaged(&[good.as_slice(), b"xyz"].concat(), &["3 bytes follow the last tensor"]);
}

#[test]
fn headers_that_are_none() {
    assert_damaged(&with_header("{\"a\": ", &[]), &["not a JSON object"]);
    assert_damaged(&with_header("[1, 2]", &[]), &["not a JSON object"]);
    assert_damaged(&with_header("\u{1}\u{2}", &[]), &["not a JSON object"]);
    assert_damaged(b"a text file, and no safetensors", &["no safetensors file"]);
    assert_damaged(&with_header("{\"a\": 3}", &[]), &["tensor a"]);
    assert_damaged(
        &with_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [1]}}", &[0; 4]),
        &["tensor a", "data_offsets"],
    );
}

#[test]
fn tensors_that_do_not_fit_their_place() {
    let entry = |shape: &[i64], offsets: [u64; 2]| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let file = |a, b| with_header(&json!({"a": a, "b": b}).to_string(), &[0; 16]);
    assert_damaged(&file(entry(&[3], [0, 8]), entry(&[2], [8, 16])), &["tensor a", "[3]", "cannot lie"]);
    assert_damaged(&file(entry(&[2], [0, 8]), entry(&[3], [4, 16])), &["tensor b begins at byte 4"]);
    assert_damaged(&file(entry(&[2], [0, 8]), entry(&[1], [12, 16])), &["tensor b begins at byte 12"]);
    assert_damaged(&file(entry(&[2], [0, 8]), entry(&[2], [8, 0])), &["tensor b", "cannot lie"]);
    assert_damaged(&file(entry(&[2], [0, 8]), entry(&[-2], [8, 16])), &["tensor b"]);
    let huge = entry(&[1 << 62, 1 << 62], [8, 16]);
    assert_damaged(&file(entry(&[2], [0, 8]), huge), &["tensor b", "cannot lie"]);
}

#[test]
fn types_that_are_not_read() {
    for (dtype, bytes) in [("I8", 2), ("F8_E4M3", 2), ("F8_E5M2", 2), ("U64", 16), ("C64", 16), ("NEW", 2)] {
        let bytes = safetensors(&[("h.0.mlp.weight", dtype, &[2], &vec![0; bytes])]);
        assert_damaged(&bytes, &["tensor h.0.mlp.weight", dtype, "not read"]);
    }
}

/// A model of two shards: `a` in the first, `b` in the second.
fn two_shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("1.safetensors"), safetensors(&[("a", "F32", &[1], &f32s(&[1.0]))]));
    write(&folder.path().join("2.safetensors"), safetensors(&[("b", "F32", &[1], &f32s(&[2.0]))]));
    index(folder.path(), json!({"a": "1.safetensors", "b": "2.safetensors"}));
    folder
}

fn index(folder: &Path, weight_map: serde_json::Value) {
    let index = json!({"metadata": {"total_size": 8}, "weight_map": weight_map});
    write(&folder.join("model.safetensors.index.json"), index.to_string());
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_are_read_together() {
    let folder = two_shards();
    let tensors = open(folder.path()).unwrap().read_all(DType::F32, &Device::Cpu).unwrap();
    assert_eq!((values(&tensors["a"]), values(&tensors["b"])), (vec![1.0], vec![2.0]));
}

#[test]
fn shards_that_contradict_the_index() {
    let folder = two_shards();
    let path = folder.path();
    let error = |parts: &[&str]| assert_error(open(path), parts);
    fs::remove_file(path.join("2.safetensors")).unwrap();
    error(&[INDEX, "a shard is missing", "2.safetensors"]);
    write(&path.join("2.safetensors"), safetensors(&[("c", "F32", &[1], &f32s(&[2.0]))]));
    error(&[INDEX, "tensor b should be in 2.safetensors, which lacks it"]);
    let both = safetensors(&[("a", "F32", &[1], &f32s(&[1.0])), ("b", "F32", &[1], &f32s(&[2.0]))]);
    write(&path.join("2.safetensors"), both);
    error(&["tensor a is in", "1.safetensors", "2.safetensors"]);
    write(&path.join("2.safetensors"), safetensors(&[("b", "F32", &[1], &f32s(&[2.0]))]));
    index(path, json!({"a": "2.safetensors", "b": "1.safetensors"}));
    error(&[INDEX, "tensor a should be in 2.safetensors, it is in", "1.safetensors"]);
    write(&path.join("2.safetensors"), safetensors(&[("b", "F32", &[1], &[0; 4]), ("c", "F32", &[1], &[0; 4])]));
    index(path, json!({"a": "1.safetensors", "b": "2.safetensors"}));
    error(&[INDEX, "tensor c of", "2.safetensors", "not in the index"]);
    write(&path.join("2.safetensors"), &good()[..30]);
    error(&["2.safetensors", "truncated"]);
}

#[test]
fn an_index_that_leads_out_of_its_folder_is_refused() {
    let outside = one_file(&safetensors(&[("a", "F32", &[1], &f32s(&[1.0]))]));
    let folder = outside.path().join("inside");
    fs::create_dir(&folder).unwrap();
    let absolute = outside.path().join("model.safetensors");
    for place in ["../model.safetensors", absolute.to_str().unwrap(), "x/../../model.safetensors", "..", ".", ""] {
        index(&folder, json!({"a": place}));
        assert_error(open(&folder), &[INDEX, "tensor a", "not the name of a file beside the index"]);
    }
}

#[test]
fn an_index_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(INDEX);
    for (text, part) in [("", "not the index"), ("{}", "weight_map"), ("{\"weight_map\": {\"a\": 1}}", "not the index")]
    {
        write(&path, text);
        assert_error(open(folder.path()), &[INDEX, part]);
    }
    write(&path, "{\"weight_map\": {}}");
    assert_error(open(folder.path()), &[INDEX, "names no tensor"]);
}

#[test]
fn no_weights_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    assert_error(open(folder.path()), &[&place, "model.safetensors", "pytorch_model.bin"]);
}

#[test]
fn pickles_that_are_not_read_name_the_command_that_converts_them() {
    for (bytes, part) in [
        (vec![], "the file is empty"),
        // What torch.save wrote before 1.6 begins like this.
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec(), "not a zip archive"),
        (b"PK\x03\x04 and no archive".to_vec(), "not readable"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("pytorch_model.bin"), &bytes);
        assert_error(open(folder.path()), &["pytorch_model.bin", part]);
        if !bytes.is_empty() {
            assert_error(open(folder.path()), &["python -c", "save_file"]);
        }
    }
}

/// GPT-2 with these tensors beside its own, as a folder.
fn gpt2_with(more: &[(&str, Tensor)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = gpt2();
    qstar::models::save_folder(&model, folder.path()).unwrap();
    let mut all = tensors(&model);
    all.extend(more.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())));
    let bytes = ::safetensors::serialize(&all, None).unwrap();
    write(&folder.path().join("model.safetensors"), bytes);
    folder
}

fn read(folder: &tempfile::TempDir) -> anyhow::Result<qstar::models::Stored> {
    read_model(&super::folder(folder.path()), Purpose::LanguageModel, DType::F32, &Device::Cpu)
}

#[test]
fn a_tied_head_that_is_stored_must_be_the_embedding() {
    let embedding = tensors(&gpt2())["transformer.wte.weight"].clone();
    let stored = read(&gpt2_with(&[("lm_head.weight", embedding.clone())])).unwrap();
    assert_same(&stored.tensors, &tensors(&gpt2()));
    assert_eq!(stored.names.tied, ["lm_head.weight"]);
    let moved = (&embedding + 1e-3).unwrap();
    let parts = ["model.safetensors", "lm_head.weight differs from transformer.wte.weight", "tie_word_embeddings"];
    assert_error(read(&gpt2_with(&[("lm_head.weight", moved)])), &parts);
    assert_error(read(&gpt2_with(&[("lm_head.weight", embedding.narrow(0, 0, 3).unwrap())])), &parts);
}

#[test]
fn surplus_missing_misshapen_and_quantised_tensors_of_a_model() {
    let place = |folder: &tempfile::TempDir| folder.path().display().to_string();
    let surplus = gpt2_with(&[("adapter.weight", noise(&[2], 0))]);
    assert_error(read(&surplus), &[&place(&surplus), "adapter.weight"]);
    let layer = gpt2_with(&[("transformer.h.7.ln_1.weight", noise(&[8], 0))]);
    assert_error(qstar::models::load_folder(layer.path()), &[&place(&layer), "transformer.h.7.ln_1.weight"]);
    let shape = gpt2_with(&[("transformer.ln_f.weight", noise(&[9], 0))]);
    assert_error(qstar::models::load_folder(shape.path()), &[&place(&shape), "transformer.ln_f.weight", "[9]", "[8]"]);
    let bytes = gpt2_with(&[("transformer.ln_f.weight", noise(&[8], 0).to_dtype(DType::U8).unwrap())]);
    assert_error(read(&bytes), &["model.safetensors", "transformer.ln_f.weight", "U8", "quantised"]);
    let missing = tempfile::tempdir().unwrap();
    let model = gpt2();
    qstar::models::save_folder(&model, missing.path()).unwrap();
    let mut all = tensors(&model);
    all.remove("transformer.h.1.mlp.c_fc.bias");
    write(&missing.path().join("model.safetensors"), ::safetensors::serialize(&all, None).unwrap());
    assert_error(
        qstar::models::load_folder(missing.path()),
        &[&place(&missing), "transformer.h.1.mlp.c_fc.bias is missing"],
    );
}

#[test]
fn a_reward_model_without_a_head_asks_for_a_fresh_one() {
    let folder = gpt2_with(&[]);
    let read = |head| read_model(&super::folder(folder.path()), Purpose::RewardModel(head), DType::F32, &Device::Cpu);
    assert_error(read(Head::Stored), &[&folder.path().display().to_string(), "score.weight", "fresh"]);
    let stored = read(Head::Fresh(1)).unwrap();
    assert_eq!(stored.names.fresh, ["score.weight"]);
    assert_same(&stored.tensors, &tensors(&gpt2()));
}
