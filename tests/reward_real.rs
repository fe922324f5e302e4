//! Reward models and classifiers from preference pairs in files, as `qstar train-reward` makes them; classifiers beside
//! transformers.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use qstar::evaluation::{HarmlessnessRow, HarmlessnessScorer, Meaning};
use qstar::experiment::hh_rewards::{Family, HeldOutRow, HhRewards, Loss, Split, Start};
use qstar::models::{Head, Source, load_classifier, load_reward_model};
use qstar::tasks::data::hh_rlhf::{self, ASSISTANT};
use qstar::train::BradleyTerry;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn write(folder: &Path, file: &str, lines: impl Iterator<Item = String>) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut gz = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
    lines.for_each(|line| gz.write_all(format!("{line}\n").as_bytes()).unwrap());
    gz.finish().unwrap();
}

/// A pair in which the chosen answer is kind and the rejected one is not, in a few words.
fn pair(i: usize) -> String {
    let (asked, kind, rude) = (["book", "car", "tea", "dog"][i % 4], ["yes, here", "of course"][i % 2], "no, late");
    let prompt = format!("\n\nHuman: may I have the {asked} number {i}?\n\nAssistant:");
    json!({"chosen": format!("{prompt} {kind}, the {asked}."), "rejected": format!("{prompt} {rude}, the {asked}.")})
        .to_string()
}

/// HH-RLHF's test files, with pairs of our own.
fn data(pairs: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let equal =
        json!({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}).to_string();
    // Dialogues that begin alike must stay on one side.
    let again = json!({
        "chosen": "\n\nHuman: may I have the book number 0?\n\nAssistant: what?\n\nHuman: the book\n\nAssistant: yes, here.",
        "rejected": "\n\nHuman: may I have the book number 0?\n\nAssistant: what?\n\nHuman: the book\n\nAssistant: no, late.",
    });
    let more = [equal, "{\"chosen\": 1}".to_string(), again.to_string()];
    for part in ["helpful-base", "harmless-base"] {
        write(folder.path(), &format!("{part}/test.jsonl.gz"), (0..pairs).map(pair).chain(more.clone()));
    }
    folder
}

fn source(folder: &Path) -> Source {
    Source::Folder(folder.to_path_buf())
}

#[test]
fn pairs_are_split_by_file_or_by_their_first_turns() {
    let folder = data(400);
    let split = Split::read(&source(folder.path()), None).unwrap();
    let of = |family: Family, pairs: &[(Family, hh_rlhf::Pair)]| pairs.iter().filter(|(f, _)| *f == family).count();
    let first = |pairs: &[(Family, hh_rlhf::Pair)]| -> BTreeSet<String> {
        pairs.iter().map(|(_, pair)| pair.chosen.split(ASSISTANT).next().unwrap().to_string()).collect()
    };
    let splits = [&split.train, &split.validation, &split.test];
    for family in Family::ALL {
        assert_eq!(splits.map(|pairs| of(family, pairs)).iter().sum::<usize>(), 401, "{family:?}");
        assert!(splits.iter().all(|pairs| of(family, pairs) > 0));
    }
    let test = split.test.len();
    assert!((50..160).contains(&test), "{test} of 802, and an eighth is expected");
    let firsts = splits.map(|pairs| first(pairs));
    assert!(
        firsts[0].is_disjoint(&firsts[1]) && firsts[0].is_disjoint(&firsts[2]) && firsts[1].is_disjoint(&firsts[2])
    );
    assert_eq!((split.equal, split.files.len()), (2, 2));
    let told = |what: &str| assert!(split.notes.iter().any(|note| note.contains(what)), "{what}: {:?}", split.notes);
    told("no file of helpful-online is there");
    told("there is no training file");
    told("1 of 403 records are malformed and left out: number 402");
    assert_eq!(Split::read(&source(folder.path()), None).unwrap(), split);
    let helpful = Split::read(&source(folder.path()), Some(Family::Helpful)).unwrap();
    assert_eq!(helpful.test.len(), of(Family::Helpful, &split.test));
    assert_eq!((of(Family::Harmless, &helpful.train), helpful.equal), (0, 1));
    // With training files the test files are for testing alone.
    let more = data(400);
    for part in ["helpful-base", "harmless-base"] {
        write(more.path(), &format!("{part}/train.jsonl.gz"), (1000..1200).map(pair));
    }
    let own = Split::read(&source(more.path()), None).unwrap();
    assert_eq!((own.test.len(), own.train.len() + own.validation.len(), own.files.len()), (802, 400, 4));
    let nothing = tempfile::tempdir().unwrap();
    let message = format!("{:#}", Split::read(&source(nothing.path()), None).unwrap_err());
    assert!(message.contains("helpful-base/train.jsonl.gz"), "{message}");
}

