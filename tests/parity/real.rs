//! The two small models with real weights, from the hub's cache (`HF_HOME`); skipped with a reason where it is absent.

use std::path::{Path, PathBuf};

use qstar::models::load_folder;
use qstar::train::Sequences;

use crate::fixture::{Fixture, gap, values};

/// The folder of a model in the cache, or a printed reason.
fn cached(repository: &str) -> Option<PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let cache = hf_hub::Cache::from_env().model(repository.to_string());
    let file = |file: &str| {
        let path = cache.get(file);
        if path.is_none() {
            println!("skipped: {file} of {repository} is not in the hub's cache");
        }
        path
    };
    file("model.safetensors")?;
    Some(file("config.json")?.parent()?.to_path_buf())
}

fn check(name: &'static str, repository: &str) {
    let Some(folder) = cached(repository) else { return };
    let network = load_folder(&folder).unwrap().frozen().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real.safetensors");
    let fixture = Fixture::read(name, &path);
    let rows = fixture.rows(&format!("{name}."));
    let log_probs = fixture.tensor(&format!("{name}.log_probs")).to_vec2::<f32>().unwrap();
    let last_logits = fixture.tensor(&format!("{name}.last_logits")).to_vec2::<f32>().unwrap();
    let hidden = network.hidden(&rows.ids(), None).unwrap();
    let pairs: Vec<_> = rows.rows.iter().map(|row| row.split_at(1)).collect();
    let sequences = Sequences::new(&pairs).unwrap();
    let ours = values(&sequences.log_probs(&network, &sequences.hidden(&network).unwrap()).unwrap());
    let ours = sequences.by_response(&ours);
    for (row, ids) in rows.rows.iter().enumerate() {
        let off = gap(&ours[row], &log_probs[row][..ids.len() - 1]);
        let last = network.logits(&hidden.get(row).unwrap().get(ids.len() - 1).unwrap().unsqueeze(0).unwrap());
        let last_off = gap(&values(&last.unwrap()), &last_logits[row]);
        println!("{name}: {} tokens, log-probabilities differ by {off:.1e}, last logits by {last_off:.1e}", ids.len());
        assert!(off < 1e-4, "{name}: log-probabilities of row {row} differ by {off:e}");
        assert!(last_off < 1e-4, "{name}: the last logits of row {row} differ by {last_off:e}");
    }
}

#[test]
fn stories260k() {
    check("stories260K", "qstar/stories260K");
}

#[test]
fn slm4096_gpt2() {
    check("slm4096-gpt2", "qstar/slm4096-gpt2");
}
