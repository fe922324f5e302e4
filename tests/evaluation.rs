//! `qstar evaluate`: JSON lines in, tables out, and errors that say what to do.

use std::path::PathBuf;
use std::process::{Command, Output};

use qstar::evaluation::{self, Fields, Options};
use qstar::metrics::{Rouge, RougeKind};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with one file.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in.jsonl"), content).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `qstar evaluate METRIC in.jsonl ARGUMENTS`, in the folder.
    fn evaluate(&self, metric: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qstar"));
        command.current_dir(self.folder.path()).args(["evaluate", metric, "in.jsonl"]).args(arguments);
        command.output().unwrap()
    }

    /// What the summary says of a metric: value, low, high.
    fn summary(&self, metric: &str, arguments: &[&str], row: &str) -> [Option<f64>; 3] {
        let output = self.evaluate(metric, &[arguments, &["--summary", "summary.json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_str(&std::fs::read_to_string(self.path("summary.json")).unwrap()).unwrap();
        let found = rows.as_array().unwrap().iter().find(|found| found["metric"] == row).unwrap();
        ["value", "low", "high"].map(|field| found[field].as_f64())
    }

    fn error(&self, metric: &str, arguments: &[&str]) -> String {
        let output = self.evaluate(metric, arguments);
        assert!(!output.status.success(), "{metric} {arguments:?} should fail");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: ") && !error.contains("panicked"), "{error}");
        error
    }
}

const TEXTS: &str = r#"{"id": "first", "prediction": "the cat sat", "references": "the cat sat"}

{"prediction": "The dogs, they ran.", "references": ["no", "a dog ran", "the dogs ran"]}
"#;

#[test]
fn texts_become_tables() {
    let case = Case::new(TEXTS);
    // The second: 3 of 4 words, all of 3.
    let f = 2.0 * 0.75 / 1.75;
    let [value, low, high] = case.summary("rouge", &["--output", "scores.csv", "--kind", "rouge1"], "rouge1_f");
    assert!((value.unwrap() - (1.0 + f) / 2.0).abs() < 1e-12);
    assert!((low.unwrap() - f).abs() < 1e-12 && high == Some(1.0));
    let expected = format!(
        "file,id,rouge1_precision,rouge1_recall,rouge1_f\nin.jsonl,first,1.0,1.0,1.0\nin.jsonl,3,0.75,1.0,{f:?}\n"
    );
    assert_eq!(std::fs::read_to_string(case.path("scores.csv")).unwrap(), expected);

    assert_eq!(case.summary("exact-match", &[], "exact_match")[0], Some(0.5));
    let printed = String::from_utf8(case.evaluate("bleu", &["--smooth", "floor", "--lowercase"]).stdout).unwrap();
    assert!(printed.contains("nrefs:var|case:lc|eff:no|tok:13a|smooth:floor[0.10]|version:2.6.0"), "{printed}");
    assert!(case.summary("chrf", &["--word-order", "2"], "chrF2++")[0].unwrap() > 50.0);

    // The same as a function.
    let documents = evaluation::read_documents(&case.path("in.jsonl"), &Fields::default()).unwrap();
    let rouge = Rouge::new(&[RougeKind::N(1)], false).unwrap();
    let scores = evaluation::rouge(&documents, &rouge, &Options::default()).unwrap();
    assert_eq!(scores.documents.column("rouge1_f").unwrap().f64().unwrap().get(1), Some(f));
    assert_eq!((scores.documents.shape(), scores.summary.shape()), ((2, 4), (3, 6)));
}

#[test]
fn other_names_of_fields() {
    let case = Case::new(r#"{"output": "1972", "answer": ["in 1972", "1972"]}"#);
    let named = ["--prediction", "output", "--references", "answer"];
    assert_eq!(case.summary("exact-match", &named, "exact_match")[0], Some(1.0));
    let error = case.error("exact-match", &[]);
    assert!(error.contains("in.jsonl, line 1: there is no field \"prediction\"; the record has"), "{error}");
}

#[test]
fn programs_and_judgments() {
    let line = |task: &str, passed: bool| format!("{{\"task_id\": {task}, \"passed\": {passed}}}\n");
    let case = Case::new([line("\"a\"", true), line("7", false), line("\"a\"", false), line("7", false)].concat());
    assert_eq!(case.summary("pass-at-k", &["--k", "1,2"], "pass@1")[0], Some(0.25));
    assert_eq!(case.summary("pass-at-k", &["--k", "1,2"], "pass@2")[0], Some(0.5));
    let error = case.error("pass-at-k", &["--k", "3"]);
    assert!(error.contains("in.jsonl: task \"a\"") && error.contains("from 2 samples"), "{error}");

    let judged = [
        ("1", "AB", "A"),
        ("1", "BA", "A"),
        ("2", "AB", "A"),
        ("2", "BA", "B"),
        ("3", "AB", "unreadable"),
        ("3", "BA", "B"),
    ]
    .map(|(id, order, verdict)| {
        format!("{{\"judge\": \"j\", \"id\": \"{id}\", \"order\": \"{order}\", \"verdict\": \"{verdict}\"}}\n")
    });
    let case = Case::new(judged.concat());
    let printed = String::from_utf8(case.evaluate("win-rate", &["--summary", "rates.csv"]).stdout).unwrap();
    let rates = std::fs::read_to_string(case.path("rates.csv")).unwrap();
    let (names, values) = rates.split_once('\n').unwrap();
    // The table is printed whole: polars shows eight columns where nothing tells it otherwise.
    assert_eq!(names.split(',').count(), 14);
    assert!(names.split(',').all(|name| printed.contains(name)), "{printed}");
    let value = |name: &str| values.trim().split(',').nth(names.split(',').position(|n| n == name).unwrap()).unwrap();
    assert_eq!((value("win_rate"), value("inconsistent"), value("first_place")), ("0.75", "1", "1"));
    assert_eq!((value("unreadable"), value("pairs")), ("1", "3"));
}

#[test]
fn threads_and_seeds_are_kept() {
    let lines: Vec<String> = (0..300)
        .map(|i| format!("{{\"prediction\": \"w{} w{} c\", \"references\": \"w{} c\"}}\n", i % 7, i % 5, i % 3))
        .collect();
    let case = Case::new(lines.concat());
    let with = |arguments: &[&str]| case.summary("rouge", arguments, "rouge2_f");
    assert_eq!(with(&["--threads", "1"]), with(&["--threads", "3"]));
    assert_ne!(with(&["--seed", "1"])[1], with(&["--seed", "2"])[1]);
    assert_eq!(with(&["--seed", "1"])[0], with(&["--seed", "2"])[0]);
}

#[test]
fn what_is_wrong_is_named() {
    let good = r#"{"prediction": "x", "references": ["y"]}"#;
    let third_line: [(&str, &[&str]); 6] = [
        (r#"{"prediction": 3, "references": ["y"]}"#, &["field \"prediction\"", "expected a text, found a number"]),
        (r#"{"prediction": "x", "references": []}"#, &["field \"references\"", "at least one text"]),
        (r#"{"prediction": "x", "references": ["y", null]}"#, &["field \"references\"", "nothing but texts"]),
        (r#"{"prediction": "x", "references": {"y": 1}}"#, &["field \"references\"", "found an object"]),
        (r#"{"prediction": "x", "#, &["not a JSON object", "column"]),
        (r#"["x", "y"]"#, &["expected a JSON object, found a list"]),
    ];
    for (line, says) in third_line {
        let error = Case::new(format!("{good}\n\n{line}\n{good}\n")).error("rouge", &[]);
        assert!(error.contains("in.jsonl, line 3") && says.iter().all(|what| error.contains(what)), "{error}");
    }
    assert!(Case::new(b"{\"prediction\": \"\xff\"}").error("bleu", &[]).contains("in.jsonl, line 1: not UTF-8"));
    assert!(Case::new("\n \n").error("bleu", &[]).contains("in.jsonl: there are no records"));
    let case = Case::new(good);
    assert!(case.error("bleu", &["none.jsonl"]).contains("none.jsonl: cannot be opened"));
    assert!(case.error("bleu", &["--output", "x.txt"]).contains(".parquet, .csv or .json"));
    assert!(case.error("bleu", &["--tokenize", "ja-mecab"]).contains("13a, intl, char, none"));
    assert!(case.error("bleu", &["--smooth-value", "1"]).contains("--smooth floor or add-k"));
    assert!(case.error("rouge", &["--kind", "rouge0"]).contains("rouge1 to rouge9"));
    assert!(case.error("rouge", &["--threads", "0"]).contains("at least one thread"));
    assert!(case.error("rouge", &["--confidence", "95"]).contains("strictly between 0 and 1"));
    assert!(case.error("win-rate", &[]).contains("missing field `judge`"));
    let case = Case::new(r#"{"judge": "j", "id": "1", "order": "AB", "verdict": "A wins"}"#);
    let error = case.error("win-rate", &[]);
    assert!(error.contains("in.jsonl: judge \"j\", pair \"1\": \"A wins\" is no verdict"), "{error}");
}
