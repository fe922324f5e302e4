//! Scores of texts equal those of the reference implementations: rouge-score, NLTK's stemmer, sacrebleu, SQuAD's.
//!
//! `fixtures/metrics.py` wrote the scores and says what is in its two files. The texts of one are our own; those of the
//! other are in the hub's cache (`HF_HOME`), and its tests print why they are skipped where the files are not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use polars::prelude::{AnyValue, DataFrame, ParquetReader, SerReader};
use qstar::evaluation::{self, Options};
use qstar::metrics::{Bleu, Chrf, Document, Rouge, RougeKind, Smoothing, Tokenizer, answer_score, porter_stem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Own {
    stems: Vec<(String, String)>,
    texts: Vec<(Value, Vec<Value>)>,
    /// For each text, by setting.
    scores: Vec<BTreeMap<String, Vec<f64>>>,
}

#[derive(Deserialize)]
struct Real {
    sha256: BTreeMap<String, String>,
    summaries: Vec<Vec<f64>>,
    stems: (usize, String),
    translations: Vec<[f64; 3]>,
    /// System, number of references, setting, score, text, signature.
    corpus: Vec<(String, usize, String, f64, String, String)>,
    answers: Vec<[f64; 2]>,
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// BLEU in the script's settings.
fn bleu(setting: &str) -> Option<Bleu> {
    let (name, effective_order) = setting.strip_suffix(" effective").map_or((setting, false), |name| (name, true));
    let bleu = Bleu { effective_order, ..Bleu::default() };
    let smoothed = |smoothing| Bleu { smoothing, ..bleu };
    Some(match name {
        "lowercase" => Bleu { lowercase: true, ..bleu },
        "smooth none" => smoothed(Smoothing::None),
        "floor" => smoothed(Smoothing::Floor(0.1)),
        "floor 0.25" => smoothed(Smoothing::Floor(0.25)),
        "add-k" => smoothed(Smoothing::AddK(1.0)),
        "add-k 0.5" => smoothed(Smoothing::AddK(0.5)),
        _ => Bleu { tokenizer: name.parse::<Tokenizer>().ok()?, ..bleu },
    })
}

/// chrF in the script's settings.
fn chrf(setting: &str) -> Option<Chrf> {
    let chrf = Chrf::default();
    Some(match setting {
        "chrF2" => chrf,
        "chrF2++" => Chrf { word_order: 2, ..chrf },
        "chrF3+" => Chrf { word_order: 1, beta: 3, ..chrf },
        "chrF lowercase" => Chrf { lowercase: true, word_order: 2, ..chrf },
        "chrF whitespace" => Chrf { whitespace: true, ..chrf },
        "chrF eps" => Chrf { eps_smoothing: true, word_order: 2, ..chrf },
        "chrF order 4" => Chrf { char_order: 4, ..chrf },
        _ => return None,
    })
}

/// Without stemming, then with it: precision, recall, f of each usual kind.
fn rouge(documents: &[Document]) -> Vec<Vec<f64>> {
    let mut scores = vec![Vec::new(); documents.len()];
    for stemming in [false, true] {
        let rouge = Rouge::new(&RougeKind::USUAL, stemming).unwrap();
        for (scores, kinds) in scores.iter_mut().zip(rouge.score_all(documents, 2).unwrap()) {
            scores.extend(kinds.iter().flat_map(|score| [score.precision, score.recall, score.f]));
        }
    }
    scores
}

fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-9, "{what}, number {index}: {found} instead of {expected}");
    }
}

#[test]
fn stems_are_those_of_nltk() {
    let Own { stems, .. } = fixture("metrics_own.json");
    assert!(stems.len() > 100);
    for (word, stem) in &stems {
        assert_eq!(porter_stem(word), *stem, "{word}");
    }
    // Runs of y alternate, and long ones need neither stack nor patience.
    assert!(porter_stem(&("y".repeat(1_000_001) + "ed")).len() >= 1_000_000);
}

#[test]
fn texts_of_our_own() {
    let Own { texts, scores, .. } = fixture("metrics_own.json");
    let documents: Vec<Document> = texts
        .iter()
        .enumerate()
        .map(|(index, (prediction, references))| Document {
            id: index.to_string(),
            prediction: spell(prediction),
            references: references.iter().map(spell).collect(),
        })
        .collect();
    let rouge = rouge(&documents);
    assert!(documents.len() == scores.len() && documents.len() > 30);
    for ((document, scores), rouge) in documents.iter().zip(&scores).zip(rouge) {
        assert_eq!(scores.len(), 2 + 2 * 10 + 7);
        for (setting, expected) in scores {
            let found = match setting.as_str() {
                "rouge" => rouge.clone(),
                "answer" => {
                    let score = answer_score(document).unwrap();
                    vec![score.exact_match, score.f1]
                }
                name => match (bleu(name), chrf(name)) {
                    (Some(bleu), _) => vec![bleu.score(&bleu.statistics(document).unwrap()).score],
                    (_, Some(chrf)) => vec![chrf.score(&chrf.statistics(document).unwrap())],
                    _ => panic!("unknown setting {name:?}"),
                },
            };
            let start: String = document.prediction.chars().take(40).collect();
            assert_near(&found, expected, &format!("{setting} of text {}, {start:?}", document.id));
        }
    }
}

