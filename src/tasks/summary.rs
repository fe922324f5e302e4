//! Summarisation: TL;DR of Reddit's posts (trl-lib/tldr). The reward is ROUGE-L against the writer's own summary.

use anyhow::{Error, Result};

use super::data::Records;
use super::data::tldr::{self, Summary};
use super::text::{Example, Keep, Pools, PromptText, TextData, documents};
use crate::metrics::{Rouge, RougeKind};
use crate::models::Source;

/// The data set in a folder or on the hub. Of a prompt that is too long, the post's end is cut.
///
/// # Errors
/// The test file is not there; a file that cannot be read.
pub fn read(source: &Source) -> Result<TextData> {
    let mut notes = Vec::new();
    let mut examples = |records: Records<Summary>| -> Vec<Example> {
        notes.extend(records.left_out());
        records.values().into_iter().enumerate().filter_map(|(record, summary)| example(record, summary)).collect()
    };
    let train =
        source.file_if_there(tldr::TRAIN)?.map(|path| Ok::<_, Error>(examples(tldr::read(&path)?))).transpose()?;
    let test = examples(tldr::read(&source.file(tldr::TEST)?)?);
    let (train, test) = match train {
        Some(train) => (train, test),
        None => Pools::divide(tldr::TEST, test, &mut notes),
    };
    Ok(TextData {
        name: "summary",
        pools: Pools::new(train, test, notes)?,
        stop_strings: Vec::new(),
        rewards: Some(Box::new(|texts| {
            let rouge = Rouge::new(&[RougeKind::L], true)?;
            let scores = rouge.score_all(&documents(texts), 1)?;
            Ok(scores.into_iter().map(|kinds| kinds[0].f).collect())
        })),
        rewarded_by: "ROUGE-L, F1, stemmed".to_string(),
    })
}

fn example(record: usize, summary: Summary) -> Option<Example> {
    let [before, body, after] = summary.parts()?.map(str::to_string);
    Some(Example {
        family: "summary",
        record,
        group: summary.prompt.clone(),
        prompt: PromptText { before, body, after, keep: Keep::Beginning },
        demonstrations: vec![summary.completion],
        pair: None,
    })
}