fn plan(data: &Path, start: Start, only: Option<Family>, loss: Loss, steps: usize) -> HhRewards {
    let training =
        BradleyTerry { steps, batch: 16, microbatch: 16, learning_rate: 3e-3, warmup_steps: steps / 10, seed: 1 };
    HhRewards { data: source(data), only, start, loss, max_tokens: 40, training }
}

fn account(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("training.json")).unwrap()).unwrap()
}

/// Every kind of encoder from a folder, by the same call; what is saved is the model that was measured.
#[test]
fn a_checkpoint_in_a_folder_is_trained_measured_and_saved() {
    let folder = data(200);
    for name in ["bert", "roberta", "distilbert", "deberta-v3"] {
        let base = source(&fixture("bertscore").join(name));
        let plan = plan(folder.path(), Start::Base(base), None, Loss::Pairs, 40);
        let trained = plan.train().unwrap();
        let rows = &trained.held_out;
        let families: Vec<_> = rows.iter().map(|row| [&row.split[..], &row.family]).collect();
        let of = |split| ["helpful", "harmless", "both"].map(|family| [split, family]);
        assert_eq!(families, [of("validation"), of("test")].concat());
        assert_eq!(rows[5].pairs, rows[3].pairs + rows[4].pairs);
        println!("{name}: {:?}", rows.iter().map(|row| row.accuracy).collect::<Vec<_>>());
        assert!(rows[5].accuracy_low > 0.6, "{name} learns nothing: {rows:?}");
        for row in rows {
            assert!(row.accuracy > 0.6, "{name} learns nothing: {row:?}");
            assert!(row.accuracy_low <= row.accuracy && row.accuracy <= row.accuracy_high);
            assert!(row.response_accuracy.is_none() && row.shortened > 0);
        }
        assert!(trained.shortened.0 > 0 && trained.shortened.1 == 2 * trained.split.train.len());
        let out = tempfile::tempdir().unwrap();
        trained.save(&plan, out.path()).unwrap();
        let again = load_reward_model(&source(out.path()), Head::Stored).unwrap();
        assert_eq!(again.params.digest().unwrap(), trained.model.params.digest().unwrap(), "{name}");
        assert!(out.path().join("tokenizer.json").is_file() && out.path().join("tokenizer_config.json").is_file());
        let account = account(out.path());
        assert_eq!(account["held_out"][1]["accuracy"], json!(rows[1].accuracy));
        assert_eq!(
            (&account["pairs"]["equal"], &account["files"][0]["file"]),
            (&json!(2), &json!("helpful-base/test.jsonl.gz"))
        );
        assert_eq!(account["start"]["base"], json!(fixture("bertscore").join(name).display().to_string()));
        assert_eq!(HeldOutRow::frame(rows).unwrap().height(), 6);
    }
    let gpt2 = Start::Base(source(&fixture("models/gpt2")));
    let message = format!("{:#}", plan(folder.path(), gpt2, None, Loss::Pairs, 1).train().err().unwrap());
    assert!(message.contains("tokenizer.json: there is no such file"), "{message}");
}

/// A classifier of harmlessness from scratch, saved, and read again to score texts.
#[test]
fn a_classifier_of_responses_scores_texts() {
    let folder = data(200);
    let tokenizer = source(&fixture("bertscore/bert"));
    let start = Start::Scratch { tokenizer, layers: 1, width: 32 };
    let plan = plan(folder.path(), start, Some(Family::Harmless), Loss::Responses, 150);
    let trained = plan.train().unwrap();
    let [_, row] = &trained.held_out[..] else { panic!("{:?}", trained.held_out) };
    println!("classifier: {row:?}");
    assert!(row.response_accuracy_low.unwrap() > 0.6 && row.accuracy_low > 0.6, "{row:?}");
    let out = tempfile::tempdir().unwrap();
    trained.save(&plan, out.path()).unwrap();
    assert_eq!(account(out.path())["label"], "harmless");
    let scorer = |label: &str, meaning| HarmlessnessScorer::load(&source(out.path()), label, meaning);
    let split = Split::read(&plan.data, plan.only).unwrap();
    let texts: Vec<&str> = split.test.iter().flat_map(|(_, pair)| [&pair.chosen[..], &pair.rejected]).collect();
    let found = scorer("harmless", Meaning::Harmless).unwrap().score(&texts).unwrap();
    // The same by hand: of each pair the first is on the right side of 1/2, or of a reward of 0, and the second is not.
    let right =
        found.rows.iter().zip([true, false].iter().cycle()).filter(|(row, better)| (row.harmless > 0.5) == **better);
    assert_eq!(right.count() as f64 / texts.len() as f64, row.response_accuracy.unwrap());
    let mean = found.rows.iter().map(|row| row.harmless).sum::<f64>() / texts.len() as f64;
    assert!((found.summary.mean - mean).abs() < 1e-12 && found.summary.mean_low < mean);
    assert_eq!((found.summary.texts, found.summary.shortened), (texts.len() as i64, row.shortened));
    assert_eq!(HarmlessnessRow::frame(&found.rows).unwrap().height(), texts.len());
    let opposite = scorer("harmless", Meaning::Harmful).unwrap().score(&texts).unwrap();
    for (a, b) in found.rows.iter().zip(&opposite.rows) {
        assert!((a.harmless + b.harmless - 1.0).abs() < 1e-12);
    }
    let message = format!("{:#}", scorer("toxic", Meaning::Harmful).err().unwrap());
    assert!(message.contains("no label \"toxic\"; it has harmless"), "{message}");
    assert!(
        format!("{:#}", scorer("harmless", Meaning::Harmless).unwrap().score(&[""; 0]).unwrap_err())
            .contains("no texts")
    );
}

