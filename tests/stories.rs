//! The small real model: llama2.c's format, its tokenizer, its published text.
//!
//! These tests read the hub's cache (`HF_HOME`) and print why they are skipped where the files are not there.

use candle_core::{Device, Tensor};
use qstar::mixture::Truncation;
use qstar::models::{Source, load_folder, read_llama2_c};
use qstar::rollout::Sampler;
use tokenizers::Tokenizer;

/// A file of the cache, or a printed reason.
fn cached(repository: &str, file: &str) -> Option<std::path::PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let path = hf_hub::Cache::from_env().model(repository.to_string()).get(file);
    if path.is_none() {
        println!("skipped: {file} of {repository} is not in the hub's cache");
    }
    path
}

fn stories() -> Option<(qstar::models::LanguageModel, Tokenizer)> {
    cached("karpathy/tinyllamas", "stories260K/stories260K.bin")?;
    let file = |name: &str| Source::hub("karpathy/tinyllamas").file(name).unwrap();
    Some(read_llama2_c(&file("stories260K/stories260K.bin"), &file("stories260K/tok512.bin")).unwrap())
}

#[test]
fn greedy_text_equals_the_published_one() {
    let Some((model, tokenizer)) = stories() else { return };
    let golden = std::path::PathBuf::from(std::env::var_os("HF_HOME").unwrap()).join("hub/text/stories260K-golden.txt");
    let Ok(golden) = std::fs::read_to_string(&golden) else {
        println!("skipped: {} is not there", golden.display());
        return;
    };
    let network = model.frozen().unwrap();
    // llama2.c stops at the token that begins a story, too.
    let greedy =
        Sampler { truncation: Truncation::GREEDY, stop_tokens: &[1], max_response_tokens: 256, ..Default::default() };
    let mut tokens = greedy.draw(&network, None, &[vec![1]], 1).unwrap()[0].tokens();
    tokens.retain(|&token| token != 1);
    let text = tokenizer.decode(&tokens, false).unwrap();
    assert_eq!(text.trim(), golden.trim());
}

#[test]
fn the_same_weights_as_safetensors_give_the_same_logits() {
    let Some((model, _)) = stories() else { return };
    let Some(config) = cached("qstar/stories260K", "config.json") else { return };
    let other = load_folder(config.parent().unwrap()).unwrap();
    let ids: Vec<u32> = (0..60).map(|i| (i * 37 + 1) % 512).collect();
    let ids = Tensor::from_vec(ids, (2, 30), &Device::Cpu).unwrap();
    let logits = |m: &qstar::models::LanguageModel| {
        m.network
            .logits(&m.network.hidden(&ids, None).unwrap())
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    for (a, b) in logits(&model).iter().zip(logits(&other)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn the_tokenizer_agrees_with_tokenizer_json() {
    let Some((_, ours)) = stories() else { return };
    let Some(file) = cached("qstar/stories260K", "tokenizer.json") else { return };
    let reference = Tokenizer::from_file(file).unwrap();
    let path = std::path::PathBuf::from(std::env::var_os("HF_HOME").unwrap()).join("hub/text/tinystories-2mb.txt");
    let mut texts: Vec<String> =
        ["Once upon a time", "", " two  spaces", "naïve café — 日本", "\n\ttabs"].map(String::from).into();
    match std::fs::read_to_string(&path) {
        Ok(stories) => texts.extend(stories.split("<|endoftext|>").take(300).map(String::from)),
        Err(_) => println!("only a few texts: {} is not there", path.display()),
    }
    for text in texts {
        let ids = |t: &Tokenizer| t.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        assert_eq!(ids(&ours), ids(&reference), "{text:?}");
        let decoded = ours.decode(&ids(&ours), false).unwrap();
        assert_eq!(decoded.trim_start(), text.trim_start(), "round trip");
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (model, vocabulary) = (folder.path().join("m.bin"), folder.path().join("t.bin"));
    let error = || format!("{:#}", read_llama2_c(&model, &vocabulary).err().unwrap());
    assert!(error().contains("m.bin: cannot be read"));
    std::fs::write(&model, [0u8; 10]).unwrap();
    std::fs::write(&vocabulary, [0u8; 3]).unwrap();
    assert!(error().contains("m.bin: not a llama2.c model"), "{}", error());
    let header: Vec<u8> = [64i32, 172, 5, 8, 4, 512, 512].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(&model, header).unwrap();
    assert!(error().contains("ends") && error().contains("bytes early"), "{}", error());
}
