//! Every data set of the cache is read whole; the counts are those of the cache's own description or of another program.

use std::path::PathBuf;

use qstar::tasks::data::{hh_rlhf, nq_open, tldr, wmt};

use crate::cache::dataset_file;

#[test]
fn pairs_of_hh_rlhf() {
    // Records, equal pairs, pairs that differ before the last answer.
    for (part, expected) in [(hh_rlhf::Part::HelpfulBase, (2354, 2, 9)), (hh_rlhf::Part::HarmlessBase, (2312, 0, 5))] {
        let Some(path) = dataset_file(hh_rlhf::REPOSITORY, &part.file(false)) else { return };
        let pairs = hh_rlhf::read_pairs(&path).unwrap();
        assert_eq!(pairs.malformed, []);
        let differ = pairs.records.iter().filter(|pair| pair.value.answers().is_none()).count();
        assert_eq!((pairs.records.len(), hh_rlhf::equal(&pairs).len(), differ), expected, "{part:?}");
        for pair in &pairs.records {
            if let Some(answers) = pair.value.answers() {
                assert_eq!([answers.prompt, answers.chosen].concat(), pair.value.chosen);
                assert_eq!([answers.prompt, answers.rejected].concat(), pair.value.rejected);
                assert!(answers.prompt.ends_with(hh_rlhf::ASSISTANT));
            }
        }
    }
}

#[test]
fn red_team_attempts_are_an_array_or_lines() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = |text: &str| format!("{{\"transcript\": {text:?}, \"rating\": 2.0, \"task_description\": \"x\"}}");
    let good = attempt("\n\nHuman: How?\n\nAssistant: No.\n\nHuman: But how?\n\nAssistant: No!");
    let path = folder.path().join("a.jsonl");
    for text in [format!("[{good},\n{}]", attempt("nobody speaks")), format!("{good}\n{}\n", attempt("nobody speaks"))]
    {
        std::fs::write(&path, text).unwrap();
        let attempts = hh_rlhf::read_attempts(&path).unwrap();
        assert_eq!(attempts.malformed.len(), 1);
        assert!(attempts.malformed[0].why.contains("no turn of the assistant"));
        assert_eq!(attempts.values()[0].prompt(), Some("\n\nHuman: How?\n\nAssistant:"));
    }
}

#[test]
fn summaries_and_questions_from_parquet() {
    let Some(path) = dataset_file(tldr::REPOSITORY, tldr::TEST) else { return };
    let summaries = tldr::read(&path).unwrap();
    assert_eq!((summaries.records.len(), summaries.malformed.len()), (1400, 0));
    for summary in &summaries.records {
        let parts = summary.value.parts().unwrap();
        assert_eq!(parts.concat(), summary.value.prompt);
        assert!(summary.value.completion.starts_with(' '));
    }
    let Some(path) = dataset_file(nq_open::REPOSITORY, nq_open::VALIDATION) else { return };
    let questions = nq_open::read(&path).unwrap();
    assert_eq!((questions.records.len(), questions.malformed.len()), (3610, 0));
    let first = &questions.records[0].value;
    assert_eq!(first.question, "when was the last time anyone was on the moon");
    assert_eq!(first.answer, ["14 December 1972 UTC", "December 1972"]);
    // A column of another name is named.
    let error = nq_open::read(&dataset_file(tldr::REPOSITORY, tldr::TEST).unwrap()).unwrap_err().to_string();
    assert!(error.contains("missing field `question`"), "{error}");
}

#[test]
fn sentences_of_wmt() {
    let Some(home) = std::env::var_os("HF_HOME") else {
        println!("skipped: HF_HOME is not set");
        return;
    };
    let file = |name: &str| PathBuf::from(&home).join("hub/wmt22").join(format!("wmt22.en-de.{name}"));
    if !file("src").is_file() {
        println!("skipped: {} is not there", file("src").display());
        return;
    }
    let read = wmt::read(&file("src"), &[file("ref-A"), file("ref-B")]).unwrap();
    assert_eq!((read.records.len(), read.malformed.len()), (2037, 0));
    assert_eq!(read.records[2036].value.references.len(), 2);
}