/// `fixtures/classifiers.py` wrote checkpoints of several labels and transformers' probabilities.
#[test]
fn probabilities_are_those_of_transformers() {
    let all: Value = serde_json::from_str(&fs::read_to_string(fixture("classifiers.json")).unwrap()).unwrap();
    for name in ["softmax", "sigmoid", "causal"] {
        let classifier = load_classifier(&source(&fixture("classifiers").join(name))).unwrap();
        let expected = &all[name];
        assert_eq!(json!(classifier.labels), expected["labels"]);
        assert_eq!(classifier.multi_label, name == "sigmoid");
        let rows: Vec<Vec<u32>> = serde_json::from_value(expected["rows"].clone()).unwrap();
        let theirs: Vec<Vec<f64>> = serde_json::from_value(expected["probabilities"].clone()).unwrap();
        let ours = classifier.probabilities(&rows).unwrap();
        let off = ours.iter().flatten().zip(theirs.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: probabilities differ by up to {off:.1e}");
        assert!(ours.len() == theirs.len() && off < 1e-6, "{name}: {ours:?}, not {theirs:?}");
        assert!(format!("{:#}", classifier.probabilities(&[vec![]]).unwrap_err()).contains("sequence 0"));
    }
    // A configuration whose labels are not the head's.
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("classifiers/softmax");
    fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    for (field, value, told) in [
        ("id2label", json!({"0": "a"}), "field id2label has 1 labels, and the head 3"),
        ("id2label", json!({"0": "a", "1": "b", "3": "c"}), "field id2label has no label 2"),
        ("problem_type", json!("regression"), "field problem_type is \"regression\""),
    ] {
        let before = config[field].clone();
        config[field] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let message = format!("{:#}", load_classifier(&source(folder.path())).err().unwrap());
        assert!(message.contains(told) && message.contains("config.json"), "{message}");
        config[field] = before;
    }
}

/// The real pairs, from the hub's cache: a few steps of a tiny model, to see that every part of the way fits them.
#[test]
fn real_pairs() {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {} from", hh_rlhf::REPOSITORY);
        return;
    }
    let cache = hf_hub::Cache::from_env();
    let test = hh_rlhf::Part::HarmlessBase.file(false);
    let Some(file) = cache.dataset(hh_rlhf::REPOSITORY.to_string()).get(&test) else {
        println!("skipped: {test} of {} is not in the hub's cache", hh_rlhf::REPOSITORY);
        return;
    };
    let name = "distilbert/distilbert-base-uncased";
    let Some(tokenizer) = cache.model(name.to_string()).get("tokenizer.json") else {
        println!("skipped: tokenizer.json of {name} is not in the hub's cache");
        return;
    };
    let data = file.parent().unwrap().parent().unwrap();
    let start = Start::Scratch { tokenizer: source(tokenizer.parent().unwrap()), layers: 1, width: 32 };
    let plan = HhRewards { max_tokens: 32, ..plan(data, start, Some(Family::Harmless), Loss::Pairs, 4) };
    let trained = plan.train().unwrap();
    let row = &trained.held_out[1];
    println!("{row:?}");
    let Split { train, validation, test, equal, files, .. } = &trained.split;
    assert_eq!(row.pairs + row.equal, test.len() as i64);
    if files.len() == 2 {
        // 2,312 records, of which few differ before their last answers.
        let all = train.len() + validation.len() + test.len();
        assert!((2290..=2312).contains(&all) && *equal == 0, "{all} and {equal}");
        assert!(test.len() * 6 < all && test.len() * 11 > all, "{} of {all}", test.len());
    }
    // Four steps teach little; anything far from a half would be a leak or a sign turned round.
    assert!((0.3..0.7).contains(&row.accuracy) && (row.log_loss - 2f64.ln()).abs() < 0.1, "{row:?}");
}