#[test]
fn summaries() {
    let fixture: Real = fixture("metrics_real.json");
    let Some(table) = parquet(&fixture, "trl-lib/tldr", "data/test-00000-of-00001.parquet") else { return };
    let (prompts, summaries) = (texts(&table, "prompt"), texts(&table, "completion"));
    let documents: Vec<Document> = (0..fixture.summaries.len())
        .map(|i| {
            let post = prompts[i].split_once("POST: ").unwrap().1.rsplit_once("TL;DR:").unwrap().0;
            let mut references = vec![summaries[i].clone()];
            if i % 3 == 1 {
                references[0] = references[0].replace(". ", ".\n");
            }
            if i % 5 == 0 {
                references.push(summaries[i + 1].clone());
            }
            Document { id: i.to_string(), prediction: post.chars().take(200 + 40 * (i % 10)).collect(), references }
        })
        .collect();
    assert!(documents.len() >= 500);
    for (index, (found, expected)) in rouge(&documents).iter().zip(&fixture.summaries).enumerate() {
        assert_near(found, expected, &format!("summary {index}"));
    }

    let words: BTreeSet<String> = prompts.iter().chain(&summaries).flat_map(|text| words(text)).collect();
    let stems: Vec<String> = words.iter().map(|word| porter_stem(word)).collect();
    assert_eq!((stems.len(), hex(stems.join("\n").as_bytes())), fixture.stems);
}

#[test]
fn translations() {
    let fixture: Real = fixture("metrics_real.json");
    let read = |name: &str| lines(&fixture, name);
    let (Some(a), Some(b)) = (read("ref-A"), read("ref-B")) else { return };
    let documents = |system: &str, count: usize| -> Option<Vec<Document>> {
        let document = |(i, prediction): (usize, String)| {
            let two = count == 2 || count == 0 && i.is_multiple_of(4);
            let references = if two { vec![a[i].clone(), b[i].clone()] } else { vec![a[i].clone()] };
            Document { id: i.to_string(), prediction, references }
        };
        Some(read(system)?.into_iter().enumerate().map(document).collect())
    };

    let Some(mixed) = documents("PROMT", 0) else { return };
    assert!(mixed.len() >= 2_000 && mixed.len() == fixture.translations.len());
    let bleu_of_sentence = Bleu { effective_order: true, ..Bleu::default() };
    let (chrf_2, chrf_2_words) = (chrf("chrF2").unwrap(), chrf("chrF2++").unwrap());
    for (document, expected) in mixed.iter().zip(&fixture.translations) {
        let found = [
            bleu_of_sentence.score(&bleu_of_sentence.statistics(document).unwrap()).score,
            chrf_2.score(&chrf_2.statistics(document).unwrap()),
            chrf_2_words.score(&chrf_2_words.statistics(document).unwrap()),
        ];
        assert_near(&found, expected, &format!("translation {}", document.id));
    }

    assert!(fixture.corpus.len() >= 50);
    for (system, count, setting, score, text, signature) in &fixture.corpus {
        let Some(documents) = documents(system, *count) else { return };
        let (found, found_text, found_signature) = match (bleu(setting), chrf(setting)) {
            (Some(bleu), _) => {
                let found = bleu.score(&bleu.statistics_all(&documents, 2).unwrap().iter().sum());
                (found.score, found.to_string(), bleu.signature(&documents))
            }
            (_, Some(chrf)) => {
                let found = chrf.score(&chrf.statistics_all(&documents, 2).unwrap().iter().sum());
                (found, format!("{} = {found:.2}", chrf.name()), chrf.signature(&documents))
            }
            _ => panic!("unknown setting {setting:?}"),
        };
        assert_near(&[found], &[*score], &format!("{setting} of {system} with {count} references"));
        assert_eq!((&found_text, &found_signature), (text, signature));
    }
}

