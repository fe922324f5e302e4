//! The real tokenizers: Rust's ids and texts equal Python's, number for number.
//!
//! `fixtures/tokenizer_ids.py` wrote what Python's tokenizers makes of awkward texts. These tests read the tokenizers from
//! the hub's cache (`HF_HOME`) and print why they are skipped where the files are not there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

#[derive(Deserialize)]
struct Fixture {
    version: String,
    texts: Vec<String>,
    repositories: BTreeMap<String, Repository>,
}

#[derive(Deserialize)]
struct Repository {
    /// Of the tokenizer.json that Python read.
    sha256: String,
    /// As many as `Fixture::texts`.
    texts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    /// Without special tokens.
    plain: Vec<u32>,
    /// With special tokens.
    special: Vec<u32>,
    /// From `special`, special tokens left out.
    decoded: String,
    /// From `special`.
    all: String,
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer_ids.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A repository's tokenizer.json, or a printed reason.
fn cached(repository: &str) -> Option<PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let path = hf_hub::Cache::from_env().model(repository.to_string()).get("tokenizer.json");
    if path.is_none() {
        println!("skipped: tokenizer.json of {repository} is not in the hub's cache");
    }
    path
}

/// Every text in every form, or all differences in one message.
fn agrees(repository: &str) {
    let fixture = fixture();
    let expected = &fixture.repositories[repository];
    assert_eq!(expected.texts.len(), fixture.texts.len());
    let Some(path) = cached(repository) else { return };
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let mut differences = Vec::new();
    for (text, expected) in fixture.texts.iter().zip(&expected.texts) {
        let ids = |special| tokenizer.encode(text.as_str(), special).unwrap().get_ids().to_vec();
        let decode = |skip| tokenizer.decode(&expected.special, skip).unwrap();
        for (what, found, expected) in
            [("ids", ids(false), &expected.plain), ("special ids", ids(true), &expected.special)]
        {
            if found != *expected {
                differences.push(format!("{text:?}: {what} are {found:?}, Python's {expected:?}"));
            }
        }
        for (what, found, expected) in
            [("text", decode(true), &expected.decoded), ("whole text", decode(false), &expected.all)]
        {
            if found != *expected {
                differences.push(format!("{text:?}: the {what} is {found:?}, Python's {expected:?}"));
            }
        }
    }
    let same_file = format!("{:x}", Sha256::digest(std::fs::read(&path).unwrap())) == expected.sha256;
    let hint = if same_file { "" } else { " (another tokenizer.json than the one that Python read)" };
    assert!(
        differences.is_empty(),
        "{repository}{hint}: {} differences from Python's tokenizers {}:\n{}",
        differences.len(),
        fixture.version,
        differences.join("\n")
    );
}

#[test]
fn gpt2() {
    agrees("openai-community/gpt2");
}

#[test]
fn pythia() {
    agrees("EleutherAI/pythia-1.4b");
}

#[test]
fn distilbert() {
    agrees("distilbert/distilbert-base-uncased");
}

#[test]
fn deberta_v3() {
    agrees("microsoft/deberta-v3-large");
}

#[test]
fn llama_2() {
    agrees("meta-llama/Llama-2-7b-hf");
}

#[test]
fn stories() {
    agrees("qstar/stories260K");
}

#[test]
fn slm4096() {
    agrees("qstar/slm4096-gpt2");
}
