//! BERTScore beside the package bert-score: `fixtures/bertscore.py` wrote tiny random checkpoints and their scores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use qstar::evaluation::{Options, bertscore};
use qstar::metrics::{Baseline, BertScore, BertScorer, Document, TokenWeights};
use qstar::models::Source;
use qstar::tasks::data::tldr;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    texts: Vec<(String, String)>,
    groups: Vec<(String, Vec<String>)>,
    records: Vec<usize>,
    checkpoints: BTreeMap<String, Checkpoint>,
}

#[derive(Deserialize)]
struct Checkpoint {
    layer: usize,
    texts: Scores,
    groups: Scores,
    lone: Scores,
    records: Option<Scores>,
}

#[derive(Deserialize)]
struct Scores {
    plain: Vec<[Option<f64>; 3]>,
    idf: Vec<[Option<f64>; 3]>,
    rescaled: Vec<[Option<f64>; 3]>,
}

/// The package computes in f32.
const TOLERANCE: f64 = 2e-6;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn fixture() -> Fixture {
    serde_json::from_str(&fs::read_to_string(file("bertscore.json")).unwrap()).unwrap()
}

fn scorer(name: &str, layer: usize) -> BertScorer {
    BertScorer::load(&Source::Folder(file("bertscore").join(name)), Some(layer)).unwrap()
}

/// Checks every number of every setting, and gives the largest difference.
fn agree(name: &str, checkpoint: &Checkpoint, scores: &Scores, candidates: &[&str], references: &[Vec<&str>]) -> f64 {
    let plain = scorer(name, checkpoint.layer);
    let score = |scorer: &BertScorer, weights| scorer.score(candidates, references, weights).unwrap();
    let mut found = vec![
        ("plain", score(&plain, TokenWeights::Equal), &scores.plain),
        ("idf", score(&plain, TokenWeights::InverseDocumentFrequency), &scores.idf),
    ];
    let baseline = Baseline::read(&file("bertscore/baseline.tsv"), checkpoint.layer).unwrap();
    found.push(("rescaled", score(&plain.with_baseline(baseline), TokenWeights::Equal), &scores.rescaled));
    let mut largest: f64 = 0.0;
    for (setting, found, expected) in found {
        assert_eq!(found.len(), expected.len());
        for (row, (BertScore { precision, recall, f1 }, expected)) in found.into_iter().zip(expected).enumerate() {
            for ((what, found), expected) in
                [("precision", precision), ("recall", recall), ("F1", Some(f1))].into_iter().zip(expected)
            {
                let told = || format!("{name}, {setting}, row {row} {:?}: {what}", candidates[row]);
                assert_eq!(found.is_some(), expected.is_some(), "{}", told());
                let off = found.zip(*expected).map_or(0.0, |(found, expected)| (found - expected).abs());
                assert!(off < TOLERANCE, "{}: {found:?}, the package has {expected:?}", told());
                largest = largest.max(off);
            }
        }
    }
    largest
}

#[test]
fn texts_of_our_own() {
    let fixture = fixture();
    assert_eq!(fixture.checkpoints.len(), 4);
    for (name, checkpoint) in &fixture.checkpoints {
        let candidates: Vec<&str> = fixture.texts.iter().map(|(candidate, _)| &candidate[..]).collect();
        let references: Vec<Vec<&str>> = fixture.texts.iter().map(|(_, reference)| vec![&reference[..]]).collect();
        let off = agree(name, checkpoint, &checkpoint.texts, &candidates, &references);
        println!("{name}, layer {}: {} pairs differ by up to {off:.1e}", checkpoint.layer, candidates.len());
        let candidates: Vec<&str> = fixture.groups.iter().map(|(candidate, _)| &candidate[..]).collect();
        let references = fixture.groups.iter().map(|(_, all)| all.iter().map(String::as_str).collect());
        let off = agree(name, checkpoint, &checkpoint.groups, &candidates, &references.collect::<Vec<_>>());
        println!("{name}: several references: {off:.1e}");
        assert_eq!(checkpoint.lone.idf, [[None, None, Some(0.0)]], "the weights of one pair are all 0");
        agree(name, checkpoint, &checkpoint.lone, &["one text alone"], &[vec!["one text alone"]]);
    }
}