#[test]
fn answers() {
    let fixture: Real = fixture("metrics_real.json");
    let file = "nq_open/validation-00000-of-00001.parquet";
    let Some(table) = parquet(&fixture, "google-research-datasets/nq_open", file) else { return };
    let column = table.column("answer").unwrap();
    let known = |i: usize| match column.get(i).unwrap() {
        AnyValue::List(answers) => answers.str().unwrap().iter().flatten().map(str::to_owned).collect::<Vec<_>>(),
        other => panic!("{other:?} is no list"),
    };
    assert!(fixture.answers.len() >= 1_000);
    for (i, expected) in fixture.answers.iter().enumerate() {
        let references = known(i);
        let prediction = match i % 4 {
            0 => references[0].to_uppercase() + ".",
            1 => format!("the {}", references[references.len() - 1]),
            2 => known(i + 1)[0].clone(),
            _ => format!("{} or {}", references[0], known(i + 7)[0]),
        };
        let score = answer_score(&Document { id: i.to_string(), prediction, references }).unwrap();
        assert_near(&[score.exact_match, score.f1], expected, &format!("answer {i}"));
    }
}

/// Texts are scored in chunks, on any number of threads, and in any company, with the same bits.
#[test]
fn threads_and_neighbours_change_nothing() {
    let Own { texts, .. } = fixture("metrics_own.json");
    let mut documents = Vec::new();
    for round in 0..8 {
        for (prediction, references) in &texts[..30] {
            let references = references.iter().map(spell).collect();
            documents.push(Document { id: round.to_string(), prediction: spell(prediction) + " x", references });
        }
    }
    let rouge = Rouge::new(&RougeKind::USUAL, true).unwrap();
    let frames = |workers| {
        let options = Options { workers, ..Options::default() };
        [
            evaluation::rouge(&documents, &rouge, &options).unwrap(),
            evaluation::bleu(&documents, &Bleu::default(), &options).unwrap(),
            evaluation::chrf(&documents, &Chrf { word_order: 2, ..Chrf::default() }, &options).unwrap(),
        ]
    };
    assert_eq!(frames(1), frames(5));
    let alone: Vec<_> = documents.iter().map(|document| rouge.score(document).unwrap()).collect();
    assert_eq!(rouge.score_all(&documents, 3).unwrap(), alone);
}

/// A text is a string or a list of parts.
fn spell(text: &Value) -> String {
    let part = |part: &Value| match part {
        Value::String(text) => text.clone(),
        Value::Number(n) => made_words(n.as_u64().unwrap()),
        Value::Array(repeated) => repeated[0].as_str().unwrap().repeat(repeated[1].as_u64().unwrap() as usize),
        other => panic!("{other} is no part of a text"),
    };
    match text {
        Value::Array(parts) => parts.iter().map(part).collect(),
        text => part(text),
    }
}

fn made_words(n: u64) -> String {
    let word = |k: u64| {
        let (point, line) = (if k % 11 == 10 { "." } else { "" }, if k % 50 == 49 { "\n" } else { "" });
        format!("w{}{point}{line}", (k * k * 7 + k) % 97)
    };
    (0..n).map(word).collect::<Vec<_>>().join(" ")
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    lower.split(|c| !is_part(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn texts(table: &DataFrame, column: &str) -> Vec<String> {
    table.column(column).unwrap().str().unwrap().iter().map(|text| text.unwrap().to_owned()).collect()
}

/// A file of a data set in the hub's cache, or a printed reason.
fn parquet(fixture: &Real, repository: &str, file: &str) -> Option<DataFrame> {
    hub()?;
    let Some(path) = hf_hub::Cache::from_env().dataset(repository.to_string()).get(file) else {
        println!("skipped: {file} of {repository} is not in the hub's cache");
        return None;
    };
    let file = std::fs::File::open(same(fixture, repository, path)?).unwrap();
    Some(ParquetReader::new(file).finish().unwrap())
}

/// The lines of a file of WMT22, or a printed reason.
fn lines(fixture: &Real, name: &str) -> Option<Vec<String>> {
    let name = format!("wmt22.en-de.{name}");
    let path = hub()?.join("wmt22").join(&name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    let text = std::fs::read_to_string(same(fixture, &name, path)?).unwrap();
    Some(text.strip_suffix('\n').unwrap().split('\n').map(str::to_owned).collect())
}

fn hub() -> Option<PathBuf> {
    let home = std::env::var_os("HF_HOME");
    if home.is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read texts from");
    }
    Some(PathBuf::from(home?).join("hub"))
}

fn same(fixture: &Real, name: &str, path: PathBuf) -> Option<PathBuf> {
    let digest = hex(&std::fs::read(&path).unwrap());
    if digest != fixture.sha256[name] {
        println!("skipped: {} is another file than the one that the scores are of", path.display());
        return None;
    }
    Some(path)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
