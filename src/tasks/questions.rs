//! Open question answering without a text to look the answer up in: NQ-open. The reward is F1 with the best of the answers.

use anyhow::Result;

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
    let (mut train, mut notes) = (Vec::new(), Vec::new());
    let mut examples = |records: Records<Question>| -> Vec<Example> {
        notes.extend(records.left_out());
        records.values().into_iter().enumerate().map(|(record, question)| example(record, question)).collect()
    };
    if let Some(path) = source.file_if_there(nq_open::TRAIN)? {
        train = examples(nq_open::read(&path)?);
    }
    let test = examples(nq_open::read(&source.file(nq_open::VALIDATION)?)?);
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
