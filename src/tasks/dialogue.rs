//! Dialogue: the assistant's next answer, on Anthropic/hh-rlhf. The reward is learned.

use anyhow::{Result, bail};

use super::data::Records;
use super::data::hh_rlhf::{self, ASSISTANT, HUMAN, Pair, Part};
use super::text::{Example, Keep, Pools, PromptText, TextData};
use crate::models::Source;

/// What is read of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogues {
    pub parts: Vec<Part>,
    /// The first turns of the red-team attempts as further prompts to train on, where the file is there.
    pub red_team: bool,
}

impl Default for Dialogues {
    /// What crowd workers rated for helpfulness and for harmlessness, without the later rounds.
    fn default() -> Self {
        Self { parts: vec![Part::HelpfulBase, Part::HarmlessBase], red_team: false }
    }
}

impl Dialogues {
    /// The data set in a folder or on the hub. A turn of the person ends an answer.
    ///
    /// Prompts are dialogues up to the assistant's last turn; too long ones lose their first turns. Where chosen and
    /// rejected differ before that turn, or one has no answer, the record is left out; where they are equal, the example
    /// has a demonstration and no pair. The chosen answer is the demonstration. Dialogues with the same first turn stay in
    /// one split.
    ///
    /// # Errors
    /// No file of a part is there; a file that cannot be read.
    pub fn read(&self, source: &Source) -> Result<TextData> {
        let (mut train, mut test, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for part in &self.parts {
            let mut read = |is_train: bool| -> Result<Option<Vec<Example>>> {
                let Some(path) = source.file_if_there(&part.file(is_train))? else { return Ok(None) };
                let pairs = hh_rlhf::read_pairs(&path)?;
                notes.extend(pairs.left_out());
                Ok(Some(examples(pairs, *part, &mut notes)))
            };
            let (of_train, of_test) = (read(true)?, read(false)?);
            let (of_train, of_test) = match (of_train, of_test) {
                (None, Some(test)) => Pools::divide(part.folder(), test, &mut notes),
                (Some(train), test) => (train, test.unwrap_or_default()),
                (None, None) => {
                    bail!("{source}: neither {} nor {} is there or to be downloaded", part.file(true), part.file(false))
                }
            };
            train.extend(of_train);
            test.extend(of_test);
        }
        if self.red_team {
            match source.file_if_there(hh_rlhf::RED_TEAM)? {
                None => notes.push(format!("{} is not there: no red-team prompts", hh_rlhf::RED_TEAM)),
                Some(path) => {
                    let attempts = hh_rlhf::read_attempts(&path)?;
                    notes.extend(attempts.left_out());
                    let prompts = attempts.records.iter().filter_map(|attempt| attempt.value.prompt());
                    train.extend(prompts.enumerate().map(|(i, prompt)| example("red-team", i, prompt)));
                }
            }
        }
        Ok(TextData {
            name: "dialogue",
            pools: Pools::new(train, test, notes)?,
            stop_strings: vec![HUMAN.to_string()],
            rewards: None,
            rewarded_by: String::new(),
        })
    }
}

fn examples(pairs: Records<Pair>, part: Part, notes: &mut Vec<String>) -> Vec<Example> {
    let file = pairs.name();
    let (mut examples, mut equal, mut unusable) = (Vec::new(), Vec::new(), Vec::new());
    for pair in pairs.records {
        let Some(answers) = pair.value.answers() else {
            unusable.push(pair.number);
            continue;
        };
        let there = |text: &str| !text.trim().is_empty();
        if !there(answers.chosen) || !there(answers.rejected) {
            unusable.push(pair.number);
            continue;
        }
        let is_equal = answers.chosen == answers.rejected;
        if is_equal {
            equal.push(pair.number);
        }
        examples.push(Example {
            demonstrations: vec![answers.chosen.to_string()],
            pair: (!is_equal).then(|| (answers.chosen.to_string(), answers.rejected.to_string())),
            ..example(part.family(), pair.number, answers.prompt)
        });
    }
    if !equal.is_empty() {
        notes.push(format!(
            "{file}: in {} records chosen equals rejected, they are no pairs: {}",
            equal.len(),
            list(&equal)
        ));
    }
    if !unusable.is_empty() {
        notes.push(format!(
            "{file}: {} records have an empty answer or differ before the last one, they are left out: {}",
            unusable.len(),
            list(&unusable)
        ));
    }
    examples
}

/// A prompt without answers.
fn example(family: &'static str, record: usize, prompt: &str) -> Example {
    let first = prompt.find(ASSISTANT).unwrap_or(prompt.len());
    let (body, after) = prompt.split_at(prompt.len() - ASSISTANT.len());
    Example {
        family,
        record,
        group: prompt[..first].to_string(),
        prompt: PromptText {
            before: String::new(),
            body: body.to_string(),
            after: after.to_string(),
            keep: Keep::EndFrom(HUMAN),
        },
        demonstrations: Vec::new(),
        pair: None,
    }
}

fn list(numbers: &[usize]) -> String {
    const NAMED: usize = 10;
    let named: Vec<_> = numbers.iter().take(NAMED).map(usize::to_string).collect();
    let more = if numbers.len() > NAMED { ", ..." } else { "" };
    format!("numbers {}{more}", named.join(", "))
}
