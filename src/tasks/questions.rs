//! Open question answering without a text to look the answer up in: NQ-open. The reward is F1 with the best of the answers.

use anyhow::{Error, Result};

use super::data::Records;
use super::data::nq_open::{self, Question};
use super::text::{Example, Pools, PromptText, TextData, documents};
use crate::metrics::answer_score;
use crate::models::Source;

/// The data set in a folder or on the hub. Its validation file serves for testing: there is no test file.
///
/// # Errors
/// The validation file is not there; a file that cannot be read.
pub fn read(source: &Source) -> Result<TextData> {
    let mut notes = Vec::new();
    let mut examples = |records: Records<Question>| -> Vec<Example> {
        notes.extend(records.left_out());
        records.values().into_iter().enumerate().map(|(record, question)| example(record, question)).collect()
    };
    let train = source
        .file_if_there(nq_open::TRAIN)?
        .map(|path| Ok::<_, Error>(examples(nq_open::read(&path)?)))
        .transpose()?;
    let test = examples(nq_open::read(&source.file(nq_open::VALIDATION)?)?);
    let (train, test) = match train {
        Some(train) => (train, test),
        None => Pools::divide(nq_open::VALIDATION, test, &mut notes),
    };
    Ok(TextData {
        name: "questions",
        pools: Pools::new(train, test, notes)?,
        stop_strings: vec!["\n".to_string()],
        rewards: Some(Box::new(|texts| {
            documents(texts).iter().map(|document| Ok(answer_score(document)?.f1)).collect()
        })),
        rewarded_by: "F1 of SQuAD".to_string(),
    })
}

fn example(record: usize, question: Question) -> Example {
    Example {
        family: "questions",
        record,
        group: question.question.clone(),
        prompt: PromptText::whole(format!("Question: {}?\nAnswer:", question.question.trim_end_matches('?'))),
        demonstrations: question.answer.iter().map(|answer| format!(" {}", answer.trim())).collect(),
        pair: None,
    }
}
