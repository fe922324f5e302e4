//! Anthropic/hh-rlhf: whole dialogues of which crowd workers preferred one (Bai et al. 2022, arXiv:2204.05862), and
//! red-team attempts (Ganguli et al. 2022, arXiv:2209.07858).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::records::not_empty;
use super::{Records, read_json_lines};

/// The hub's repository.
pub const REPOSITORY: &str = "Anthropic/hh-rlhf";

/// What a person's turn and the assistant's turn begin with.
pub const HUMAN: &str = "\n\nHuman:";
pub const ASSISTANT: &str = "\n\nAssistant:";

/// A part of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    HelpfulBase,
    HelpfulOnline,
    HelpfulRejectionSampled,
    HarmlessBase,
}

impl Part {
    pub const ALL: [Part; 4] =
        [Part::HelpfulBase, Part::HelpfulOnline, Part::HelpfulRejectionSampled, Part::HarmlessBase];

    /// The name of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Part::HelpfulBase => "helpful-base",
            Part::HelpfulOnline => "helpful-online",
            Part::HelpfulRejectionSampled => "helpful-rejection-sampled",
            Part::HarmlessBase => "harmless-base",
        }
    }

    /// The file of its training or its test records.
    pub fn file(self, is_train: bool) -> String {
        format!("{}/{}.jsonl.gz", self.folder(), if is_train { "train" } else { "test" })
    }

    /// What the crowd workers looked for.
    pub fn family(self) -> &'static str {
        match self {
            Part::HelpfulBase | Part::HelpfulOnline | Part::HelpfulRejectionSampled => "helpful",
            Part::HarmlessBase => "harmless",
        }
    }
}

/// The file of the red-team attempts.
pub const RED_TEAM: &str = "red-team-attempts/red_team_attempts.jsonl.gz";

/// Two whole dialogues with the same beginning.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pair {
    pub chosen: String,
    pub rejected: String,
}

/// A pair as what was asked and two answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers<'a> {
    /// The dialogue up to the marker after which the assistant answers for the last time.
    pub prompt: &'a str,
    pub chosen: &'a str,
    pub rejected: &'a str,
}

impl Pair {
    /// `None` where the two dialogues differ before their last answers (14 of 4,666 test records).
    pub fn answers(&self) -> Option<Answers<'_>> {
        let (prompt, chosen) = last_answer(&self.chosen)?;
        let (other, rejected) = last_answer(&self.rejected)?;
        (prompt == other).then_some(Answers { prompt, chosen, rejected })
    }
}

/// A dialogue as all up to the last marker of the assistant, the marker included, and what follows.
pub fn last_answer(dialogue: &str) -> Option<(&str, &str)> {
    Some(dialogue.split_at(dialogue.rfind(ASSISTANT)? + ASSISTANT.len()))
}

/// The pairs of a file. Chosen may equal rejected: [`equal`] counts them.
///
/// # Errors
/// Those of [`read_json_lines`].
pub fn read_pairs(path: &Path) -> Result<Records<Pair>> {
    let check = |pair: Pair| {
        for (name, text) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
            not_empty(name, text)?;
            ensure!(text.starts_with(HUMAN), "{name} does not begin with {HUMAN:?}");
            ensure!(text.contains(ASSISTANT), "{name} has no turn of the assistant ({ASSISTANT:?})");
        }
        Ok(pair)
    };
    read_json_lines(path)?.map(check).some()
}

/// The numbers of the records whose two dialogues are equal: they say nothing about which is better.
pub fn equal(pairs: &Records<Pair>) -> Vec<usize> {
    pairs.records.iter().filter(|pair| pair.value.chosen == pair.value.rejected).map(|pair| pair.number).collect()
}

/// One attempt to make an assistant say something harmful.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Attempt {
    pub transcript: String,
    /// How successful the attempt was, from 0 to 4, by the one who made it.
    pub rating: f64,
    /// By a preference model: the lowest of the assistant's turns.
    pub min_harmlessness_score_transcript: Option<f64>,
}

impl Attempt {
    /// The first turn of the person, with the marker after which the assistant answers.
    pub fn prompt(&self) -> Option<&str> {
        let end = self.transcript.find(ASSISTANT)? + ASSISTANT.len();
        self.transcript.get(..end)
    }
}

/// The red-team attempts of a file.
///
/// # Errors
/// Those of [`read_json_lines`].
pub fn read_attempts(path: &Path) -> Result<Records<Attempt>> {
    let check = |attempt: Attempt| {
        not_empty("transcript", &attempt.transcript)?;
        attempt.prompt().context("the transcript has no turn of the assistant")?;
        Ok(attempt)
    };
    read_json_lines(path)?.map(check).some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_a_prompt_and_two_answers() {
        let pair = Pair {
            chosen: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d".into(),
            rejected: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:".into(),
        };
        let answers = pair.answers().unwrap();
        assert_eq!(answers.prompt, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");
        assert_eq!((answers.chosen, answers.rejected), (" d", ""));
        let pair = Pair { rejected: "\n\nHuman: a\n\nAssistant: x".into(), ..pair };
        assert_eq!(pair.answers(), None);
    }
}