#[test]
fn titles_of_posts_beside_their_summaries() {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {} from", tldr::REPOSITORY);
        return;
    }
    let Some(path) = hf_hub::Cache::from_env().dataset(tldr::REPOSITORY.to_string()).get(tldr::TEST) else {
        println!("skipped: {} of {} is not in the hub's cache", tldr::TEST, tldr::REPOSITORY);
        return;
    };
    let fixture = fixture();
    let summaries = tldr::read(&path).unwrap();
    let by_number: BTreeMap<usize, _> = summaries.records.iter().map(|record| (record.number, &record.value)).collect();
    let posts: Vec<_> = fixture.records.iter().map(|number| by_number[number]).collect();
    let title = |prompt: &'_ str| -> Option<(usize, usize)> {
        let begin = prompt.find("\nTITLE: ")? + "\nTITLE: ".len();
        Some((begin, begin + prompt[begin..].find("\n\nPOST: ")?))
    };
    let titles: Vec<&str> = posts
        .iter()
        .map(|post| {
            let (begin, end) = title(&post.prompt).unwrap();
            &post.prompt[begin..end]
        })
        .collect();
    let references: Vec<Vec<&str>> = posts.iter().map(|post| vec![&post.completion[..]]).collect();
    let mut compared = 0;
    for (name, checkpoint) in &fixture.checkpoints {
        let Some(scores) = &checkpoint.records else { continue };
        let off = agree(name, checkpoint, scores, &titles, &references);
        println!("{name}: {} summaries differ by up to {off:.1e}", titles.len());
        compared += 1;
    }
    assert_eq!(compared, 2);
}

#[test]
fn scores_are_a_frame_with_a_summary() {
    let scorer = scorer("bert", 2);
    let (candidates, references) = (["one text alone", "two"], [vec!["one text"], vec!["three", "two"]]);
    let scores = scorer.score(&candidates, &references, TokenWeights::Equal).unwrap();
    let documents = |candidates: &[&str], references: &[Vec<&str>]| -> Vec<Document> {
        let document = |(i, (candidate, references)): (usize, (&&str, &Vec<&str>))| Document {
            id: i.to_string(),
            prediction: candidate.to_string(),
            references: references.iter().map(|text| text.to_string()).collect(),
        };
        candidates.iter().zip(references).enumerate().map(document).collect()
    };
    let options = Options::default();
    let both = documents(&candidates, &references);
    let all = bertscore(&both, &scorer, TokenWeights::Equal, &options).unwrap();
    let frame = &all.documents;
    let f1: Vec<f64> = frame.column("f1").unwrap().f64().unwrap().iter().flatten().collect();
    assert_eq!(f1, scores.iter().map(|score| score.f1).collect::<Vec<_>>());
    assert!((f1[1] - 1.0).abs() < 1e-12, "the second reference is the candidate");
    let mean: Vec<f64> = all.summary.column("value").unwrap().f64().unwrap().iter().flatten().collect();
    assert!(mean.len() == 3 && (mean[2] - (f1[0] + f1[1]) / 2.0).abs() < 1e-12);
    // Of one pair all weights of inverse document frequency are 0.
    let one = documents(&["a"], &[vec!["a"]]);
    let lone = bertscore(&one, &scorer, TokenWeights::InverseDocumentFrequency, &options).unwrap();
    assert_eq!(lone.documents.column("precision").unwrap().null_count(), 1);
    assert_eq!(lone.summary.height(), 1, "F1 alone is there: {}", lone.summary);
}

#[test]
fn what_cannot_be_scored_is_named() {
    let source = Source::Folder(file("bertscore/bert"));
    let told = |layer| format!("{:#}", BertScorer::load(&source, layer).err().unwrap());
    assert!(told(Some(4)).contains("layer 4 is asked for, and the encoder has 3"), "{}", told(Some(4)));
    assert!(told(None).contains("name one from 0 to 3"), "{}", told(None));
    let gpt2 = Source::Folder(file("models/gpt2"));
    let message = format!("{:#}", BertScorer::load(&gpt2, Some(1)).err().unwrap());
    assert!(message.contains("gpt2 is a causal language model"), "{message}");
    let scorer = scorer("bert", 2);
    let told = |candidates: &[&str], references: &[Vec<&str>]| {
        format!("{:#}", scorer.score(candidates, references, TokenWeights::Equal).unwrap_err())
    };
    assert!(told(&["a", "b"], &[vec!["a"]]).contains("2 candidates and 1 lists of references"));
    assert!(told(&["a", "b"], &[vec!["a"], vec![]]).contains("candidate 1 has no reference"));
    assert_eq!(scorer.score::<&str, &str>(&[], &[], TokenWeights::Equal).unwrap(), []);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.tsv");
    for (text, told) in [
        ("P,R,F\n", "the first line is \"P,R,F\""),
        ("LAYER,P,R,F\n0,1,2\n", "line 2: \"0,1,2\" is not a layer and three numbers"),
        ("LAYER,P,R,F\n1,0.1,0.2,0.3\n", "line 2: layer 0 is expected, not 1"),
        ("LAYER,P,R,F\n0,0.1,0.2,0.3\n", "layer 1 is not there"),
        ("LAYER,P,R,F\n0,0.1,0.2,0.3\n1,1,0.2,0.3\n", "line 3: a baseline is below 1"),
    ] {
        fs::write(&path, text).unwrap();
        let message = format!("{:#}", Baseline::read(&path, 1).unwrap_err());
        assert!(message.contains(told) && message.contains("b.tsv"), "{message}");
    }
}
