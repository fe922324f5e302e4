//! The pairs of HH-RLHF that a reward model is trained on, and those that are held out.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::models::Source;
use crate::tasks::data::hh_rlhf::{Pair, Part};
use crate::tasks::dialogue::Dialogues;
use crate::tasks::text::{Example, Pools};

/// What the people who compared two answers looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Helpful,
    Harmless,
}

/// The pairs of HH-RLHF as the task of dialogue splits them, each with its family: what that task holds out, a reward model
/// is not trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub train: Vec<(Family, Pair)>,
    /// What settings are chosen on.
    pub validation: Vec<(Family, Pair)>,
    pub test: Vec<(Family, Pair)>,
    /// Dialogues of which chosen and rejected are equal, which are in none of the splits.
    pub equal: usize,
    /// The files that were read.
    pub files: Vec<ReadFile>,
    /// What was left out and how the splits were made, in words.
    pub notes: Vec<String>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadFile {
    pub file: String,
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::Helpful, Family::Harmless];

    pub fn name(self) -> &'static str {
        match self {
            Family::Helpful => "helpful",
            Family::Harmless => "harmless",
        }
    }
}

impl Split {
    /// Reads the parts of HH-RLHF that are there, of one family or of both. Where there are no training files, the test files
    /// serve for all three splits, and a note says so: see [`Pools::new`].
    ///
    /// # Errors
    /// No part is there; a file that cannot be read; a split without a pair.
    pub fn read(data: &Source, only: Option<Family>) -> Result<Self> {
        let (mut parts, mut files, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for part in Part::ALL {
            let mut is_there = false;
            for file in [part.file(true), part.file(false)] {
                let Some(path) = data.file_if_there(&file)? else { continue };
                is_there = true;
                files.push(ReadFile { file, sha256: digest_of(&path)? });
            }
            match is_there {
                true => parts.push(part),
                false => notes.push(format!("{data}: no file of {} is there, it is left out", part.folder())),
            }
        }
        ensure!(
            !parts.is_empty(),
            "{data}: no file of HH-RLHF is there or to be downloaded, such as {}",
            Part::ALL[0].file(true)
        );
        // All parts, whatever family is asked for: the task's splits are those of all together.
        let pools = Dialogues { parts, red_team: false }.read(data)?.pools;
        notes.extend(pools.notes.iter().cloned());
        let Pools { train, validation, test, .. } = pools;
        let mut equal = 0;
        let mut pairs = |examples: Vec<Example>| -> Vec<(Family, Pair)> {
            let all: Vec<_> = examples
                .into_iter()
                .filter_map(|example| {
                    let family = Family::ALL.into_iter().find(|family| family.name() == example.family)?;
                    only.is_none_or(|only| only == family).then_some((family, example))
                })
                .collect();
            equal += all.iter().filter(|(_, example)| example.pair.is_none()).count();
            all.into_iter().filter_map(|(family, example)| Some((family, pair(example)?))).collect()
        };
        let (train, validation, test) = (pairs(train), pairs(validation), pairs(test));
        let split = Self { train, validation, test, equal, files, notes };
        for (name, pairs) in [("train on", &split.train), ("validate on", &split.validation), ("test on", &split.test)]
        {
            ensure!(!pairs.is_empty(), "{data}: there are no {} pairs to {name}", only.map_or("", Family::name));
        }
        Ok(split)
    }
}

fn digest_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(format!("{:x}", Sha256::digest(bytes)))
}

/// Two whole dialogues.
fn pair(example: Example) -> Option<Pair> {
    let prompt = example.prompt.text();
    let (chosen, rejected) = example.pair?;
    Some(Pair { chosen: [&prompt[..], &chosen].concat(), rejected: [&prompt[..], &rejected].concat() })
}
